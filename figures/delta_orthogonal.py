"""Delta-orthogonal kernels keep every norm; Gaussian ones smear a signal over its positions.

Xiao et al. (2018), arXiv:1806.05393: with independent taps the second moment at a position
becomes the mean over its neighbours, so a mode of frequency theta of its profile falls by
(1 + 2 cos theta)/3 per layer of kernel 3, and one draw's norm wanders. Linear, circular layers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import propagate as pp
from propagate.sweep import layers_of

SIDE, DEPTH, SEEDS, MODES = 8, 12, 8, np.arange(3)
LAYERS = np.arange(DEPTH + 1)


def modes(net: pp.Network, seed: int) -> np.ndarray:
    """Modes of q along an axis, by those of an input that is silent but at two positions."""
    h, steps = layers_of(net, jax.random.key(0), batch=8, seed=seed)

    def run(h):
        signals = [h.at[:, 2:].set(0)]
        for step in steps:
            signals.append(step(signals[-1]))
        return jnp.stack([jnp.mean(h**2, axis=(0, 2, 3)) for h in signals])

    found = np.fft.rfft(jax.jit(run)(h))[:, MODES]
    return (found / found[0]).real


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    figure = Figure((9.5, 4), layout="constrained")
    norm, profile = figure.subplots(1, 2)
    fall = ((1 + 2 * np.cos(2 * np.pi * MODES / SIDE)) / 3) ** LAYERS[:, None]
    expected = {"lecun_normal": fall, "delta_orthogonal": np.ones_like(fall)}
    for init, color in (("lecun_normal", "#D55E00"), ("delta_orthogonal", "black")):
        net = pp.Network(DEPTH, 16 if small else 64, f"conv2d(positions={SIDE})", "identity", init)
        each = np.stack([modes(net, seed) for seed in range(SEEDS)])
        # 8 standard errors of 8 seeds are exceeded with probability 1e-4 (Student's t)
        band = 8 * each.std(0) / np.sqrt(SEEDS - 1) + 1e-4
        off = np.abs(each.mean(0) - expected[init])
        assert np.all(off < band), f"{init}: modes are off by {off.max():.4f}"
        norm.plot(LAYERS, each[..., 0].T, color=color, label=[init, *[""] * (SEEDS - 1)])
        for k, hue in zip(MODES, pp.plot.COLOURS, strict=False):
            marker, hue = ("s", "black") if color == "black" else ("o", hue)
            name = f"{init}, mode {k}"
            profile.plot(LAYERS, each.mean(0)[:, k], marker, color=hue, label=name)
            profile.plot(LAYERS, expected[init][:, k], color=hue, linewidth=0.9)
    norm.set(xlabel="layer", ylabel="share of the input's", title="second moment of each draw")
    profile.set(xlabel="layer", title="modes of its profile; lines: theory")
    norm.legend()
    profile.legend()
    return figure
