"""PyTorch's default initialisation: a deep ReLU network keeps its size and forgets its input.

`torch.nn.Linear` draws weights and biases from U(±1/√n), so q' = q/6 + 1/(3n): the second
moment settles at 0.4/n, fed by the biases alone, while what tells inputs apart falls by a
factor of about 6 at every layer. A tool that looks at E h² only calls this stable.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, seeds = (128, 8) if small else (256, 8)
    net = pp.Network(depth=20, width=width, activation="relu", init="torch")
    record = pp.measure(net, jax.random.key(0), seeds=seeds)
    mean = record.mean("seed")
    floor = 10 ** mean.log10_forward_q.values[10:].mean() * width
    assert abs(floor / 0.4 - 1) < 0.15, f"floor of q is {floor:.3f}/n, not 0.4/n"
    fall = np.diff(mean.log10_forward_variance.values[1:12]).mean() * np.log(10)
    assert abs(fall / np.log(1 / 6) - 1) < 0.06, f"variance over inputs falls by exp({fall:.3f})"
    forward, backward = pp.judge(record)
    assert forward.verdict.value == "collapsing" and backward.verdict.value == "vanishing"

    figure = Figure((6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    pp.plot.variance(record, ax=axes)
    axes.axhline(np.log10(0.4 / width), color="0.5", linewidth=0.8, linestyle=":")
    words = f"0.4/n: fed by the biases alone (n = {width})"
    place = 6, np.log10(0.4 / width) - 0.1
    axes.text(*place, words, va="top", color="0.3", fontsize="small")
    axes.set_title("ReLU with torch.nn.Linear's defaults: collapsing, not stable")
    return figure
