"""Delta-orthogonal kernels keep every norm; Gaussian ones spread a signal over positions.

Xiao et al. (2018), arXiv:1806.05393: with independent taps the second moment at a position
becomes the mean over its neighbours, so a mode of frequency theta of its profile falls by
(1 + 2 cos theta)/3 per layer of kernel 3, and one draw's norm wanders. Linear, circular layers.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

SIDE, SEEDS, MODES, LAYERS = 8, 8, np.arange(3), np.arange(9)


def modes(net: pp.Network, seed: int) -> np.ndarray:
    """Modes of q along an axis, by those of an input that is silent but at two positions."""
    h, steps = pp.jacobian.layers_of(net, jax.random.key(0), batch=8, seed=seed)

    def run(h):
        signals = [h, *(h := step(h) for step in steps)]
        return jax.numpy.stack([(h**2).mean((0, 2, 3)) for h in signals])

    found = np.fft.rfft(jax.jit(run)(h.at[:, 2:].set(0)))[:, MODES]
    return (found / found[0]).real


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    norm, profile = (figure := Figure((9.5, 4), layout="constrained")).subplots(1, 2)
    fall = ((1 + 2 * np.cos(2 * np.pi * MODES / SIDE)) / 3) ** LAYERS[:, None]
    for init, theory in {"lecun_normal": fall, "delta_orthogonal": fall**0}.items():
        net = pp.Network(8, 16 if small else 64, f"conv2d(positions={SIDE})", "identity", init)
        each = np.stack([modes(net, seed) for seed in range(SEEDS)])
        # 8 standard errors of 8 seeds are exceeded with probability 1e-4 (Student's t)
        off = np.abs(each.mean(0) - theory) - 8 * each.std(0) / np.sqrt(SEEDS - 1)
        assert np.all(off < 1e-4), f"{init}: modes are off by {off.max():.4f} too much"
        hues = pp.plot.COLOURS[:3] if theory is fall else ["black"] * 3
        norm.plot(LAYERS, each[..., 0].T, color=hues[1], label=[init, *[""] * (SEEDS - 1)])
        for k, hue in zip(MODES, hues, strict=True):
            profile.plot(LAYERS, theory[:, k], color=hue, linewidth=0.9)
            style = {"color": hue, "fillstyle": "none", "label": f"{init}, k = {k}"}
            profile.plot(LAYERS, each.mean(0)[:, k], "os^"[k], **style)
    name = f"amplitude of cos(2πkx/{SIDE}) in its profile\nover positions x; lines: theory"
    norm.set(xlabel="layer", ylabel="share of the input's", title=f"second moment of {SEEDS} draws")
    profile.set(xlabel="layer", title=name)
    norm.legend()
    profile.legend(loc=(0.45, 0.5), fontsize="small")
    return figure
