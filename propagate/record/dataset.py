"""The record as a dataset: its dimensions, the names of its variables and their units."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from propagate.record.measures import Measure, Selection
from propagate.record.statistics import HISTOGRAM_EDGES
from propagate.types import Place

SIGNAL = {
    "forward": "pre-activation h",
    "activation": "post-activation x = phi(h)",
    "backward": "gradient at the pre-activation h",
    "weight_gradient": "gradient of the weights W",
}


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
        "long_name": f"{doc.lower()} of the {SIGNAL.get(place, place.replace('_', ' '))}",
        "units": "log10" if measure.power else "1",
    }
