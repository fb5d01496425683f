"""Glorot & Bengio's comparison: the standard heuristic against normalised initialisation, tanh.

Glorot & Bengio (2010), AISTATS, Figs. 6 and 7: five hidden layers of 1000 tanh units. The
standard heuristic U(±1/√n) has n Var W = 1/3; the normalised one has 1. Expected numbers are
the mean-field ones for inputs of second moment 1.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

STD = {
    "0.57735*lecun_uniform": (0.4603, 0.2495, 0.1412, 0.0810, 0.0467),
    "xavier_uniform": (0.6279, 0.4863, 0.4082, 0.3576, 0.3216),
}
NAME = {"0.57735*lecun_uniform": "standard U(±1/√n)", "xavier_uniform": "normalised"}
GRADIENT = {"0.57735*lecun_uniform": 2.30e-3, "xavier_uniform": 0.1375}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, seeds = (256, 6) if small else (1000, 6)
    net = pp.Network(depth=6, width=width, activation="tanh", activate_input=False)
    measures = ("q", "histogram")
    record = pp.sweep(net, init=list(STD), key=jax.random.key(0), seeds=seeds, measures=measures)
    figure = Figure((9, 6.4), layout="constrained")
    rows = figure.subplots(2, 2, sharex="col", sharey=True)
    for row, init in zip(rows, STD, strict=True):
        own = record.sel(init=init, activation="tanh")
        std = 10 ** (own.log10_activation_q.mean("seed").values[1:6] / 2)
        assert np.allclose(std, STD[init], rtol=0.03), f"{init}: std of activations {std}"
        lost = own.log10_backward_q.mean("seed").values
        ratio = 10 ** (lost[1] - lost[6])
        assert abs(ratio / GRADIENT[init] - 1) < 0.15, f"{init}: gradient ratio {ratio:.3g}"
        pp.plot.histograms(
            own.isel(layer=slice(1, None)), axes=row, units="value", title=NAME[init]
        )
    return figure
