"""The map of verdicts: initialisers down, activations across."""

import math
from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from propagate.plot import growth_colours
from propagate.plot.style import new_figure
from propagate.types import DIRECTIONS, Direction, UnusableInput
from propagate.verdicts.findings import SUBJECTS, Finding, Verdict

GROWN = (Verdict.EXPLODING, Verdict.VANISHING, Verdict.COLLAPSING)  # faults that have a rate
FINE = (Verdict.STABLE, Verdict.INCONCLUSIVE)
CELL, MARGIN = (0.925, 0.45), (2.7, 1.0)  # inches: of a cell; of names, title and colour bar
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
DARK = 0.47  # luma below which words are white
SMALL = 0.0995  # decades per layer below which three places are shown
JUST_BEYOND = 1.001  # growth over the fastest fine one that is coloured


def heatmap(
    findings: Iterable[Finding], direction: Direction = "backward", *, ax: Axes | None = None
) -> Axes:
    """Map the verdicts and growth rates of a sweep: initialisers down, activations across.

    The colour says what the verdict says. All that is fine over the depth is one neutral colour,
    hatched where the seeds settle nothing; growth beyond it is red and loss blue, in multiples of
    the fastest rate that is fine; faults that are not of growth are violet.

    Args:
        findings: what `judge` returned.
        direction: which of them to show.
        ax: where to draw; a new figure, in which the words fill their cells, by default.

    Returns:
        The axis.

    Raises:
        UnusableInput: there are no findings of that direction.

    Example:
        `heatmap(pp.judge(pp.sweep(net, key=key)), "backward").figure.savefig("map.png")`
    """
    cells = {(str(f.init), str(f.activation)): f for f in findings if f.direction == direction}
    if not cells:
        raise UnusableInput(f"findings of direction {direction!r} are required, got none")
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    ax = new_figure(*size(len(rows), len(columns))).add_subplot() if ax is None else ax
    _cells(ax, [[cells.get((row, column)) for column in columns] for row in rows])
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.set_title(f"growth of the {SUBJECTS[direction]}, decades per layer", fontsize="medium")
    growth_colours.verdict_bar(ax)
    return ax


def heatmaps(findings: Iterable[Finding]) -> Figure:
    """Map the verdicts of both directions, one above the other.

    Args:
        findings: what `judge` returned.

    Raises:
        UnusableInput: there are no findings of stacks.

    Example:
        `heatmaps(pp.judge(pp.sweep(net, key=key))).savefig("maps.png")`
    """
    found = list(findings)
    shown: list[Direction] = [d for d in DIRECTIONS if any(f.direction == d for f in found)]
    if not shown:
        raise UnusableInput("findings of a direction are required, got none")
    rows, columns = (len({getattr(f, name) for f in found}) for name in ("init", "activation"))
    figure = new_figure(*size(rows, columns, len(shown)))
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for ax, direction in zip(axes, shown, strict=True):
        heatmap(found, direction, ax=ax)
    return figure


def size(rows: int, columns: int, panels: int = 1) -> tuple[float, float]:
    """Return the width and the height, in inches, of maps one above the other."""
    return CELL[0] * columns + MARGIN[0], panels * (CELL[1] * rows + MARGIN[1])


def _cells(ax: Axes, findings: list[list[Finding | None]]) -> None:
    """Draw each finding: its verdict as a colour and in words, and its rate."""
    shares = np.array([[_share(finding) for finding in row] for row in findings])
    norm, colours = growth_colours.verdict_colours()
    ax.imshow(np.ma.masked_invalid(shares), aspect="auto", norm=norm, cmap=colours)
    for (i, j), share in np.ndenumerate(shares):
        finding = findings[i][j]
        if finding is None:
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="white"))
            continue
        if finding.verdict is Verdict.INCONCLUSIVE:
            look = {"facecolor": "none", "edgecolor": "0.8", "hatch": "///", "linewidth": 0}
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **look))
        shade = to_rgb(growth_colours.OTHER) if math.isnan(share) else colours(norm(share))[:3]
        colour = "white" if np.dot(shade, LUMA) < DARK else "black"
        text = ax.text(j, i, _words(finding), color=colour, fontsize="small")
        text.set(horizontalalignment="center", verticalalignment="center")


def _share(finding: Finding | None) -> float:
    """Return growth in units of the fastest fine one: 0 if fine, NaN if no growth is the fault."""
    if finding is None or finding.verdict in FINE:
        return 0.0
    if finding.verdict not in GROWN or not math.isfinite(finding.rate):
        return math.nan
    over = finding.depth / finding.fine_depth if finding.fine_depth else math.inf
    grows = finding.rate > 0 and finding.verdict is not Verdict.COLLAPSING
    return (1 if grows else -1) * max(over, JUST_BEYOND)


def _words(finding: Finding) -> str:
    if not math.isfinite(finding.rate):
        return finding.verdict.value
    number = f"{finding.rate:+.3f}" if abs(finding.rate) < SMALL else f"{finding.rate:+.2g}"
    return f"{finding.verdict.value}\n{number.replace('-', '−')}"
