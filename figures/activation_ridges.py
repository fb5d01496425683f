"""Activations by depth: tanh with three common gains dies out, shrinks, or stays saturated.

The second moment of tanh's pre-activations after 10 layers is 4.869e-6 with PyTorch's default
weights (Var W = 1/(3n)), 0.0522 with Xavier's (1/n), and 1.178 with PyTorch's gain of 5/3, at which
gradients explode. Numbers by independent quadrature, q_0 = 1.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

GAINS = {  # sigma_w, q after 10 layers, log10 of what the squared gradient grows by
    "PyTorch's default weights": (3**-0.5, 4.869e-6, -5.235),
    "Xavier": (1.0, 0.0522, -1.146),
    "PyTorch's gain of 5/3": (5 / 3, 1.178, 0.877),
}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, seeds = (128, 4) if small else (512, 8)
    figure = Figure((10, 4.6), layout="constrained")
    for ax, (name, (sigma_w, q, growth)) in zip(figure.subplots(1, 3), GAINS.items(), strict=True):
        wide = pp.predict(pp.Network(10, 10**8, "mlp", "tanh", (sigma_w, 0.0)), batch=10**6)
        expected = float(wide.log10_forward_q[-1]), float(wide.log10_backward_q[0])
        assert np.allclose(expected, (np.log10(q), growth), atol=1e-3), f"{name}: {expected}"
        net = pp.Network(11, width, "mlp", "tanh", (sigma_w, 0.0))  # 10 layers, and one after them
        options = {"seeds": seeds, "measures": ("q", "histogram")}
        record = pp.measure(net, jax.random.key(0), **options)
        theory = pp.predict(net, batch=64)
        assert pp.departures(record, theory) == [], f"{name}: not within the band"
        pp.plot.ridge(record, ax=ax, title=name, xlim=(-1.3, 1.3))
    return figure
