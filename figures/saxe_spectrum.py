"""Products of Gaussian and of orthogonal matrices: one loses most directions, the other none.

Saxe et al. (2014), arXiv:1312.6120, Fig. 6: the singular values of a deep linear network. Squared,
those of L Gaussian layers have mean 1, variance L and at most (L + 1)^(L + 1)/L^L in the limit of
wide layers; orthogonal ones are all 1.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

LARGEST = {1: 4.0, 8: 23.09206062555313, 16: 44.8447844552322, 64: 175.32742191673142}
INITS = ("lecun_normal", "orthogonal")


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, draws, shown = (100, 4, slice(1, 2)) if small else (400, 4, slice(4))
    figure = Figure((10, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).flat
    for ax, (depth, largest) in zip(axes, [*LARGEST.items()][shown], strict=False):
        nets = [pp.Network(depth, width, activation="identity", init=init) for init in INITS]
        keys = jax.random.split(jax.random.key(0), draws)
        gaussian = np.stack([pp.jacobian.of_network(nets[0], key) for key in keys])
        orthogonal = pp.jacobian.of_network(nets[1], keys[0])
        off = np.abs(orthogonal - 1).max()
        assert off < 1e-4, f"orthogonal, L = {depth}: off 1 by {off:.1e}"
        theory = pp.jacobian.spectrum("identity", depth, 1.0)
        assert abs(theory.edge / largest - 1) < 1e-9 and theory.variance == depth
        squares = gaussian**2
        spread = np.mean(squares.var(axis=1) / squares.mean(axis=1) ** 2) / depth - 1
        # one draw's variance is known to 10 % at 400 units and 16 layers, and has a heavy tail
        known = (8, 0.4) if small else (16, 0.15)
        assert depth > known[0] or abs(spread) < known[1], f"variance is {1 + spread:.2f} L"
        assert np.mean(squares.max(axis=1)) < 1.1 * largest, "beyond the largest of theory"
        density = pp.jacobian.density("identity", depth, 1.0)
        ranked = np.sort(np.log10(squares), axis=None)[::-draws]
        shares = density.per_decade[1:] * -np.diff(density.log10_square)
        below = np.interp(-ranked, -density.log10_square[1:], shares.cumsum())
        seen = ranked > ranked[0] - 12
        gap = np.abs(below - np.arange(width) / width)[seen].max()
        assert gap < (0.06 if small else 0.03), f"L = {depth}: {gap:.3f} off the density"
        pp.plot.spectrum(gaussian, theory=theory, density=density, label="Gaussian", ax=ax)
        pp.plot.spectrum(orthogonal, label="orthogonal", color="#D55E00", ax=ax)
        ax.set(title=f"{depth} linear layer{'s'[: depth - 1]} of {width} units", xlim=(-10.5, 3))
        ax.set_xlabel(ax.get_xlabel() if depth > 8 else "")  # not under a title
    return figure
