"""Where a record comes from: versions, device, date, command."""

import datetime
import functools
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import xarray as xr


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


def how_it_ran(record: xr.Dataset) -> str:
    """Return in which mode a custom model was run, and whether it was mapped; "" if neither is.

    Example:
        >>> how_it_ran(xr.Dataset(attrs={"mode": "training"}))
        'training mode'
    """
    mode, mapped = (record.attrs.get(name) for name in ("mode", "mapped"))
    said = [f"{mode} mode"] if mode else []
    return ", ".join([*said, *(["mapped over the batch as with vmap=True"] if mapped else [])])


@functools.cache  # a millisecond of reading
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
