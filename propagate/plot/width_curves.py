"""The picture of a coordinate check; `propagate.plot.coordinate_check`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from propagate.plot.style import BESIDE, new_figure, widen
from propagate.types import UnusableInput
from propagate.verdicts.width_rules import judged_sites

NAMED = 24  # sites: as many are named in the legend


def coordinate_check(record: xr.Dataset, *, axes: Sequence[Axes] | None = None) -> Figure:
    """Draw rms against width: of the signals, and of their change after each update.

    A line is a site of a layer, in the order of the model, dark to light: the mean over seeds of
    log10 rms, which is what is fitted. Level lines are what µP asks for. Exact zeros are left out.

    Args:
        record: of `propagate.coordinate_check`.
        axes: one for the signals and one for each update; those of a new figure by default.

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
        axes = list(np.atleast_1d(figure.subplots(1, len(steps))))
    own = record.isel(site=np.flatnonzero(judged_sites(record)))
    for ax, step in zip(axes, steps, strict=True):
        name = "log10_change_q" if step else "log10_forward_q"
        _lines(ax, own[name].sel(step=step).mean("seed") / 2, own["name"].values)
        after = f"change, {step} update{'s' if step > 1 else ''}" if step else "initialisation"
        ax.set(xlabel="width", title=after)
    axes[0].set_ylabel("rms (decades)")
    if own.sizes["site"] <= NAMED:
        axes[-1].legend(fontsize="small", frameon=False, **BESIDE)
    made: Any = axes[0].figure
    return made


def _lines(ax: Axes, rms: xr.DataArray, names: np.ndarray) -> None:
    """Draw the lines of one panel, over a decade or more so that what is level looks level."""
    values = rms.transpose("site", "width").values
    widths = rms["width"].values
    for k, (one, name) in enumerate(zip(values, names, strict=True)):
        colour = colormaps["viridis"](0.9 * k / max(len(names) - 1, 1))
        seen = np.where(np.isfinite(one), one, np.nan)
        ax.plot(widths, seen, color=colour, marker="o", markersize=3.5, label=str(name))
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.xaxis.set_minor_locator(NullLocator())
    widen(ax, 1.5)
