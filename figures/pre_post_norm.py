"""The gradient of a transformer's last MLP against depth: Pre-LN, Post-LN, DeepNorm.

Xiong et al. (2020), Wang et al. (2022): it is E phi^2 per token over the stream before the last
norm. A Pre-LN stream grows as L, faster while tokens align: L^-0.6 at these depths, not L^-0.5.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

KEY, TICKS, PHI = jax.random.key(0), (0.5, 1, 2, 4), 0.2  # E phi^2 of ReLU behind 2/(n + 4n)
PLACES = ("forward", "mlp_branch", "attention_branch", "down_gradient")
LABELS = {"post": ("Post-LN", 0), "pre": ("Pre-LN", -0.6), "deepnorm": ("DeepNorm", -0.5)}


def gradients(arrangement: str, depth: int, width: int) -> tuple[np.ndarray, float]:
    """Return W_down's rms gradient, by layer, and what is expected of the last."""
    family = f"transformer(arrangement={arrangement},tokens={width // 4})"
    net = pp.Network(depth, width, family, init="xavier_normal")
    record = pp.measure(net, KEY, seeds=6, batch=4, measures=[f"{p}_q" for p in PLACES])
    signal, mlp, attention, squared = (10 ** record[f"log10_{p}_q"].mean("seed") for p in PLACES)
    before = {"post": 1, "pre": signal[-2] + attention[-1], "deepnorm": (2 * depth) ** 0.5}
    phi2 = PHI * ((8 * depth) ** -0.5 if arrangement == "deepnorm" else 1)
    expected = np.sqrt(phi2 * width / (before[arrangement] + mlp[-1]))
    return np.sqrt(squared.values[1:]), float(expected)


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depths, width = ((6, 24), 32) if small else ((6, 12, 24, 48), 128)
    left, right = Figure((9.6, 4), layout="constrained").subplots(1, 2, sharey=True)
    for k, (a, (label, slope)) in enumerate(LABELS.items()):
        layers, expected = zip(*(gradients(a, depth, width) for depth in depths), strict=True)
        last = [rms[-1] for rms in layers]
        fit = np.polyfit(np.log(depths), np.log(last), 1)[0]
        assert abs(fit - slope) < (0.25 if small else 0.1), f"{a}: L^{fit:.3f}, not L^{slope}"
        assert np.allclose(last, expected, rtol=0.3 if small else 0.1), f"{a}: {last}, {expected}"
        assert a != "deepnorm" or np.ptp(np.log(layers[-1])) < np.log(1.1), layers[-1]
        style = {"color": pp.plot.COLOURS[k], "marker": "osD"[k], "markersize": 4}
        left.loglog(depths, last, linestyle="", label=f"{label}: exponent {fit:z.2f}", **style)
        left.plot(depths, expected, "k--", linewidth=0.8, label="expected" if k == 2 else None)
        right.plot(range(1, depths[-1] + 1), layers[-1], **style)
    left.set(xlabel="layers L", ylabel="rms gradient of W_down", title="in the last layer")
    left.set(xticks=depths, xticklabels=depths, yticks=TICKS, yticklabels=TICKS)
    left.minorticks_off()
    right.set(xlabel="layer", title=f"in every layer, L = {depths[-1]}")
    left.legend(frameon=False, fontsize="small")
    return left.figure
