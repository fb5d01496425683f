"""Records on disk: netCDF files, written whole or not at all."""

import os
import tempfile
from pathlib import Path
from typing import Any

import xarray as xr

from propagate.types import PropagateError, UnusableInput


def save(record: xr.Dataset, path: str | os.PathLike) -> Path:
    """Write a record as netCDF; a file of that name appears whole or not at all.

    Args:
        record: of `measure`, `sweep`, `predict` or `Diagnosis.record`.
        path: of the file; folders that do not exist are made.

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
    write_whole(path, lambda part: record.to_netcdf(part, engine="scipy"))
    return path


def load(path: str | os.PathLike) -> xr.Dataset:
    """Read a record that `save` wrote.

    Args:
        path: of the file.

    Returns:
        The record.

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
        raise UnusableInput(
            f"{path} is not a netCDF record of propagate: {_first(error)}"
        ) from None
    if not {"layer", "site", "sigma_w2"} & set(record.dims):
        raise UnusableInput(f"{path} is netCDF but has no dim 'layer' or 'site': not our record")
    return record


def _first(error: Exception) -> str:
    """Return the first line of an error; the others tell to install what would not help."""
    return next(iter(str(error).splitlines()), "").removeprefix("Error: ")


def write_whole(path: Path, write: Any) -> None:
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
