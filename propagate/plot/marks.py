"""Findings on the curves that they are about; `propagate.plot.mark_findings`."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from propagate.plot.style import COLOURS, positions
from propagate.record.dataset import second_moment, second_moment_name
from propagate.record.spine import spine
from propagate.types import Direction
from propagate.verdicts.findings import Finding

NAMED = 8  # places: as many have words beside them
LETTER = (0.6 * 7, 1.5 * 7)  # points: the width and the height of one, with room around it
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.5}


def mark_findings(ax: Axes, record: xr.Dataset, findings: Iterable[Finding]) -> Axes:
    """Mark on the axis of `variance` where findings say that a fault shows first.

    A ring lies on the curve of the finding's direction, and a dotted line says the verdict and the
    name of the site. A site beside those along which depth is counted, such as an activation, is
    marked at the next of them. Findings without a place are left out.

    Args:
        ax: what `variance` drew on, of the record of one network or of a custom model.
        record: that record.
        findings: on it; the first eight places are named.

    Returns:
        The axis.

    Example:
        `mark_findings(variance(found.record), found.record, found.findings)`
    """
    drawn = spine(record) if "site" in record.dims else record
    for n, ((direction, k), own) in enumerate(_by_place(drawn, findings).items()):
        colour = COLOURS[direction == "backward"]
        x = positions(drawn)[k]
        ax.axvline(x, color=colour, linestyle=":", linewidth=1, zorder=1)
        _ring(ax, drawn, direction, k, colour)
        if n < NAMED:
            verdicts = ", ".join(dict.fromkeys(f.verdict.value for f in own))
            words = f"{own[0].site or f'layer {own[0].layer}'}: {verdicts}"
            _write(ax, x, words, colour)
    return ax


def _by_place(
    drawn: xr.Dataset, findings: Iterable[Finding]
) -> dict[tuple[Direction, int], list[Finding]]:
    """Group findings by direction and by the position, among what is drawn, of their place."""
    numbers = drawn["site" if "site" in drawn.dims else "layer"].values
    places: dict[tuple[Direction, int], list[Finding]] = {}
    for finding in findings:
        if finding.layer is not None and second_moment_name(finding.direction) in drawn:
            k = min(int(np.searchsorted(numbers, finding.layer)), len(numbers) - 1)
            places.setdefault((finding.direction, k), []).append(finding)
    return places


def _ring(ax: Axes, drawn: xr.Dataset, direction: Direction, k: int, colour: str) -> None:
    """Draw a ring on the curve, if it is finite there."""
    q = second_moment(drawn, direction)
    height = float(np.median(q.values.reshape(-1, q.shape[-1])[:, k]))
    if np.isfinite(height):
        look = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.5, "zorder": 3}
        ax.plot(positions(drawn)[k], height, "o", color=colour, clip_on=False, **look)


def _write(ax: Axes, x: float, words: str, colour: str) -> None:
    """Write upwards beside x, at the end and on the side where least of the curves is covered."""
    figure: Any = ax.figure
    across, up = (72 * size / figure.dpi for size in ax.bbox.size)  # in points
    width, height = LETTER[1] / across, LETTER[0] * len(words) / up
    middle = ax.transAxes.inverted().transform(ax.transData.transform((x, 0)))[0]
    curve = _curves(ax)

    def covered(place: tuple[str, str]) -> int:
        left = middle - width if place[0] == "right" else middle
        low = 0.98 - height if place[1] == "top" else 0.02
        return Bbox.from_bounds(left, low, width, height).count_contains(curve)

    side, end = min(itertools.product(("right", "left"), ("top", "bottom")), key=covered)
    style = {"rotation": 90, "fontsize": "x-small", "color": colour, "bbox": BOX, "zorder": 4}
    height = 0.98 if end == "top" else 0.02
    ax.text(x, height, words, ha=side, va=end, transform=ax.get_xaxis_transform(), **style)


def _curves(ax: Axes) -> np.ndarray:
    """Return points along the curves, in shares of the axis."""
    points = [np.empty((0, 2))]
    for line in ax.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if line.get_transform() == ax.transData and len(x) > 1:
            fine = np.linspace(0, len(x) - 1, 20 * len(x))
            both = (np.interp(fine, np.arange(len(x)), values) for values in (x, y))
            points.append(np.stack([*both], 1))
    return ax.transAxes.inverted().transform(ax.transData.transform(np.concatenate(points)))
