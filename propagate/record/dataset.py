"""The record as a dataset: its dimensions, the names of its variables and their units."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from propagate.record.measures import Measure, Q, Selection
from propagate.record.statistics import HISTOGRAM_EDGES
from propagate.types import DIRECTIONS, Direction, Place

DESCRIPTIONS = {
    "forward": "pre-activation h",
    "activation": "post-activation x = phi(h)",
    "backward": "gradient at the pre-activation h",
    "weight_gradient": "gradient of the weights W",
}


def second_moment_name(place: Place) -> str:
    """Return the name of the variable that holds the second moment at a place.

    Example:
        >>> second_moment_name("backward")
        'log10_backward_q'
    """
    return Q.variable(place)


def second_moment(record: xr.Dataset, place: Place) -> xr.DataArray:
    """Return log10 of the second moment at a place, such as the two directions.

    Raises:
        KeyError: it was not measured.
    """
    return record[second_moment_name(place)]


def branch_share(record: xr.Dataset) -> np.ndarray:
    """Return log10 of branch over skip, q_branch/q_skip, at each site.

    It is NaN where both are zero, and where a site adds no branch to a skip.

    Raises:
        KeyError: it was not measured.
    """
    with np.errstate(invalid="ignore"):
        return record["log10_branch_q"].values - record["log10_skip_q"].values


def second_moment_sd(theory: xr.Dataset, direction: Direction) -> xr.DataArray | None:
    """Return its standard deviation over draws, in decades; None if theory gives none."""
    return theory.get(f"{second_moment_name(direction)}_sd")


def expected_names(direction: Direction) -> tuple[str, str]:
    """Return the names of a pairing's expected second moment, and of its spread over draws.

    A sweep writes them, with dims (init, activation, layer), where its seeds do not settle a
    growth; they are NaN elsewhere.
    """
    name = f"{second_moment_name(direction)}_expected"
    return name, f"{name}_sd"


def residual_name(direction: Place) -> str:
    """Return the name of the variable that holds measured less expected, in decades."""
    return f"log10_{direction}_residual"


def measured_directions(record: xr.Dataset) -> list[Direction]:
    """Return the directions whose second moment a record has."""
    return [d for d in DIRECTIONS if second_moment_name(d) in record]


def not_finite(record: xr.Dataset) -> np.ndarray:
    """Return at which sites the signal is not finite, and no `where` behind leaves that out."""
    q = second_moment(record, "forward").values
    bad = record["taken"].values & (np.isnan(q) | (q == np.inf))
    return bad & ~record["masked"].values if "masked" in record.coords else bad


def along_layers(place: Place, rows: np.ndarray) -> np.ndarray:
    """Pad to layers 0 … L: the output has no activation, the input no weight."""
    missing = np.full((1, *rows.shape[1:]), np.nan)
    if place in ("forward", "backward"):
        return rows
    return np.concatenate([rows, missing] if place == "activation" else [missing, rows])


def new(
    selection: Selection, coords: Mapping[str, list[str]], seeds: int, depth: int
) -> xr.Dataset:
    """Return a record of `selection` filled with NaN, over `coords`, seeds and layers."""
    labels = {**coords, "seed": np.arange(seeds), "layer": np.arange(depth + 1)}
    edges = np.asarray(HISTOGRAM_EDGES)
    bins = {"bin": (edges[1:] + edges[:-1]) / 2}
    variables, used = {}, labels
    for place, measures in selection:
        for measure in measures:
            own = labels | (bins if measure.bins else {})
            used = used | own
            empty = np.full([len(values) for values in own.values()], np.nan)
            variables[measure.variable(place)] = (tuple(own), empty, _meaning(measure, place))
    return xr.Dataset(variables, used)


def _meaning(measure: Measure, place: Place) -> dict[str, str]:
    doc = (measure.fn.__doc__ or "").splitlines()[0].rstrip(".")
    return {
        "long_name": f"{doc.lower()} of the {DESCRIPTIONS.get(place, place.replace('_', ' '))}",
        "units": "log10" if measure.power else "1",
    }
