"""The curves of one direction on one axis: medians, bands over seeds, marks where they end."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D

from propagate.plot.style import (
    COLOURS,
    depth_dim,
    each_pairing,
    legend_key,
    pairing_style,
    positions,
)
from propagate.record.dataset import second_moment, second_moment_sd
from propagate.types import Direction

THEORY = {"color": "black", "linestyle": "--", "linewidth": 0.8, "label": "theory"}


def subject_of(record: xr.Dataset, direction: Direction) -> str:
    """Return what a direction's second moment is of, in words."""
    signal = "h" if depth_dim(record) == "layer" else "a site's output"
    return signal if direction == "forward" else f"the gradient at {signal}"


@dataclass
class GrowthPanel:
    """An axis with the curves of one direction.

    Attributes:
        ax: where to draw.
        direction: of travel.
        like_theory: whether the band of seeds is two standard deviations about their mean.
        ends: marks on curves where they stop being finite.
        keys: entries of the legend for line styles and for such marks.
        paths: of second moments: where they lie, in the order of travel, and their colour.
        bands: outlines over seeds, and their colours, drawn as one.
    """

    ax: Axes
    direction: Direction
    like_theory: bool = False
    ends: list[Line2D] = field(default_factory=list)
    keys: list[Line2D] = field(default_factory=list)
    paths: list[tuple[np.ndarray, np.ndarray, Any]] = field(default_factory=list)
    bands: dict[str, list[Any]] = field(default_factory=lambda: {"verts": [], "facecolors": []})

    def draw(self, record: xr.Dataset, *, apart: bool = False) -> None:
        """Draw the curves; `apart` tells them from the other direction's on the same axis."""
        subject, forward = subject_of(record, self.direction), self.direction == "forward"
        dashed = {"linestyle": "--", "linewidth": 1, "marker": "", "label": ""}
        line = {"linestyle": ":" if apart and not forward else "-"}
        over_inputs, several = forward and "log10_forward_variance" in record, False
        for indices, one in each_pairing(record):
            several |= bool(indices)
            if indices:
                style = pairing_style(record, indices) | line
            else:
                style = {"color": COLOURS[not forward], "label": f"second moment of {subject}"}
            if over_inputs:
                self._curve(one["log10_forward_variance"], **style | dashed)
            path = self._curve(second_moment(one, self.direction), **style)
            self.paths.append((*path, style["color"]))
        if self.bands["verts"]:
            look: dict[str, Any] = {"facecolors": self.bands["facecolors"], "linewidths": 0}
            self.ax.add_collection(PolyCollection(self.bands["verts"], alpha=0.2, **look))
        if apart and several:
            self.keys.append(legend_key(f"second moment of {subject}", **line))
        if over_inputs:
            label = f"variance over inputs of {subject}"
            colour = "0.3" if several else COLOURS[0]
            self.keys.append(legend_key(label, colour, linestyle="--", linewidth=1))

    def draw_theory(self, theory: xr.Dataset) -> None:
        """Draw what is expected in black, with two standard deviations over draws beside it."""
        banded = second_moment_sd(theory, self.direction) is not None
        style = THEORY | ({"label": "theory, ±2 sd of a seed"} if banded else {})
        for _, one in each_pairing(theory):
            middle, sd = second_moment(one, self.direction), second_moment_sd(one, self.direction)
            self._curve(middle, **style)
            if sd is not None:
                reach = np.where(np.isfinite(sd.values), 2 * sd.values, np.nan).ravel()
                low, high = middle.values.ravel() - reach, middle.values.ravel() + reach
                band = {"facecolor": "black", "alpha": 0.12, "linewidth": 0}
                self.ax.fill_between(positions(one), low, high, **band)
                for edge in (low, high):
                    self.ax.plot(positions(one), edge, color="black", linewidth=0.5)

    def _curve(self, values: xr.DataArray, **style: Any) -> tuple[np.ndarray, np.ndarray]:
        """Draw one curve and its band over seeds; mark where it stops being finite.

        Returns its places and its values in the order of travel. What was not measured has no
        curve: matplotlib cannot space the markers of one that is nowhere finite.
        """
        values = values.transpose(..., depth_dim(values))
        x, y = positions(values), values.values.reshape(-1, values.shape[-1])
        onward = slice(None) if self.direction == "forward" else slice(None, None, -1)
        spread = _two_sd if self.like_theory and len(y) > 1 else _range
        low, middle, high = spread(_overflowed(y[:, onward])[:, onward])
        if np.isfinite(middle).any():
            self.ax.add_line(Line2D(x, np.where(np.isfinite(middle), middle, np.nan), **style))
        if len(y) > 1:
            known = np.isfinite(low) & np.isfinite(high)
            for k in _runs(known):
                there, back = np.c_[x[k], low[k]], np.c_[x[k], high[k]][::-1]
                self.bands["verts"].append(np.concatenate([there, back]))
                self.bands["facecolors"].append(style["color"])
        x, path = x[onward], middle[onward]
        for last in np.flatnonzero(np.isfinite(path[:-1]) & np.isinf(path[1:])):
            self._end(x[last], path[last], style["color"], zero=path[last + 1] < 0)
        return x, path

    def _end(self, x: float, y: float, colour: Any, *, zero: bool) -> None:
        word = "exact zero beyond" if zero else "overflow beyond"
        self.mark(x, y, colour, "x" if zero else "^", word)

    def mark(self, x: float, y: float, colour: Any, marker: str, word: str) -> None:
        """Draw a mark on a curve, which the legend explains."""
        look: dict[str, Any] = {"marker": marker, "linestyle": "", "markersize": 6}
        line = Line2D([x], [y], color=colour, zorder=3, clip_on=False, **look)
        line.set_in_layout(False)
        self.ends.append(self.ax.add_line(line))
        self.keys.append(legend_key(word, **look))


def _runs(known: np.ndarray) -> list[np.ndarray]:
    """Return the places of each stretch of what is known."""
    places = np.flatnonzero(known)
    return [run for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if run.size]


def _overflowed(path: np.ndarray) -> np.ndarray:
    """Return `path` (seed, layer), in the order of travel, with NaN to its very end as +inf."""
    absent = np.isnan(path)
    to_the_end = np.logical_and.accumulate(absent[:, ::-1], axis=1)[:, ::-1]
    return np.where(to_the_end & ~absent.all(axis=1, keepdims=True), np.inf, path)


def _range(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least, the median and the largest over seeds, which may be infinite."""
    ranked = np.sort(y, axis=0)
    below, above = ranked[(len(y) - 1) // 2], ranked[len(y) // 2]
    with np.errstate(invalid="ignore"):
        return ranked[0], np.where(below == above, below, (below + above) / 2), ranked[-1]


def _two_sd(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean over seeds, and two standard deviations below and above it."""
    with np.errstate(invalid="ignore"):
        middle, reach = y.mean(axis=0), 2 * y.std(axis=0, ddof=1)
        return middle - reach, middle, middle + reach
