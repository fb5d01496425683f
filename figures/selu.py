"""SELU against depth: the signal returns to 1 from any start, and yet the gradient explodes.

Klambauer et al. (2017), arXiv:1706.02515: with Var W = 1/n the second moment has a stable fixed
point at 1. The gradient is not critical there: chi_1 = E selu'^2 = 1.0715749925, a factor of 1000
in 100 layers. PyTorch's gain of 3/4 is close to critical. Numbers by independent quadrature.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

FROM_LARGE = {1: 2.05625915, 2: 1.76070457, 5: 1.31210312, 10: 1.08291330, 20: 1.00688541}
NETS = {  # activation, init, q of the input, log10 of the gradient's growth over 100 layers
    "SELU, LeCun, from q = 2.5": ("selu", "lecun_normal", 2.5, 2.672),
    "SELU, LeCun, from q = 1": ("selu", "lecun_normal", 1.0, 3.002),
    "SELU, PyTorch's gain 3/4": ("selu", (0.75, 0.0), 1.0, -1.351),
    "ReLU, He": ("relu", "he_normal", 1.0, 0.0),
}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, seeds, shown = (128, 4, 20) if small else (256, 16, 100)
    figure = Figure((9.6, 4.2), layout="constrained")
    axes, some = figure.subplots(1, 2), slice(None, None, shown // 20)
    for k, (label, (phi, init, q, growth)) in enumerate([*NETS.items()][: 1 if small else 4]):
        wide = pp.predict(pp.Network(100, 10**8, activation=phi, init=init), batch=10**6, q=q)
        whole = float(wide.log10_backward_q[0])
        assert abs(whole - growth) < 6e-4, f"{label}: gradient grows by 10^{whole:.4f}"
        found = 10 ** wide.log10_forward_q.values[[*FROM_LARGE]]
        assert q == 1 or np.allclose(found, [*FROM_LARGE.values()], rtol=1e-6), f"q is {found}"
        net = pp.Network(shown, width, activation=phi, init=init, activate_input=True)
        x = np.random.default_rng(0).normal(size=(64, width))
        x *= (q / np.square(x).mean()) ** 0.5
        record = pp.measure(net, jax.random.key(0), seeds=seeds, inputs=x, measures=("q",))
        theory, style = pp.predict(net, batch=64, q=q), {"color": pp.plot.COLOURS[k]}
        assert pp.departures(record, theory) == [], f"{label}: not within the band"
        for ax, place in zip(axes, ("forward", "backward"), strict=True):
            log, sd = theory[f"log10_{place}_q"], theory[f"log10_{place}_q_sd"]
            mean = record[f"log10_{place}_q"].mean("seed")
            ax.plot(log.layer[some], mean[some], "osD^"[k], **style, ms=3.5, label=label)
            ax.plot(log.layer, log, **style, linewidth=1)
            ax.fill_between(log.layer, log - 2 * sd, log + 2 * sd, **style, alpha=0.12)
    for ax, of in zip(axes, ("signal", "gradient"), strict=True):
        ax.set(xlabel="layer", ylabel=f"second moment of the {of}\n(decades)")
    words = {"title": f"points: mean of {seeds} seeds; lines: theory, ±2 sd of one seed"}
    figure.legend(*ax.get_legend_handles_labels(), ncols=4, loc="outside upper center", **words)
    return figure
