"""The gradient of a transformer's last MLP against depth: Pre-LN, Post-LN, DeepNorm.

Xiong et al. (2020), Wang et al. (2022): under cross-entropy the gradient falls as L^-0.5 in Pre-LN
and stays in Post-LN. (From a Gaussian cotangent, Pre-LN falls as L^-0.6 at these depths: its stream
grows faster than L while tokens align; `tests/blocks/test_transformer.py` has the rule.)
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

KEY, TICKS = jax.random.key(0), (0.001, 0.002, 0.005, 0.01, 0.02)
LABELS = {"post": ("Post-LN", 0), "pre": ("Pre-LN", -0.5), "deepnorm": ("DeepNorm", -0.5)}


def gradients(arrangement: str, depth: int, width: int) -> np.ndarray:
    """Return W_down's rms gradient by layer, of 4 random inputs with labels."""
    family = f"transformer(arrangement={arrangement},tokens={width // 4})"
    net = pp.Network(depth, width, family, init="xavier_normal")
    data = {"inputs": jax.random.normal(KEY, (4, width * width // 4)), "labels": np.arange(4)}
    options = {"loss": "cross_entropy", "measures": ["down_gradient_q"]}
    record = pp.measure(net, KEY, seeds=12, **data, **options)
    return 10 ** (record.log10_down_gradient_q.mean("seed").values[1:] / 2)


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depths, width = ((6, 24), 32) if small else ((6, 12, 24, 48), 128)
    left, right = Figure((9.6, 4), layout="constrained").subplots(1, 2, sharey=True)
    for k, (a, (label, slope)) in [*enumerate(LABELS.items())][2 * small :]:
        layers = [gradients(a, depth, width) for depth in depths]
        last = [rms[-1] for rms in layers]
        fit = np.polyfit(np.log(depths), np.log(last), 1)[0]
        assert abs(fit - slope) < (0.25 if small else 0.1), f"{a}: L^{fit:.3f}, not L^{slope}"
        assert a != "deepnorm" or np.ptp(np.log(layers[-1])) < np.log(1.1), layers[-1]
        style = {"color": pp.plot.COLOURS[k], "marker": "osD"[k], "markersize": 4}
        left.loglog(depths, last, linestyle="", label=f"{label}: exponent {fit:z.2f}", **style)
        line = last[0] * (np.array(depths) / depths[0]) ** slope
        left.plot(depths, line, "k--", linewidth=0.8, label="exponents 0, -1/2" if k == 2 else None)
        right.plot(range(1, depths[-1] + 1), layers[-1], **style)
    left.set(xlabel="layers L", ylabel="rms gradient of W_down", title="in the last layer")
    left.set(xticks=depths, xticklabels=depths, yticks=TICKS, yticklabels=TICKS)
    left.minorticks_off()
    right.set(xlabel="layer", title=f"in every layer, L = {depths[-1]}")
    right.legend(*left.get_legend_handles_labels(), loc=(0.04, 0.1), frameon=False)
    return left.figure
