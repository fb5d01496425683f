"""Batch normalisation makes gradients explode, the more so the smaller the batch.

Yang et al. (2019), arXiv:1902.08129, Thm. 8: per layer, the squared gradient of a ReLU network
grows by [J'(t)+B-1]/[(B-3)(1-J(t))] - 1/(B-3), t = -1/(B-1), J the arc-cosine kernel; that of a
linear one by (B-2)/(B-3).
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

GRID = np.geomspace(7, 300)
EXACT = {"relu": {8: 1.78818998, 32: 1.52195283, 128: 1.47968127}, "identity": {32: 1.03448276}}


def rate(phi: str, batch: np.ndarray) -> np.ndarray:
    """Growth of the squared gradient per layer, at infinite width."""
    t = -1 / (batch - 1)
    slope = (np.pi - np.arccos(t)) / np.pi
    kernel = t * slope + np.sqrt(1 - t**2) / np.pi
    relu = (slope + batch - 1) / ((batch - 3) * (1 - kernel)) - 1 / (batch - 3)
    return relu if phi == "relu" else (batch - 2) / (batch - 3)


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    batches, seeds = ([8], 4) if small else ([8, 16, 32, 64, 128, 256], 8)
    net, measured = pp.Network(30, 256, "mlp(norm=batch)"), {"relu": [], "identity": []}
    axes = (figure := Figure((6.4, 4.2), layout="constrained")).subplots()
    for batch in batches:
        options = {"seeds": seeds, "batch": batch, "measures": ("backward_q",)}
        record = pp.sweep(net, activation=list(measured), key=jax.random.key(0), **options)
        q = 10 ** record.log10_backward_q.values[0]
        for phi, ratios in zip(measured, q[..., 5:28] / q[..., 6:29], strict=True):
            measured[phi].append(ratios.mean(axis=1))
    for (phi, found), color in zip(measured.items(), pp.plot.COLOURS, strict=False):
        for batch, exact in EXACT[phi].items():
            assert abs(rate(phi, np.float64(batch)) / exact - 1) < 1e-8, "the formula"
        # a ratio's relative variance is below 8/n: 5 standard errors fail in 6e-7 of the cases
        mean, spread = np.mean(found, axis=1), np.std(found, axis=1) * 2 / np.sqrt(seeds - 1)
        off = np.abs(mean / rate(phi, np.array(batches)) - 1).max()
        assert off < 5 * (8 / (256 * 23 * seeds)) ** 0.5, f"{phi} is off by {off:.1%}"
        axes.errorbar(batches, mean, spread, fmt="o", color=color, label=f"{phi}, measured ±2 s.e.")
        axes.semilogx(GRID, rate(phi, GRID), base=2, color=color, label=f"{phi}, exact")
    axes.set(xticks=batches, xticklabels=batches, xlabel="batch")
    axes.set_ylabel("growth of the squared gradient per layer")
    axes.legend()
    return figure
