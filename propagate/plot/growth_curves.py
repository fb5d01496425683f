"""Curves of how the second moment grows along depth; `propagate.plot.variance` and `curves`."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from propagate.plot.style import (
    BESIDE,
    COLOURS,
    depth_dim,
    each_pairing,
    legend_key,
    legend_options,
    new_figure,
    not_measured,
    pairing_style,
    positions,
    widen,
)
from propagate.record.dataset import (
    measured_directions,
    second_moment,
    second_moment_name,
    second_moment_sd,
)
from propagate.record.spine import spine
from propagate.types import DIRECTIONS, Direction

THEORY = {"color": "black", "linestyle": "--", "linewidth": 0.8, "label": "theory"}
SHOWN_DECADES = 40.0  # `curves` shows these on either side of 1
NAMED_SITES = 40  # as many are named below the axis


def variance(
    record: xr.Dataset,
    *,
    ax: Axes | None = None,
    direction: Direction | None = None,
    theory: xr.Dataset | None = None,
) -> Axes:
    """Draw how the signal and its gradient grow along the layers of one record.

    A curve is the median over seeds, its band their range; the variance over inputs is dashed.
    Several pairings have a curve each, in the colour of their initialiser. Of a custom model the
    sites along which its depth is counted are drawn (`record.spine`).

    Args:
        record: what `measure` or `sweep` returned.
        ax: where to draw; a new figure by default.
        direction: `"forward"` (signal) or `"backward"` (gradient); both by default.
        theory: a second record, drawn over the first in black, with twice its standard deviation
            over draws of the weights if it has one; of a custom model, `Diagnosis.theory`.

    Returns:
        The axis, in decades.

    Raises:
        UnusableInput: the record has no second moment of that direction.

    Example:
        `variance(record, theory=pp.predict(net)).figure.savefig("variance.png")`
    """
    wanted: tuple[Direction, ...] = (direction,) if direction else DIRECTIONS
    shown: list[Direction] = [d for d in wanted if d in measured_directions(record)]
    if not shown:
        raise not_measured(" or ".join(map(second_moment_name, wanted)))
    if "weight" in record.dims:
        record = spine(record).drop_dims("weight")
        theory = None if theory is None else theory.sel(site=record["site"])
    beside = BESIDE if ax is None else {}
    ax = new_figure(8.4, 3.8).add_subplot() if ax is None else ax
    panels = [_Panel(ax, d) for d in shown]
    for panel in panels:
        panel.draw(record, apart=len(shown) > 1)
    for panel in panels:
        if theory is not None and panel.direction in measured_directions(theory):
            panel.draw_theory(theory)
    subject = f" of {_subject(record, shown[0])}" if len(shown) == 1 else ""
    ax.set(xlabel=depth_dim(record), ylabel=f"second moment{subject}\n(decades)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "name" in record.coords and record.sizes["site"] <= NAMED_SITES:
        ax.set_xticks(positions(record), record["name"].values, rotation=90, fontsize="x-small")
    ax.legend(**legend_options([ax], _keys(panels), record), **beside)
    return widen(ax)


def curves(record: xr.Dataset) -> Figure:
    """Draw the curves of a sweep: a column for each activation, forward above backward.

    Args:
        record: what `sweep` returned.

    Returns:
        The figure; y is in decades, the same in a row, and cut off at ±40.

    Example:
        `curves(pp.sweep(net, activation=["relu", "tanh"], key=key)).savefig("curves.png")`
    """
    names = [str(a) for a in np.atleast_1d(record.get("activation", ""))]
    fig = new_figure(2.3 * len(names) + 2.6, 5)
    axes = fig.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    ends, panels = positions(record)[[0, -1]], []
    for row, direction in zip(axes, DIRECTIONS, strict=True):
        drawn = [_Panel(ax, direction) for ax in row]
        for k, panel in enumerate(drawn):
            panel.ax.set_autoscale_on(False)  # half of the time went into scaling after each curve
            panel.ax.set_xlim(ends + np.array([-0.05, 0.05]) * np.ptp(ends))
            if direction in measured_directions(record):
                own = record.isel(activation=[k]) if "activation" in record.dims else record
                panel.draw(own)
        row[0].set_ylabel(f"second moment (decades)\nof {_subject(record, direction)}")
        _limit(drawn)
        panels += drawn
    for name, top, bottom in zip(names, *axes, strict=True):
        top.set_title(name, fontsize="medium")
        bottom.set_xlabel(depth_dim(record))
    options = legend_options(axes.flat, _keys(panels), record)
    fig.legend(**options, loc="outside right upper")
    return fig


def _subject(record: xr.Dataset, direction: Direction) -> str:
    signal = "h" if depth_dim(record) == "layer" else "the output"
    return signal if direction == "forward" else f"the gradient at {signal}"


@dataclass
class _Panel:
    """An axis with the curves of one direction.

    Attributes:
        ax: where to draw.
        direction: of travel.
        ends: marks on curves where they stop being finite.
        keys: entries of the legend for line styles and for such marks.
    """

    ax: Axes
    direction: Direction
    ends: list[Line2D] = field(default_factory=list)
    keys: list[Line2D] = field(default_factory=list)

    def draw(self, record: xr.Dataset, *, apart: bool = False) -> None:
        """Draw the curves; `apart` tells them from the other direction's on the same axis."""
        subject, forward = _subject(record, self.direction), self.direction == "forward"
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
            self._curve(second_moment(one, self.direction), **style)
        if apart and several:
            self.keys.append(legend_key(f"second moment of {subject}", **line))
        if over_inputs:
            label = f"variance over inputs of {subject}"
            self.keys.append(legend_key(label, linestyle="--", linewidth=1))

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
                band = {"color": "black", "alpha": 0.12, "linewidth": 0}
                self.ax.fill_between(positions(one), low, high, **band)

    def _curve(self, values: xr.DataArray, **style: Any) -> None:
        """Draw the median and the range over seeds; mark where the median stops being finite."""
        values = values.transpose(..., depth_dim(values))
        x, y = positions(values), values.values.reshape(-1, values.shape[-1])
        onward = slice(None) if self.direction == "forward" else slice(None, None, -1)
        low, middle, high = _spread(_overflowed(y[:, onward])[:, onward])
        self.ax.plot(x, np.where(np.isfinite(middle), middle, np.nan), **style)
        if len(y) > 1:
            known = np.isfinite(low) & np.isfinite(high)
            band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
            self.ax.fill_between(x, low, high, where=known, **band)
        x, path = x[onward], middle[onward]
        for last in np.flatnonzero(np.isfinite(path[:-1]) & np.isinf(path[1:])):
            self._end(x[last], path[last], style["color"], zero=path[last + 1] < 0)

    def _end(self, x: float, y: float, colour: Any, *, zero: bool) -> None:
        look: dict[str, Any] = {"marker": "x" if zero else "^", "linestyle": "", "markersize": 6}
        self.ends += self.ax.plot(x, y, color=colour, zorder=3, clip_on=False, **look)
        self.keys.append(legend_key("exact zero beyond" if zero else "overflow beyond", **look))


