"""What all pictures share: colours, legends, axes."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from propagate.types import Direction, UnusableInput

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
# Okabe and Ito (2008) without yellow, which is faint on white, and black, which is the theory's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("", "o", "s", "D", "v", "P", "*")  # of the curves, where the colours begin again
KEY = "0.3"  # in the legend: of any colour
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # of a legend


def blank(width: float, height: float) -> Figure:
    """Return a new figure that no global state knows of."""
    return Figure(figsize=(width, height), layout="constrained")


def at_least_a_decade(ax: Axes) -> Axes:
    """Widen y to a decade, so that a flat curve looks flat."""
    middle, half = np.mean(ax.get_ylim()), np.ptp(ax.get_ylim()) / 2
    ax.set_ylim(middle - max(half, 0.5), middle + max(half, 0.5))
    return ax


def missing(variables: str, measures: str = '("q",)') -> UnusableInput:
    """Return the error about variables that were not measured."""
    return UnusableInput(f"the record has no {variables}: measure with measures={measures}")


def along(record: xr.Dataset | xr.DataArray) -> str:
    """Return the dim along which the signal travels."""
    return "layer" if "layer" in record.dims else "site"


def positions(record: xr.Dataset | xr.DataArray) -> np.ndarray:
    """Return the layers' numbers; sites, which have names, are counted."""
    dim = along(record)
    return record[dim].values if dim == "layer" else np.arange(record.sizes[dim])


def pairings(record: xr.Dataset) -> Iterator[tuple[dict[str, int], xr.Dataset]]:
    """Yield each pairing's place among the dims with a choice, and its record."""
    own = {along(record), "seed", "bin"}
    dims = sorted({str(d) for d in record.dims} - own, key=_init_first)
    for place in itertools.product(*(range(record.sizes[d]) for d in dims)):
        at = dict(zip(dims, place, strict=True))
        yield {d: k for d, k in at.items() if record.sizes[d] > 1}, record.isel(at)


def _init_first(dim: str) -> tuple[bool, bool, str]:
    return dim != "init", dim != "activation", dim


def style_of(record: xr.Dataset, place: dict[str, int]) -> dict[str, Any]:
    """Return colour (by the first dim), marker (by the others) and label of a pairing."""
    (first, k), *others = place.items()
    rounds = -(-record.sizes[first] // len(COLOURS))
    rest = functools.reduce(lambda n, at: n * record.sizes[at[0]] + at[1], others, 0)
    marker = MARKERS[(rest * rounds + k // len(COLOURS)) % len(MARKERS)]
    values = {d: record[d].values[i] for d, i in place.items()}
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


def explain(ax: Axes, label: str, **style: Any) -> None:
    """Explain a line style or a marker in the legend, whatever its colour."""
    ax.plot([], [], color=KEY, label=label, **style)


def legend(axes: Iterable[Axes], record: xr.Dataset) -> dict[str, Any]:
    """Return each label of the axes once, and what the curves are of the seeds."""
    found = (pair for ax in axes for pair in zip(*ax.get_legend_handles_labels(), strict=True))
    by_label: dict[str, Any] = {}
    for handle, label in found:
        by_label.setdefault(label, handle)
    seeds = record.sizes.get("seed", 1)
    title = f"median and range of {seeds} seeds" if seeds > 1 else None
    labels = sorted(by_label, key=lambda label: by_label[label].get_color() == KEY)  # keys last
    handles = [by_label[label] for label in labels]
    words = {"title": title, "fontsize": "small", "title_fontsize": "small", "frameon": False}
    return {"handles": handles, "labels": labels, **words}
