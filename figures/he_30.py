"""He keeps a deep ReLU network's signals, Xavier halves them at every layer.

He et al. (2015), arXiv:1502.01852, Sec. 2.2: Var W = 2/fan_in preserves the second moment of a
ReLU layer, 1/fan_in halves it, forward and backward. Both share their draws, and ReLU is
homogeneous, so their ratio is 2^l exactly.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depth, width, seeds = (30, 128, 8) if small else (30, 512, 16)
    net = pp.Network(depth, width, activation="relu")
    inits = ["he_normal", "xavier_normal"]
    measures = ("forward_q", "backward_q")
    record = pp.sweep(net, init=inits, key=jax.random.key(0), seeds=seeds, measures=measures)
    curves = record.squeeze("activation") / np.log10(2)  # in factors of 2
    steps = curves.log10_forward_q - curves.log10_forward_q.isel(layer=0)
    ends = [steps.isel(layer=-1), curves.log10_backward_q.isel(layer=0)]

    # The log-ratio of one seed has mean -2.5 L/n and variance 5 L/n in nats (Hanin & Nica 2018);
    # four standard errors over the seeds are exceeded with probability 6e-5 per number.
    drift, noise = -2.5 * depth / width / np.log(2), np.sqrt(5 * depth / width / seeds) / np.log(2)
    for end in ends:
        he, xavier = end.mean("seed").values
        assert abs(he - drift) < 4 * noise, f"He: log2 ratio {he:.2f}"
        assert abs(he - xavier - depth) < 1e-3, f"He/Xavier: 2^{he - xavier:.4f}, not 2^{depth}"

    figure = Figure((9, 3.6), layout="constrained")
    forward, backward = figure.subplots(1, 2, sharey=True)
    pp.plot.variance(record, ax=forward, direction="forward")
    pp.plot.variance(record, ax=backward, direction="backward")
    figure.suptitle(f"ReLU, {depth} layers of {width}: He against Xavier, {seeds} seeds")
    return figure
