"""Which gradients 16 and 8 bits can hold: those of He's network, and of Xavier's after 40 layers.

Micikevicius et al. (2018), arXiv:1710.03740: below 2^-24 a float16 is zero. ReLU with Var W = 1/n
halves a gradient's second moment in every layer, so that after 40 layers it is 2^-40; half of its
values are zero, and of the others, nearly Gaussian, a share of erf(2^-24/sqrt(2 · 2^-39)) is lost.
"""

import math

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

DEPTH = 40
RANGES = {"float16": (-24, 65504.0), "bfloat16": (-133, 3.39e38), "float8_e4m3fn": (-9, 448.0)}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    for name, (least, most) in RANGES.items():
        held = jax.numpy.finfo(name)
        assert float(held.smallest_subnormal) == 2.0**least, f"{name} begins at {held}"
        assert abs(float(held.max) / most - 1) < 1e-3, f"{name} ends at {held.max}"
    figure = Figure((11, 4.2), layout="constrained")
    options = {"seeds": 1, "measures": ("q", "histogram", "zero_fraction")}
    for ax, init in zip(figure.subplots(1, 2), ("he_normal", "xavier_normal"), strict=True):
        net = pp.Network(DEPTH, 256 if small else 1024, init=init)
        record = pp.measure(net, jax.random.key(0), **options)
        pp.plot.exponents(record, ax=ax, title=f"ReLU, {init}")
        mesh = ax.collections[0]
        edges, shares = mesh.get_coordinates()[:-1, 0, 1], 10 ** mesh.get_array()[:, 0]
        lost = float(np.nansum(shares[edges < -24].filled(0)))
        q = 10 ** float(record.log10_backward_q[0, 0])
        expected = math.erf(2**-24 / math.sqrt(2 * 2 * q)) / 2
        near = (0.5 if small else 0.15) * expected + 1e-4  # what is fainter is not drawn
        assert abs(lost - expected) < near, f"{init}: {lost:.4f} lost, not {expected:.4f}"
    return figure
