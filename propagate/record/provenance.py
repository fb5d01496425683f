"""Where a record comes from: versions, device, date, command."""

import contextlib
import datetime
import functools
import json
import shlex
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import xarray as xr

_COMMAND: ContextVar[str] = ContextVar("command", default="")  # that is being carried out


@contextlib.contextmanager
def of_command(args: Sequence[str]) -> Iterator[None]:
    """Let the records that are made within the context say which command made them."""
    token = _COMMAND.set(shlex.join(("propagate", *args)))
    try:
        yield
    finally:
        _COMMAND.reset(token)


def provenance(**details: Any) -> dict[str, str]:
    """Return the attributes every record carries: versions, date and the caller's details."""
    return {
        "propagate": _version("propagate-jax"),
        "jax": jax.__version__,
        "jaxlib": _version("jaxlib"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **({"command": command} if (command := _COMMAND.get()) else {}),
        **{
            k: v if isinstance(v, str) else json.dumps(v)
            for k, v in details.items()
            if v is not None
        },
    }


def about_parameters(record: xr.Dataset) -> dict[str, Any]:
    """Return what the record of stacks says of their parameters; {} if it says nothing."""
    return json.loads(record.attrs.get("parameters", "{}"))


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
