"""How deep signals stay apart: depth scales of tanh and of He's ReLU, and what dropout leaves.

Schoenholz et al. (2017), arXiv:1611.01232: c of two inputs settles over xi_c layers, and networks
train up to about 6 xi_c; dropout takes the critical point away. He's ReLU has no depth scale
without it; with a share rho kept c settles where c = rho kappa(c), kappa the arc-cosine kernel.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

XI = {1.0: 3.626976, 1.5: 15.790994, 1.7: 74.918271, 1.8: 125.784094, 2.0: 25.213415, 4.0: 6.980274}
DROPPED = {0.99: (0.765783, 86.88), 0.95: (0.509403, 40.65), 0.9: (0.356414, 28.0)}  # c*, 6 xi_c
CRITICAL, SIGMAS = (1.7609546396, 0.05), (1.7609546396**0.5, 0.05**0.5)
KAPPA = {1: 0.3183098862, 2: 0.4937310902, 5: 0.7359463506, 10: 0.8715355160}  # c_l of He's ReLU


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, depth, points, shown = (256, 10, 1, 1) if small else (1000, 30, 40, 4)
    scales, of_tanh, of_relu = Figure((11, 3.9), layout="constrained").subplots(1, 3)
    for sigma_w2, xi in [*XI.items()][: 1 if small else 6]:
        found = pp.fixed_points("tanh", sigma_w2, 0.05)[0].xi_c
        assert abs(found / xi - 1) < 1e-6, f"xi_c is {found} at {sigma_w2}"
    grid = np.unique([*np.linspace(0.4, 4, points), *np.linspace(1.7, 1.82, points)])
    for keep, color in [*zip((1.0, *DROPPED), pp.plot.COLOURS, strict=False)][-shown:]:
        depths = [pp.fixed_points("tanh", w, 0.05, keep)[0].trainable_depth for w in grid]
        scales.semilogy(grid, depths, color=color, label=f"{1 - keep:.0%} dropped")
        (point,) = pp.fixed_points("tanh", *CRITICAL, keep)
        found = point.c, point.trainable_depth
        assert np.allclose(found, DROPPED.get(keep, found), 2e-4), f"{keep}: {point}"
        c = pp.fixed_points("relu", 2.0 * keep, 0.0, keep)[0].c
        off = c - keep * (np.sqrt(1 - c * c) + (np.pi - np.arccos(c)) * c) / np.pi
        assert abs(off) < 1e-9, f"ReLU with {keep} kept settles at {c}"
        for ax, phi, init in ((of_tanh, "tanh", SIGMAS), (of_relu, "relu", "he_normal")):
            net = pp.Network(depth, width, f"mlp(dropout={1 - keep:.2f})", phi, init)
            record = pp.measure(net, jax.random.key(0), measures=("forward_correlation",))
            measured, theory = (r.forward_correlation for r in (record, pp.predict(net)))
            off = np.abs((measured := measured.mean("seed")) - theory).max()
            assert off < (0.08 if small else 0.03), f"{phi}, {keep}: c is {off:.3f} off"
            listed = [*KAPPA.values()] if (phi, keep) == ("relu", 1.0) else theory[[*KAPPA]]
            assert np.allclose(theory[[*KAPPA]], listed), f"c of He's ReLU is {theory.values}"
            ax.plot(theory.layer, measured, "o", color=color, markersize=3)
            ax.plot(theory.layer, theory, color=color, linewidth=0.8)
            ax.set(xlabel="layer", ylabel=f"cosine c of two inputs, {phi}", ylim=(-0.05, 1.05))
    scales.set(xlabel="$σ_w^2$", ylabel="6 $ξ_c$: trainable depth", title="tanh, $σ_b^2$ = 0.05")
    scales.legend(frameon=False, fontsize="small", loc="upper right")
    return scales.figure
