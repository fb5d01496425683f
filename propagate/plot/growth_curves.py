"""Pictures of a record and of findings: growth curves, maps of verdicts, histograms, spectra.

Every function draws on the axis that is passed in, or on a figure of its own that no global
state knows of: keep it with `ax.figure.savefig(…)`. Scales are in decades (log10).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from propagate.plot.style import (
    BESIDE,
    COLOURS,
    DIRECTIONS,
    along,
    at_least_a_decade,
    blank,
    explain,
    legend,
    missing,
    pairings,
    positions,
    style_of,
)
from propagate.record.spine import spine
from propagate.types import Direction

THEORY = {"color": "black", "linestyle": "--", "linewidth": 0.8, "label": "theory"}
SHOWN_DECADES = 40.0  # `curves` shows these on either side of 1
NAMED_SITES = 40  # as many are named below the axis
SAME_SCALE_DECADES = 4.0  # of second moments, a factor of 100 in rms: `histograms` in one unit


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
    sites along which its depth is counted are drawn (`site_verdict.spine`).

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
    shown: list[Direction] = [d for d in wanted if f"log10_{d}_q" in record]
    if not shown:
        raise missing(" or ".join(f"log10_{d}_q" for d in wanted))
    if "weight" in record.dims:
        record = spine(record).drop_dims("weight")
        theory = None if theory is None else theory.sel(site=record["site"])
    place = BESIDE if ax is None else {}
    ax = blank(8.4, 3.8).add_subplot() if ax is None else ax
    for d in shown:
        _panel(ax, record, d, apart=len(shown) > 1)
    for d in shown:
        if theory is not None and f"log10_{d}_q" in theory:
            known = f"log10_{d}_q_sd" in theory
            style = THEORY | ({"label": "theory, ±2 sd of a seed"} if known else {})
            for _, one in pairings(theory):
                _curve(ax, one[f"log10_{d}_q"], d, **style)
                _band(ax, one, f"log10_{d}_q")
    subject = f" of {_subject(record, shown[0])}" if len(shown) == 1 else ""
    ax.set(xlabel=along(record), ylabel=f"second moment{subject}\n(decades)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "name" in record.coords and record.sizes["site"] <= NAMED_SITES:
        ax.set_xticks(positions(record), record["name"].values, rotation=90, fontsize="x-small")
    ax.legend(**legend([ax], record), **place)
    return at_least_a_decade(ax)


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
    fig = blank(2.3 * len(names) + 2.6, 5)
    axes = fig.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    ends = positions(record)[[0, -1]]
    for row, direction in zip(axes, DIRECTIONS, strict=True):
        for k, ax in enumerate(row):
            ax.set_autoscale_on(False)  # half of the time went into scaling after each curve
            ax.set_xlim(ends + np.array([-0.05, 0.05]) * np.ptp(ends))
            one = record.isel(activation=[k]) if "activation" in record.dims else record
            if f"log10_{direction}_q" in record:
                _panel(ax, one, direction)
        row[0].set_ylabel(f"second moment (decades)\nof {_subject(record, direction)}")
        _cut_off(row, direction)
    for name, top, bottom in zip(names, *axes, strict=True):
        top.set_title(name, fontsize="medium")
        bottom.set_xlabel(along(record))
    fig.legend(**legend(axes.flat, record), loc="outside right upper")
    return fig


def _subject(record: xr.Dataset, direction: Direction) -> str:
    signal = "h" if along(record) == "layer" else "the output"
    return signal if direction == "forward" else f"the gradient at {signal}"


def _panel(ax: Axes, record: xr.Dataset, direction: Direction, *, apart: bool = False) -> None:
    """Draw the curves of a direction; `apart` tells them from the other's on the same axis."""
    subject, forward = _subject(record, direction), direction == "forward"
    dashed = {"linestyle": "--", "linewidth": 1, "marker": "", "label": ""}
    over_inputs = forward and "log10_forward_variance" in record
    for place, one in pairings(record):
        if place:
            style = style_of(record, place) | ({"linestyle": ":"} if apart and not forward else {})
        else:
            style = {"color": COLOURS[not forward], "label": f"second moment of {subject}"}
        if over_inputs:
            _curve(ax, one["log10_forward_variance"], direction, **style | dashed)
        _curve(ax, one[f"log10_{direction}_q"], direction, **style)
    if apart and place:
        explain(ax, f"second moment of {subject}", linestyle="-" if forward else ":")
    if over_inputs:
        explain(ax, f"variance over inputs of {subject}", linestyle="--", linewidth=1)


def _curve(ax: Axes, values: xr.DataArray, direction: Direction, **style: Any) -> None:
    """Draw the median and the range over seeds, and mark where a curve stops being finite."""
    values = values.transpose(..., along(values))
    x, y = positions(values), values.values.reshape(-1, values.shape[-1])
    toward = slice(None) if direction == "forward" else slice(None, None, -1)
    low, middle, high = _spread(_overflowed(y[:, toward])[:, toward])
    ax.plot(x, np.where(np.isfinite(middle), middle, np.nan), **style)
    if len(y) > 1:
        whole = np.isfinite(low) & np.isfinite(high)
        ax.fill_between(x, low, high, where=whole, color=style["color"], alpha=0.2, linewidth=0)
    x, path = x[toward], middle[toward]
    for last in np.flatnonzero(np.isfinite(path[:-1]) & np.isinf(path[1:])):
        zero = path[last + 1] < 0
        mark = {"marker": "x" if zero else "^", "linestyle": "", "markersize": 6}
        ax.plot(x[last], path[last], color=style["color"], zorder=3, clip_on=False, **mark)
        explain(ax, "exact zero beyond" if zero else "overflow beyond", **mark)


def _band(ax: Axes, theory: xr.Dataset, name: str) -> None:
    """Shade two standard deviations over draws on either side, where theory has any."""
    if f"{name}_sd" in theory:
        middle, sd = theory[name].values.ravel(), theory[f"{name}_sd"].values.ravel()
        reach = np.where(np.isfinite(sd), 2 * sd, np.nan)
        band = {"color": "black", "alpha": 0.12, "linewidth": 0}
        ax.fill_between(positions(theory), middle - reach, middle + reach, **band)


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


def _cut_off(row: Iterable[Axes], direction: Direction) -> None:
    """Limit y to what is drawn and readable; say where a curve goes on beyond."""
    ends = np.array([ax.dataLim.intervaly for ax in row if np.isfinite(ax.dataLim.intervaly).all()])
    low, high = (ends.min(), ends.max()) if ends.size else (0.0, 0.0)
    shown = np.clip([low, high], -SHOWN_DECADES, SHOWN_DECADES)
    pad = max(0.5, 0.06 * (shown[1] - shown[0]))
    x, side = (0.03, "left") if direction == "forward" else (0.97, "right")
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    for ax in row:
        ax.set_ylim(shown[0] - pad, shown[1] + pad)
        for mark in (line for line in ax.lines if line.get_linestyle() == "None"):
            mark.set_ydata(np.clip(mark.get_ydata(), *shown))
        beyond = ax.dataLim.intervaly
        for y, way, past in ((0.03, "↓", beyond[0] < shown[0]), (0.97, "↑", beyond[1] > shown[1])):
            if past and np.isfinite(beyond).all():
                text = f"{way} beyond {'−' if way == '↓' else '+'}{SHOWN_DECADES:g}"
                place: dict[str, Any] = {"ha": side, "va": "bottom" if way == "↓" else "top"}
                ax.text(
                    x, y, text, transform=ax.transAxes, fontsize="x-small", bbox=behind, **place
                )
