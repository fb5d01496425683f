"""Verdicts before training against what training came to: networks of 30 layers on the digits.

Horizontally the decades that the second moment of signal or gradient, whichever changes more, moves
over the depth; dashed is the limit of e⁶ up to which a verdict is stable: Schoenholz et al. (2017),
arXiv:1611.01232, train networks to that depth. Asserted: all that are stable find more than half
of the classes in four epochs but for `critical` with sigmoid, which is slow, and none does that
moves by 12 decades or more. Accuracy is 0 where the loss is no number in the end.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

PHIS = ("relu", "tanh", "gelu", "silu", "sigmoid")
INITS = [(0.8, 0.0), (1.0, 0.0), (1.2, 0.0), (1.4142, 0.0), (1.7, 0.0), (2.2, 0.0), "critical"]
LOOKS = {"stable": ("o", 2), "vanishing": ("v", 0), "exploding": ("^", 1), "collapsing": ("s", 3)}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    net, key = pp.Network(*((8, 64) if small else (30, 128))), jax.random.key(0)
    grid = {"init": [INITS[0], INITS[3]] if small else INITS}
    grid["activation"] = ["relu"] if small else PHIS
    findings = pp.judge(pp.sweep(net, key=key, measures=("q", "variance"), **grid))
    options = {"epochs": 2 if small else 4, "seeds": 1, "measures": ("q",)}
    rates = {"optimizer": "momentum", "learning_rate": (0.003, 0.03)}
    record = pp.train(net, key=key, **grid, **options, **rates).record
    outcome = record.test_accuracy.isel(step=-1, seed=0).max("learning_rate")
    figure = Figure((7.0, 4.2), layout="constrained")
    ax = figure.add_subplot()
    for forward, backward in zip(findings[::2], findings[1::2], strict=True):
        unsound = [f for f in (forward, backward) if f.verdict is not pp.Verdict.STABLE]
        worst = max(unsound or (forward, backward), key=lambda f: abs(f.rate))
        share = float(outcome.sel(init=worst.init, activation=worst.activation))
        decades, word = net.depth * max(abs(forward.rate), abs(backward.rate)), worst.verdict.value
        name = f"{worst.init} + {worst.activation}"
        assert decades < 12 or share < 0.5, f"{name}: {share:.2f}"
        slow = word == "stable" and share < 0.5
        assert not slow or name == "critical + sigmoid", f"{name}: {share:.2f}"
        ax.annotate(name * slow, (decades, share), (6, 4), textcoords="offset points", size="small")
        marker, k = LOOKS.get(word, ("D", 4))
        ax.plot(max(decades, 0.05), share, marker, color=pp.plot.COLOURS[k], alpha=0.8, label=word)
    ax.axvline(6 * np.log10(np.e), color="0.4", ls="--", label="e⁶: the limit of stable")
    ax.set(xscale="log", xlabel="decades over the depth", ylabel="held-out accuracy")
    ax.set_ylim(-0.03, 1)
    named = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(named.values(), named, frameon=False, loc="outside right upper")
    return figure
