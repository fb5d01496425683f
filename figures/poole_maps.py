"""Poole's maps of length and of angle, and networks that follow them.

Poole et al. (2016), arXiv:1606.05340, Figs. 1 and 2: tanh, sigma_b = 0.3, sigma_w = 1.3, 2.5 and 4.
The second moment settles at q* within a few layers. Two inputs become parallel in the ordered phase
(1.3) and end at an angle of their own in the chaotic one. q* and c* are by independent quadrature.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

SETTLED = {1.3: (0.6070467919, 1), 2.5: (4.0791238753, 0.1221037473), 4: (12.6041495, 0.0296959216)}
LOOK = {"markersize": 3, "linewidth": 0.8}
STARTS = {0.8: (0.3, "o"), 0.5: (6.0, "s"), 0.2: (15.0, "D")}  # c and q of the inputs


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, seeds, depth, points, starts = (128, 8, 8, 3, 1) if small else (1000, 8, 30, 41, 3)
    maps, along = Figure((9, 6.6), layout="constrained").subplots(2, 2).T
    q, c = np.linspace(1e-3, 15, points), np.linspace(0, 1, points)
    for (sigma, ends), color in [*zip(SETTLED.items(), pp.plot.COLOURS, strict=False)][-starts:]:
        (point,) = pp.fixed_points("tanh", sigma**2, 0.09)
        assert np.allclose((point.q, point.c), ends, atol=1e-8), f"settles at {point}"
        weights = pp.passage.Weights(sigma**2, 0.09)
        after = [pp.passage.layer("tanh", weights, v).q for v in q]
        maps[0].plot(q, after, color=color, label=f"$σ_w$ = {sigma}: settles at q* = {ends[0]:.3g}")
        after = [1 - pp.passage.layer("tanh", weights, ends[0], 1 - v).apart for v in c]
        maps[1].plot(c, after, color=color, label=f"$σ_w$ = {sigma}: settles at c* = {ends[1]:.3g}")
        net = pp.Network(depth, width, activation="tanh", init=(sigma, 0.3), activate_input=True)
        for cosine, (start, marker) in [*STARTS.items()][:starts]:
            z = np.linalg.qr(np.random.default_rng(0).normal(size=(width, 17)))[0].T
            x = (cosine**0.5 * z[0] + (1 - cosine) ** 0.5 * z[1:]) * (start * width) ** 0.5
            options = {"seeds": seeds, "measures": ("q", "forward_correlation")}
            found = pp.measure(net, jax.random.key(0), inputs=x, **options).mean("seed")
            theory = pp.predict(net, batch=16, q=start, correlation=cosine)
            off, sd = np.abs(found - theory), theory.log10_forward_q_sd / seeds**0.5
            errors, lost = (off.log10_forward_q / sd).max(), off.forward_correlation.max()
            assert errors < 4 and lost < (0.08 if small else 0.03), f"q: {errors} s.e., c: {lost}"
            for record, style in ((found, marker), (theory, "-")):
                along[0].plot(record.layer, 10**record.log10_forward_q, style, color=color, **LOOK)
                along[1].plot(record.layer, record.forward_correlation, style, color=color, **LOOK)
    for ax, right, end, of in zip(maps, along, (15, 1), "qc", strict=True):
        ax.plot([0, end], [0, end], "k:", linewidth=0.8)
        ax.set(xlabel=f"{of} of a layer", ylabel=f"{of} of the next layer")
        right.set(xlabel="layer", ylabel=f"{of} (points: measured; lines: theory)")
        ax.legend(frameon=False, fontsize="small")
    return ax.figure
