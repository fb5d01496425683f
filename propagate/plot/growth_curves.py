"""Curves of how the second moment grows along depth; `propagate.plot.variance` and `curves`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from propagate.plot.panels.extent import ground, limit
from propagate.plot.panels.growth_panel import GrowthPanel, subject_of
from propagate.plot.style import (
    BESIDE,
    RANGE_OVER,
    SD_OVER,
    Units,
    depth_dim,
    in_units,
    legend_options,
    new_figure,
    not_measured,
    positions,
    widen,
    write_units,
)
from propagate.record.dataset import (
    measured_directions,
    second_moment_name,
    second_moment_sd,
)
from propagate.record.spine import spine
from propagate.types import DIRECTIONS, Direction
from propagate.verdicts.thresholds import FINE_DECADES

SHOWN_DECADES = 3 * FINE_DECADES  # `curves` shows these on either side of 1
NAMED_SITES = 40  # as many are named below the axis
ENOUGH_SEEDS = 8  # for a standard deviation over them


def variance(
    record: xr.Dataset,
    *,
    ax: Axes | None = None,
    direction: Direction | None = None,
    theory: xr.Dataset | None = None,
    units: Units = "decades",
    **labels: Any,
) -> Axes:
    """Draw how the signal and its gradient grow along the layers of one record.

    A curve is the median over seeds, its band their range; the variance over inputs is dashed.
    Several pairings have a curve each, in the colour of their initialiser. The grey ground is what
    is fine, 2.6 decades on either side of where the curves begin. Of a custom model the sites along
    which its depth is counted are drawn (`record.spine`).

    Args:
        record: what `measure` or `sweep` returned.
        ax: where to draw; a new figure by default.
        direction: `"forward"` (signal) or `"backward"` (gradient); both by default.
        theory: a second record, drawn over the first in black, with twice its standard deviation
            over draws of the weights if it has one; of a custom model, `Diagnosis.theory`. Beside
            such a band that of eight seeds or more is twice theirs, about their mean.
        units: y is written in `"decades"`, or as the `"variance"` itself, in powers of ten.
        **labels: `title`, `xlabel`, `ylim` and others of `Axes.set`.

    Returns:
        The axis.

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
    panels = [GrowthPanel(ax, d, _like(theory, d, record)) for d in shown]
    for panel in panels:
        panel.draw(record, apart=len(shown) > 1)
    for panel in panels:
        if theory is not None and panel.direction in measured_directions(theory):
            panel.draw_theory(theory)
    subject = f" of {subject_of(record, shown[0])}" if len(shown) == 1 else ""
    ax.set(xlabel=depth_dim(record), ylabel=in_units(f"second moment{subject}", units))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "name" in record.coords and record.sizes["site"] <= NAMED_SITES:
        ax.set_xticks(positions(record), record["name"].values, rotation=90, fontsize="x-small")
    ax.autoscale_view()
    widen(ax)
    keys = [*_keys(panels), *ground(panels)]
    sd = any(panel.like_theory for panel in panels)
    ax.legend(**legend_options([ax], keys, record, SD_OVER if sd else RANGE_OVER), **beside)
    write_units(ax, units).set(**labels)
    return ax


def curves(
    record: xr.Dataset,
    *,
    axes: np.ndarray | None = None,
    reach: float = SHOWN_DECADES,
    units: Units = "decades",
    title: str | None = None,
) -> Figure:
    """Draw the curves of a sweep: a column for each activation, forward above backward.

    A curve that leaves the picture has a mark where it does. The grey ground is what is fine, 2.6
    decades on either side of where the curves begin.

    Args:
        record: what `sweep` returned.
        axes: of shape (2, activations); those of a new figure by default.
        reach: decades that are shown on either side of 1, at most.
        units: y is written in `"decades"`, or as the `"variance"` itself, in powers of ten.
        title: of the figure.

    Returns:
        The figure; y is the same in a row.

    Example:
        `curves(pp.sweep(net, activation=["relu", "tanh"], key=key)).savefig("curves.png")`
    """
    names = [str(a) for a in np.atleast_1d(record.get("activation", ""))]
    if axes is None:
        fig = new_figure(2.0 * len(names) + 2.6, 5.4)
        axes = fig.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    ends, panels = positions(record)[[0, -1]], []
    for row, direction in zip(axes, DIRECTIONS, strict=True):
        drawn = [GrowthPanel(ax, direction) for ax in row]
        for k, panel in enumerate(drawn):
            panel.ax.set_autoscale_on(False)  # half of the time went into scaling after each curve
            panel.ax.set_xlim(ends + np.array([-0.05, 0.05]) * np.ptp(ends))
            if direction in measured_directions(record):
                own = record.isel(activation=[k]) if "activation" in record.dims else record
                panel.draw(own)
        label = in_units(f"second moment of {subject_of(record, direction)}", units)
        label = label.replace(" of the", "\nof the")
        row[0].set_ylabel(label)
        row[0].yaxis.set_major_locator(MaxNLocator(integer=True))
        limit(drawn, reach)
        write_units(row[0], units)
        panels += drawn
    for name, top, bottom in zip(names, *axes, strict=True):
        top.set_title(name, fontsize="medium")
        bottom.set_xlabel(depth_dim(record))
    keys = [*_keys(panels), *ground(panels)]
    made: Any = axes[0, 0].figure
    made.legend(**legend_options(axes.flat, keys, record), loc="outside right upper")
    if title:
        made.suptitle(title)
    return made


def _keys(panels: Iterable[GrowthPanel]) -> list[Line2D]:
    return [key for panel in panels for key in panel.keys]


def _like(theory: xr.Dataset | None, direction: Direction, record: xr.Dataset) -> bool:
    """Whether theory has a band, and the seeds are enough for one of the same kind."""
    if theory is None or direction not in measured_directions(theory):
        return False
    banded = second_moment_sd(theory, direction) is not None
    return banded and record.sizes.get("seed", 1) >= ENOUGH_SEEDS
