"""The map of verdicts: initialisers down, activations across."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from propagate.plot import growth_colours
from propagate.plot.style import new_figure
from propagate.types import Direction, UnusableInput
from propagate.verdicts.findings import SUBJECTS, Finding


def heatmap(
    findings: Iterable[Finding], direction: Direction = "backward", *, ax: Axes | None = None
) -> Axes:
    """Map the verdicts and growth rates of a sweep: initialisers down, activations across.

    Args:
        findings: what `judge` returned.
        direction: which of them to show.
        ax: where to draw; a new figure by default.

    Returns:
        The axis; colours end at ±1 decade per layer, grey is no finite rate.

    Raises:
        UnusableInput: there are no findings of that direction.

    Example:
        `heatmap(pp.judge(pp.sweep(net, key=key)), "backward").figure.savefig("map.png")`
    """
    cells = {(str(f.init), str(f.activation)): f for f in findings if f.direction == direction}
    if not cells:
        raise UnusableInput(f"findings of direction {direction!r} are required, got none")
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    size = 1.05 * len(columns) + 2.6, 0.5 * len(rows) + 1.5
    ax = new_figure(*size).add_subplot() if ax is None else ax
    image = _cells(ax, [[cells.get((row, column)) for column in columns] for row in rows])
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_title(f"growth of the {SUBJECTS[direction]}")
    growth_colours.bar(ax, image, "decades per layer")
    return ax


def _cells(ax: Axes, findings: list[list[Finding | None]]) -> AxesImage:
    """Draw the rate of each finding as a colour, and its verdict in words."""
    rates = np.array([[np.nan if f is None else float(f.rate) for f in row] for row in findings])
    rates[~np.isfinite(rates)] = np.nan
    scale = growth_colours.colours()
    image = ax.imshow(rates, aspect="auto", **scale)
    for (i, j), rate in np.ndenumerate(rates):
        finding = findings[i][j]
        number = "" if np.isnan(rate) else f"\n{rate:+.2g}".replace("-", "−")
        words = "" if finding is None else finding.verdict.value + number
        shade = scale["cmap"](scale["norm"](rate))[:3]
        dark = np.dot(shade, (0.299, 0.587, 0.114)) < 0.47  # ITU-R BT.601 luma
        colour = "white" if dark else "black"
        ax.text(j, i, words, color=colour, ha="center", va="center", fontsize="small")
    return image
