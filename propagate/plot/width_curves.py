"""The picture of a coordinate check; `propagate.plot.coordinate_check`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from propagate.plot.style import BESIDE, new_figure
from propagate.types import UnusableInput
from propagate.verdicts.width_rules import judged_sites

NAMED = 24  # sites: as many are named in the legend
LEGEND = "site; beside its line\nthe power of width"
APART = 0.065  # of the height, between exponents
ROOM = 0.39  # decades of width to the right of the last, for them


def coordinate_check(
    record: xr.Dataset, *, axes: Sequence[Axes] | None = None, title: str | None = None
) -> Figure:
    """Draw rms against width: of the signals, and of their change after each update.

    A line is a site of a layer, in the order of the model, dark to light: the mean over seeds of
    log10 rms, which is what is fitted; beside its end is its exponent. Level lines are what µP asks
    for. Exact zeros are left out. All panels have one range.

    Args:
        record: of `propagate.coordinate_check`.
        axes: one for the signals and one for each update; those of a new figure by default.
        title: of the figure.

    Raises:
        UnusableInput: not such a record.

    Example:
        `coordinate_check(check.record).savefig("widths.png")`, where `check` is what
        `pp.coordinate_check` returned.
    """
    if record.sizes.get("width", 0) < 2 or "log10_change_q" not in record:
        raise UnusableInput("a record of propagate.coordinate_check is required")
    steps = record["step"].values
    if axes is None:
        figure = new_figure(2.7 * len(steps) + 2.2, 3.6)
        axes = list(np.atleast_1d(figure.subplots(1, len(steps), sharey=True)))
    own = record.isel(site=np.flatnonzero(judged_sites(record)))
    for ax, step in zip(axes, steps, strict=True):
        name = "log10_change_q" if step else "log10_forward_q"
        _lines(ax, own[name].sel(step=step).mean("seed") / 2, own["name"].values)
        after = f"change, {step} update{'s' if step > 1 else ''}" if step else "initialisation"
        ax.set(xlabel="width", title=after)
    ends = np.array([ax.dataLim.intervaly for ax in axes])
    low, high = ends[np.isfinite(ends).all(axis=1)].T if np.isfinite(ends).any() else ([0], [0])
    pad = max(0.05 * (max(high) - min(low)), 0.75 - (max(high) - min(low)) / 2)
    for ax in axes:
        ax.set_ylim(min(low) - pad, max(high) + pad)
        _exponents(ax)
    axes[0].set_ylabel("rms (decades)")
    if own.sizes["site"] <= NAMED:
        axes[-1].legend(title=LEGEND, fontsize="small", frameon=False, **BESIDE)
    made: Any = axes[0].figure
    if title:
        made.suptitle(title)
    return made


def _lines(ax: Axes, rms: xr.DataArray, names: np.ndarray) -> None:
    """Draw the lines of one panel."""
    values = rms.transpose("site", "width").values
    widths = rms["width"].values
    for k, (one, name) in enumerate(zip(values, names, strict=True)):
        colour = colormaps["viridis"](0.9 * k / max(len(names) - 1, 1))
        seen = np.where(np.isfinite(one), one, np.nan)
        ax.plot(widths, seen, color=colour, marker="o", markersize=3.5, label=str(name))
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.xaxis.set_minor_locator(NullLocator())


def _exponents(ax: Axes) -> None:
    """Write the exponent of each line beside its end, apart from one another."""
    known = [line for line in ax.lines if np.isfinite(line.get_ydata()).sum() > 1]
    ranked = sorted(known, key=lambda line: _seen(line)[1][-1])
    low, high = ax.get_ylim()
    places = _apart([_seen(line)[1][-1] for line in ranked], APART * (high - low), high)
    for line, place in zip(ranked, places, strict=True):
        x, y = _seen(line)
        words = f"{np.polyfit(np.log10(x), y, 1)[0]:+z.2f}".replace("-", "−")
        ax.text(1.15 * x[-1], place, words, color=line.get_color(), fontsize="small", va="center")
    ax.set_xlim(right=10 ** (np.log10(ax.get_xlim()[1]) + ROOM))


def _seen(line: Line2D) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    return x[np.isfinite(y)], y[np.isfinite(y)]


def _apart(ends: list[float], gap: float, top: float) -> list[float]:
    """Return the ends, in rising order, moved apart by a gap and below the top."""
    for k in range(1, len(ends)):
        ends[k] = max(ends[k], ends[k - 1] + gap)
    limit = top - gap / 2
    for k in reversed(range(len(ends))):
        ends[k] = min(ends[k], limit)
        limit = ends[k] - gap
    return ends
