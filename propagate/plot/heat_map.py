"""The map of verdicts: initialisers down, activations across; `plot.heatmap` and `heatmaps`."""

import math
from collections.abc import Iterable
from typing import Any

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
CELL, MARGIN = (0.925, 0.45), (2.4, 0.7)  # inches: of a cell; of names, title and colour bar
LEAST = (2, 3.2)  # columns, and inches of height, for a title and for the words of the bar
LONG = 12  # letters of a name from which on names stand at a slant
SLANT: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
WIDE = 4  # columns that are as wide as a title of one line
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
DARK = 0.47  # luma below which words are white
SMALL, LARGE = 0.0995, 9.995  # decades per layer between which two places are shown
JUST_BEYOND = 1.001  # growth over the fastest fine one that is coloured


def heatmap(
    findings: Iterable[Finding],
    direction: Direction = "backward",
    *,
    ax: Axes | None = None,
    bar: bool = True,
    **labels: Any,
) -> Axes:
    """Map the verdicts and growth rates of a sweep: initialisers down, activations across.

    A green outline is what is fine over the depth, in one neutral colour; where the seeds settle
    nothing it is dotted and has none. Growth beyond it is red and loss blue, in multiples of the
    fastest rate that is fine; faults that are not of growth are violet. All faults are hatched.

    Args:
        findings: what `judge` returned.
        direction: which of them to show.
        ax: where to draw; a new figure, in which the words fill their cells, by default.
        bar: whether to draw the bar that explains the colours.
        **labels: `title`, `xlabel`, `ylabel` and others of `Axes.set`.

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
    ax = new_figure(*_size(len(rows), len(columns))).add_subplot() if ax is None else ax
    _cells(ax, [[cells.get((row, column)) for column in columns] for row in rows])
    ax.set_xticks(range(len(columns)), columns, **(SLANT if max(map(len, columns)) > LONG else {}))
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    end = "\n" if len(columns) < WIDE else " "  # a title wider than its map would run into the bar
    ax.set_title(f"growth of the {SUBJECTS[direction]},{end}decades per layer", fontsize="medium")
    ax.set(**labels)
    if bar:
        growth_colours.verdict_bar(ax)
    return ax


def heatmaps(findings: Iterable[Finding], *, title: str | None = None) -> Figure:
    """Map the verdicts of both directions, one above the other, with one bar for their colours.

    Args:
        findings: what `judge` returned.
        title: of the figure.

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
    figure = new_figure(*_size(rows, columns, len(shown)))
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for ax, direction in zip(axes, shown, strict=True):
        heatmap(found, direction, ax=ax, bar=False)
    growth_colours.verdict_bar(*axes)
    if title:
        figure.suptitle(title)
    return figure


def _size(rows: int, columns: int, panels: int = 1) -> tuple[float, float]:
    """Return the width and the height, in inches, of maps one above the other."""
    width = CELL[0] * max(columns, LEAST[0]) + MARGIN[0]
    return width, max(panels * (CELL[1] * rows + MARGIN[1]), LEAST[1])


def _cells(ax: Axes, findings: list[list[Finding | None]]) -> None:
    """Draw each finding: its verdict as a colour, a look and in words, and its rate."""
    shares = np.array([[_share(finding) for finding in row] for row in findings])
    norm, colours = growth_colours.verdict_colours()
    ax.imshow(np.ma.masked_invalid(shares), aspect="auto", norm=norm, cmap=colours)
    for (i, j), share in np.ndenumerate(shares):
        finding = findings[i][j]
        if finding is None:
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="white"))
            continue
        shade = to_rgb(growth_colours.OTHER) if math.isnan(share) else colours(norm(share))[:3]
        dark = np.dot(shade, LUMA) < DARK
        _look(ax, i, j, finding.verdict, dark=dark)
        text = ax.text(j, i, _words(finding), color="white" if dark else "black", fontsize="small")
        text.set(horizontalalignment="center", verticalalignment="center")
        text.set_in_layout(False)
        if finding.verdict is Verdict.STABLE:
            text.set_fontweight("bold")


def _look(ax: Axes, i: int, j: int, verdict: Verdict, *, dark: bool) -> None:
    """Outline a cell that is fine, dot one that is unsettled, hatch one that is at fault."""
    look: dict[str, Any] = {"facecolor": "none", "linewidth": 0}
    if verdict is Verdict.STABLE:
        edge = 0.03
        look |= {"edgecolor": growth_colours.HEALTHY, "linewidth": 2}
    else:
        edge = 0.0
        shade = growth_colours.HATCH[dark]
        hatch = "..." if verdict is Verdict.INCONCLUSIVE else "///"
        look |= {"edgecolor": shade, "hatch": hatch, "hatch_linewidth": 0.5}
    ax.add_patch(Rectangle((j - 0.5 + edge, i - 0.5 + edge), 1 - 2 * edge, 1 - 2 * edge, **look))


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
    return f"{finding.verdict.value}\n{_number(finding.rate)}"


def _number(rate: float) -> str:
    """Return a rate with a sign: three places where it is small, two else, one from 10 on."""
    places = 3 if abs(rate) < SMALL else 2 if abs(rate) < LARGE else 1
    return f"{rate:+z.{places}f}".replace("+0.000", "0.000").replace("-", "−")
