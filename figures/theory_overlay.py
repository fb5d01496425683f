"""Theory beside measurement: 32 seeds of a tanh network within its band.

Schoenholz et al. (2017), arXiv:1611.01232: mean-field theory gives the second moments of signal
and gradient at infinite width; width-1/n theory gives how far a seed may be from them.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, seeds = (128, 8) if small else (512, 32)
    net = pp.Network(depth=30, width=width, activation="tanh", init=(1.3, 0.3))
    theory = pp.predict(net)
    record = pp.measure(net, jax.random.key(0), seeds=seeds, measures=("q",))
    assert pp.departures(record, theory) == []
    off = np.abs(record.log10_forward_q - theory.log10_forward_q) / theory.log10_forward_q_sd
    outside = float((off > 2).mean())
    assert 0.01 < outside < 0.1, f"a band of 2 sd should hold 95 % of the seeds, not {1 - outside}"
    figure = Figure((10, 4), layout="constrained")
    for ax, direction in zip(figure.subplots(1, 2), ("forward", "backward"), strict=True):
        pp.plot.variance(record, ax=ax, direction=direction, theory=theory)
    return figure
