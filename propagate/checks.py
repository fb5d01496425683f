"""Checks of arguments: each raises `UnusableInput`, with what was required and what arrived.

`check_…` returns nothing; the others return the argument in its usual form.
"""

import contextlib
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from propagate.types import Array, JaxDevice, UnusableInput


def check_number(name: str, value: Any) -> None:
    """Raise `UnusableInput` unless `value` is a finite number."""
    if not _is_finite(value):
        raise UnusableInput(f"{name} must be a finite number, got {value!r}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise `UnusableInput` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise UnusableInput(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise `UnusableInput` unless `value` is one of the choices, a tuple or a `Literal`."""
    allowed = get_args(choices) or choices
    if value not in allowed:
        raise UnusableInput(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def check_at_most(name: str, value: int, most: int) -> None:
    """Raise `UnusableInput` unless `value` is at most `most`."""
    if value > most:
        raise UnusableInput(f"{name} must be at most {most}, got {value}")


def check_variances(**variances: float) -> None:
    """Raise `UnusableInput` unless each is a variance: 0 or more and finite."""
    for name, value in variances.items():
        if not 0 <= value < math.inf:
            raise UnusableInput(f"{name} must be a variance, 0 or more and finite, got {value}")


def check_keep(keep: float) -> None:
    """Raise `UnusableInput` unless `keep` is a share of units, in (0, 1]."""
    if not 0 < keep <= 1:
        raise UnusableInput(f"keep, the share that dropout keeps, must be in (0, 1], got {keep}")


def check_tolerance(name: str, value: Any) -> None:
    """Raise `UnusableInput` unless `value`, in decades per layer, is finite and 0 or more."""
    if not _is_finite(value) or value < 0:
        raise UnusableInput(f"{name} must be decades per layer, a number from 0 on, got {value!r}")


def whole_number(name: str, value: float) -> int:
    """Return a count that may have been spelled as a float, such as 3.0.

    Raises:
        UnusableInput: it is not a whole number of at least 1.
    """
    count = int(value) if isinstance(value, float) and value.is_integer() else value
    check_count(name, count)
    return int(count)


def random_key(key: Any) -> Array:
    """Return a typed key for a typed one, or for one in the older form of a few uint32.

    Raises:
        UnusableInput: it is not one key.
    """
    if isinstance(key, (jax.Array, np.ndarray)):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return jnp.asarray(key)
        if key.dtype == np.uint32 and key.ndim == 1:
            with contextlib.suppress(TypeError):  # of another length than JAX's generator has
                return jax.random.wrap_key_data(jnp.asarray(key))
        key = f"{key.dtype} of shape {key.shape}"
    raise UnusableInput(f"key must be one random key, got {key}: pass key=jax.random.key(0)")


def several_devices(devices: Sequence[JaxDevice] | None) -> list[JaxDevice]:
    """Return devices; without any, JAX's default device if one was chosen, or all local ones.

    Raises:
        UnusableInput: they are not devices of one kind.
    """
    if devices is None:
        chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
        return jax.local_devices() if chosen is None else list(jnp.zeros(()).devices())
    found = list(devices) if isinstance(devices, Iterable) else []
    if not found or not all(isinstance(d, jax.Device) for d in found):
        raise UnusableInput(f"devices must be some of jax.devices(), got {devices!r}")
    if len(kinds := {d.platform for d in found}) > 1:
        raise UnusableInput(f"devices must be of one kind, got {', '.join(sorted(kinds))}")
    return found


def _is_finite(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)