def _keys(panels: Iterable[_Panel]) -> list[Line2D]:
    return [key for panel in panels for key in panel.keys]


def _overflowed(path: np.ndarray) -> np.ndarray:
    """Return `path` (seed, layer), in the order of travel, with NaN to its very end as +inf."""
    absent = np.isnan(path)
    to_the_end = np.logical_and.accumulate(absent[:, ::-1], axis=1)[:, ::-1]
    return np.where(to_the_end & ~absent.all(axis=1, keepdims=True), np.inf, path)


def _spread(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least, the median and the largest over seeds, which may be infinite."""
    ranked = np.sort(y, axis=0)
    below, above = ranked[(len(y) - 1) // 2], ranked[len(y) // 2]
    with np.errstate(invalid="ignore"):
        return ranked[0], np.where(below == above, below, (below + above) / 2), ranked[-1]


def _limit(row: list[_Panel]) -> None:
    """Limit y to what is drawn and readable; say where a curve goes on beyond."""
    reaches = np.array([panel.ax.dataLim.intervaly for panel in row])
    known = reaches[np.isfinite(reaches).all(axis=1)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    shown = np.clip([low, high], -SHOWN_DECADES, SHOWN_DECADES)
    pad = max(0.5, 0.06 * (shown[1] - shown[0]))
    for panel, beyond in zip(row, reaches, strict=True):
        panel.ax.set_ylim(shown[0] - pad, shown[1] + pad)
        for mark in panel.ends:
            mark.set_ydata(np.clip(mark.get_ydata(), *shown))
        if np.isfinite(beyond).all():
            _say_beyond(panel, below=beyond[0] < shown[0], above=beyond[1] > shown[1])


def _say_beyond(panel: _Panel, *, below: bool, above: bool) -> None:
    x, side = (0.03, "left") if panel.direction == "forward" else (0.97, "right")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    style: dict[str, Any] = {"transform": panel.ax.transAxes, "fontsize": "x-small", "bbox": box}
    if below:
        panel.ax.text(x, 0.03, f"↓ beyond −{SHOWN_DECADES:g}", ha=side, va="bottom", **style)
    if above:
        panel.ax.text(x, 0.97, f"↑ beyond +{SHOWN_DECADES:g}", ha=side, va="top", **style)
