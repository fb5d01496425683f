"""How far one draw of a network is from the mean: depth over width decides.

Hanin & Nica (2018), arXiv:1812.05994: the log of a ReLU network's second moment q is nearly
Gaussian, with variance 5 L/n. Exactly, a layer adds E psi_1(k/2) + Var psi(k/2), k ~ Bin(n, 1/2),
and E psi(k/2) + ln(4/n) to its mean: most draws lie far below the mean of q, which is 1.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

EXACT = {  # mean and variance of what a layer adds to ln q, by width
    32: (-0.0825402081, 0.1774977872),
    64: (-0.0401085988, 0.0829973506),
    128: (-0.0197864019, 0.0402339926),
}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depth, seeds, widths = (20, 200, [32]) if small else (50, 2000, [32, 64, 128])
    options = {"seeds": seeds, "batch": 1, "measures": ("activation_q",)}
    spread, shape = Figure((9.6, 3.9), layout="constrained").subplots(1, 2)
    for n, marker, color in zip(widths, "osD", pp.plot.COLOURS, strict=False):
        record = pp.measure(pp.Network(depth + 1, n), jax.random.key(n), **options)
        log = record.log10_activation_q.values[:, :-1] * np.log(10)
        log, (mean, variance) = log - log[:, :1], EXACT[n]
        # a nearly Gaussian variance is known to 2 v^2/S: 4.5 sd fail in 7e-6 of the cases
        off = log[:, -1].var(ddof=1) / (depth * variance) - 1
        assert abs(off) < 4.5 * (2 / seeds) ** 0.5, f"n = {n}: variance is off by {off:.1%}"
        off = log[:, -1].mean() - depth * mean
        assert abs(off) < 4.5 * (depth * variance / seeds) ** 0.5, f"n = {n}: mean {off:.2f} off"
        style, ratio, x = {"color": color}, np.arange(depth + 1) / n, np.linspace(-3.5, 3.5, 200)
        spread.plot(ratio[::5], log.var(axis=0)[::5], marker, **style, label=f"n = {n}, measured")
        spread.plot(ratio, ratio * n * variance, **style, lw=0.8, label="exact" * (n == 32))
        last = log[:, -1] / np.log(10)
        middle, sd = depth * mean / np.log(10), (depth * variance) ** 0.5 / np.log(10)
        shape.hist(last, 30, density=True, **style, alpha=0.35)
        shape.plot(middle + sd * x, np.exp(-(x**2) / 2) / (sd * (2 * np.pi) ** 0.5), **style)
        half = f"n = {n}: half of the draws below {10 ** np.median(last):.2g}"
        shape.axvline(np.median(last), 0, 0.74, **style, linestyle=":", label=half)
    spread.plot([0, 1.6], [0, 8], "k--", linewidth=0.8, label="5 L/n, for wide layers")
    spread.set(xlabel="depth over width, L/n", ylabel="variance of ln q over draws")
    shape.axvline(0, 0, 0.74, color="k", linewidth=0.8, label="mean of q: 1")
    shape.set(xlabel=f"log10 of q after {depth} layers", ylabel="share per decade", ylim=(0, 1))
    for ax in (spread, shape):
        ax.legend(frameon=False, loc="upper left", fontsize="small")
    return shape.figure
