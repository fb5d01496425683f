"""The edge of chaos of tanh, and 25 networks measured over the plane.

Poole et al. (2016), arXiv:1606.05340; Schoenholz et al. (2017), arXiv:1611.01232: gradients vanish
below the line chi_1 = 1, explode above it. The line goes through (1, 0), (1.76095464, 0.05) and
(1.98607264, 0.1), by quadrature independent of this package.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

EDGE = {0.0: 1.0, 0.05: 1.76095464, 0.1: 1.98607264}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    for sigma_b2, sigma_w2 in EDGE.items():
        (point,) = pp.critical("tanh", sigma_b2)
        assert abs(point.sigma_w2 - sigma_w2) < 1e-6, f"edge of chaos at {point}"
    width, count = (128, 2) if small else (512, 5)
    plane = pp.phase("tanh", np.linspace(0, 4, 300), np.linspace(0, 0.25, 250))
    inner = [np.linspace(0, end, count + 2)[1:-1] for end in (4.0, 0.25)]
    pairs = [(w, b) for w in inner[0] for b in inner[1]]
    net, inits = pp.Network(30, width, activation="tanh"), [(w**0.5, b**0.5) for w, b in pairs]
    record = pp.sweep(net, init=inits, key=jax.random.key(0), measures=("backward_q",))
    measured = [(*pair, found.rate) for pair, found in zip(pairs, pp.judge(record), strict=True)]
    for w, b, rate in measured:
        expected = float(plane["log10_growth"].interp(sigma_w2=w, sigma_b2=b))
        assert abs(rate - expected) < 0.02, f"at ({w:.3g}, {b:.3g}): {rate:+.3f}, {expected:+.3f}"
    figure = Figure((7.4, 5.0), layout="constrained")
    pp.plot.phase(plane, measured=measured, ax=figure.add_subplot())
    return figure
