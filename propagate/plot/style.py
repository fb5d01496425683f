"""What all pictures share: colours, legends, axes."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from propagate.record.dataset import second_moment_name
from propagate.types import UnusableInput

# Okabe and Ito (2008) without yellow, which is faint on white, and black, which is the theory's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("", "o", "s", "D", "P", "*", "h", "<", ">", "p", "X")  # of the curves
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # of a legend
RANGE_OVER, SD_OVER = "median and range of {} seeds", "mean and ±2 sd of {} seeds"
Units = Literal["decades", "variance"]  # how an axis of second moments is written


def new_figure(width: float, height: float) -> Figure:
    """Return a new figure that no global state knows of."""
    return Figure(figsize=(width, height), layout="constrained")


def lay_out(figure: Figure) -> None:
    """Place the axes once and for all; else every format would take as long for it again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def widen(ax: Axes, decades: float = 1.0) -> Axes:
    """Widen y to so many decades, if it has fewer, so that a flat curve looks flat."""
    middle, half = float(np.mean(ax.get_ylim())), np.ptp(ax.get_ylim()) / 2
    if half < decades / 2:  # and let the curves of an axis with the same y widen it further
        ax.set_ylim(middle - decades / 2, middle + decades / 2, auto=None)
    return ax


def in_units(label: str, units: Units) -> str:
    """Return the label of an axis of second moments.

    Raises:
        UnusableInput: no such units.
    """
    if units not in get_args(Units):
        raise UnusableInput(f"units must be 'decades' or 'variance', got {units!r}")
    return f"{label}\n(decades)" if units == "decades" else label


def write_units(ax: Axes, units: Units) -> Axes:
    """Write the ticks of y, which are decades, as they are or as powers of ten."""
    if units == "variance":
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_formatter(lambda decades, _: f"$10^{{{decades:.0f}}}$")
    return ax


def not_measured(variables: str, measures: str = '("q",)') -> UnusableInput:
    """Return the error about variables that a record lacks."""
    return UnusableInput(f"the record has no {variables}: measure with measures={measures}")


def depth_dim(record: xr.Dataset | xr.DataArray) -> str:
    """Return the dim along which the signal travels."""
    return "layer" if "layer" in record.dims else "site"


def positions(record: xr.Dataset | xr.DataArray) -> np.ndarray:
    """Return the layers' numbers; sites, which have names, are counted."""
    dim = depth_dim(record)
    return record[dim].values if dim == "layer" else np.arange(record.sizes[dim])


def each_pairing(record: xr.Dataset) -> Iterator[tuple[dict[str, int], xr.Dataset]]:
    """Yield the indices of each pairing along the dims that have a choice, and its record."""
    own = {depth_dim(record), "seed", "bin"}
    dims = sorted({str(d) for d in record.dims} - own, key=_init_first)
    for indices in itertools.product(*(range(record.sizes[d]) for d in dims)):
        at = dict(zip(dims, indices, strict=True))
        yield {d: k for d, k in at.items() if record.sizes[d] > 1}, record.isel(at)


def _init_first(dim: str) -> tuple[bool, bool, str]:
    return dim != "init", dim != "activation", dim


def pairing_style(record: xr.Dataset, indices: dict[str, int]) -> dict[str, Any]:
    """Return colour (by the first dim), marker (by the others, if any) and label of a pairing."""
    (first, k), *others = indices.items()
    rounds = -(-record.sizes[first] // len(COLOURS))
    rest = functools.reduce(lambda n, at: n * record.sizes[at[0]] + at[1], others, 0)
    marker = MARKERS[(rest * rounds + k // len(COLOURS) if others else k) % len(MARKERS)]
    values = {d: record[d].values[i] for d, i in indices.items()}
    words = (str(v) if isinstance(v, str) else f"{d} {v:g}" for d, v in values.items())
    width = 3.2 - 2 * k / record.sizes[first]  # so that a curve beneath another is seen
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": marker,
        "linewidth": width,
        "markersize": 4,
        "markevery": 0.12,
        "label": ", ".join(words),
    }


def numbered_style(k: int) -> dict[str, Any]:
    """Return colour, marker and width of the curve number k, thinner than those beneath it."""
    colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k // len(COLOURS)]
    return {
        "color": colour,
        "marker": marker,
        "markersize": 4,
        "linewidth": max(3.2 - 0.4 * k, 1.2),
    }


def legend_key(label: str, color: Any = "0.3", **style: Any) -> Line2D:
    """Return an entry of a legend for a line style or a marker, grey where it has many colours."""
    return Line2D([], [], color=color, label=label, **style)


def legend_options(
    axes: Iterable[Axes],
    keys: Iterable[Artist],
    record: xr.Dataset,
    over: str = RANGE_OVER,
) -> dict[str, Any]:
    """Return the options of a legend: each label once, and what is drawn of the seeds.

    Args:
        axes: whose curves it names, first.
        keys: entries for line styles and markers, after them.
        record: what is drawn.
        over: what is drawn of several seeds, in words.
    """
    curves = [line for ax in axes for line in ax.get_legend_handles_labels()[0]]
    handles: dict[str, Any] = {}
    for handle in (*curves, *keys):
        handles.setdefault(str(handle.get_label()), handle)
    if not handles:
        handles["nothing was measured"] = Line2D([], [], linestyle="")
    seeds = record.sizes.get("seed", 1)
    title = over.format(seeds) if seeds > 1 else None
    words = {"title": title, "fontsize": "small", "title_fontsize": "small", "frameon": False}
    return {"handles": [*handles.values()], "labels": [*handles], **words}


COLUMN_INCHES = {1: 3.35, 2: 7.0}  # of a page: 85 mm and 178 mm, those of most journals
STYLES: dict[str, Any] = {
    "screen": {"savefig.dpi": 150},
    "paper": {
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.0,
        "lines.markersize": 3,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "savefig.dpi": 300,
        "pdf.fonttype": 42,  # letters that a publisher can embed and a reader can search
        "svg.fonttype": "none",
    },
}
"""Settings of matplotlib by the name of a style, within which a picture is drawn and saved."""


def one_with_histograms(record: xr.Dataset, *places: str) -> xr.Dataset:
    """Return the one pairing of a record, which has histograms at some places.

    Raises:
        UnusableInput: the histograms are missing, or there are several pairings.
    """
    for place in places:
        q = second_moment_name(place)
        if f"{place}_histogram" not in record or q not in record:
            raise not_measured(f"{place}_histogram with {q}", '("q", "histogram")')
    found = [one for _, one in each_pairing(record)]
    if len(found) > 1:
        raise UnusableInput(
            f"a record of one pairing is required, got {len(found)}: "
            "choose one with record.sel(init=…, activation=…)"
        )
    return found[0]
