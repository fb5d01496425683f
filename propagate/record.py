"""The labelled record: names, units and provenance of the statistics; saving and loading.

A record is an `xarray.Dataset`. Scale-like statistics are log10 (decades; -inf is an exact zero,
NaN is not measured), means are relative to the rms, the rest are shares and cosines. Layer 0 is
the input, 1 … L the layers.
"""

import datetime
import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from propagate.measures import HISTOGRAM_EDGES, Measure, Selection
from propagate.types import Place, PropagateError, UnusableInput

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


def provenance(**details: Any) -> dict[str, str]:
    """Return the attributes every record carries: versions, date and the caller's details."""
    return {
        "propagate": _version("propagate-jax"),
        "jax": jax.__version__,
        "jaxlib": _version("jaxlib"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{
            k: v if isinstance(v, str) else json.dumps(v)
            for k, v in details.items()
            if v is not None
        },
    }


def save(record: xr.Dataset, path: str | os.PathLike) -> Path:
    """Write a record as netCDF; a file of that name appears whole or not at all.

    Returns:
        The path.

    Raises:
        PropagateError: the folder cannot be written to.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = xr.Dataset({"log10_forward_q": ("layer", [0.0, -0.3])})
        ...     float(load(save(record, folder + "/r.nc")).log10_forward_q[1])
        -0.3
    """
    path = Path(path)
    whole(path, lambda part: record.to_netcdf(part, engine="scipy"))
    return path


def load(path: str | os.PathLike) -> xr.Dataset:
    """Read a record that `save` wrote.

    Raises:
        UnusableInput: there is no such file, or it is not a record.

    Example:
        >>> load("nowhere.nc")
        Traceback (most recent call last):
        propagate.types.UnusableInput: a record file is required, but nowhere.nc does not exist
    """
    path = Path(path)
    if not path.is_file():
        raise UnusableInput(f"a record file is required, but {path} does not exist")
    try:
        record = xr.load_dataset(path, engine="scipy")
    except (TypeError, ValueError, OSError, LookupError) as error:
        raise UnusableInput(f"{path} is not a netCDF record of propagate: {error}") from None
    if "layer" not in record.dims and "site" not in record.dims:
        raise UnusableInput(f"{path} is netCDF but has no dim 'layer' or 'site': not our record")
    return record


def whole(path: Path, write: Any) -> None:
    """Have `write(temporary path)` make a file, then give it its name in one step.

    Raises:
        PropagateError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".propagate-") as folder:
            part = Path(folder) / path.name
            write(part)
            os.replace(part, path)
    except OSError as error:
        raise PropagateError(
            f"cannot write {path}: {error.strerror or error}; choose another folder"
        ) from error


def _meaning(measure: Measure, place: Place) -> dict[str, str]:
    doc = (measure.fn.__doc__ or "").splitlines()[0].rstrip(".")
    return {
        "long_name": f"{doc.lower()} of the {SIGNAL.get(place, place.replace('_', ' '))}",
        "units": "log10" if measure.power else "1",
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
