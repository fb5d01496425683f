"""The gradient of a transformer's MLP against depth: Pre-LN, Post-LN, DeepNorm.

Xiong et al. (2020), arXiv:2002.04745, Theorem 1: with Pre-LN it falls as 1/sqrt(L), with Post-LN
it does not depend on L. Wang et al. (2022), arXiv:2203.00555: DeepNorm's falls as 1/sqrt(L) and
is the same in all layers. The loss is the sum of the outputs times N(0, 1).
"""

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

import propagate as pp

KEY = jax.random.key(0)
LABELS = {"post": "Post-LN", "pre": "Pre-LN", "deepnorm": "DeepNorm"}


def gradients(arrangement: str, depth: int, width: int) -> np.ndarray:
    """Return the rms gradient of each layer's second MLP matrix."""
    family = f"transformer(arrangement={arrangement},tokens={width // 4})"
    net = pp.Network(depth, width, family, init="xavier_normal")
    record = pp.measure(net, KEY, seeds=2, batch=4, measures=("down_gradient_q",))
    return 10 ** (record.mean("seed").log10_down_gradient_q.values[1:] / 2)


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depths, width = ((6, 24), 32) if small else ((6, 12, 24, 48), 128)
    found = {a: [gradients(a, depth, width) for depth in depths] for a in LABELS}
    last = {a: np.array([layers[-1] for layers in rows]) for a, rows in found.items()}
    slopes = {a: np.polyfit(np.log(depths), np.log(rms), 1)[0] for a, rms in last.items()}
    for a in ("pre", "deepnorm"):
        assert abs(slopes[a] + 0.5) < 0.1, f"{a}: L^{slopes[a]:.3f}, not L^-0.5"
    assert np.ptp(np.log(last["post"])) < np.log(1.5), f"post: {last['post']} not constant"
    for rms in found["deepnorm"]:
        assert rms.max() / rms.min() < 1.1, f"deepnorm: {rms.max() / rms.min():.3f} over layers"

    figure = Figure((9.6, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for k, (a, label) in enumerate(LABELS.items()):
        style = {"color": pp.plot.COLOURS[k], "marker": "osD"[k], "markersize": 4}
        left.loglog(depths, last[a], label=f"{label}: L^{slopes[a]:+.2f}", **style)
        right.plot(np.arange(1, depths[-1] + 1), found[a][-1], label=label, **style)
    left.set(xlabel="layers L", ylabel="rms gradient of W_down", title="in the last layer")
    left.set_xticks(depths, [str(depth) for depth in depths])
    left.xaxis.set_minor_formatter(NullFormatter())
    right.set(xlabel="layer", title=f"in every layer, L = {depths[-1]}")
    left.legend(frameon=False)
    return figure
