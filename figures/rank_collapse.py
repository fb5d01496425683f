"""Tokens that become equal: their mean cosine and the entropy of attention, layer by layer.

Dong et al. (2021), arXiv:2103.03404: attention alone makes all tokens of an input equal. Skips
delay it; with Post-LN tokens are equal at depth 12, with DeepNorm they stay apart.
"""

import jax
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import propagate as pp

BOUNDS = {  # of the cosine, by layer
    "attention": {1: (0.25, 0.65), 2: (0.99, 1.0001)},
    "post": {6: (0.8, 0.99), 12: (0.99, 1.0001)},
    "skip": {2: (0.0, 0.25)},
    "pre": {12: (0.6, 0.9)},
    "deepnorm": {12: (-0.05, 0.05)},
}
LABELS = ("attention alone", "Post-LN", "attention + skip", "Pre-LN", "DeepNorm")


def measured(arrangement: str, width: int):
    """Return the record of 12 layers."""
    net = pp.Network(12, width, f"transformer(arrangement={arrangement})", init="xavier_normal")
    options = {"measures": ("forward_token_correlation", "attention_entropy")}
    return pp.measure(net, jax.random.key(0), seeds=4, batch=2, **options).mean("seed")


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width = 64 if small else 128
    found = {a: measured(a, width) for a in [*BOUNDS][small:]}
    for a, record in found.items():
        for layer, (low, high) in BOUNDS[a].items():
            cosine = float(record.forward_token_correlation[layer])
            assert low < cosine < high, f"{a}, layer {layer}: cosine {cosine:.4f}"

    figure = Figure((9.6, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for k, (record, label) in enumerate(zip(found.values(), LABELS[small:], strict=True)):
        style = {"color": pp.plot.COLOURS[k], "marker": "osDvP"[k], "markersize": 4}
        left.plot(record.layer, record.forward_token_correlation, label=label, **style)
        right.plot(record.layer, record.attention_entropy, **style)
    left.set(xlabel="layer (0 is the input)", ylabel="mean cosine between tokens")
    right.set(xlabel="layer", ylabel="entropy of attention (1 is uniform)", ylim=(-0.03, 1.05))
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right center", frameon=False)
    return figure
