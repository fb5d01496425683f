"""Arrays as y·2^k with max|y| next to 1, so that squares and sums stay in the range of float32."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.record.measures import Measure
from propagate.types import Array, DTypeLike, Float, Int, at_least_float32


class Scaled(NamedTuple):
    """An array as `y` times a power of two, one per configuration."""

    y: Float[Array, "configs batch *units"]
    exponent: Int[Array, " configs"]


def rescale(x: Float[Array, "configs *shape"]) -> Scaled:
    """Split `x` into y·2^k with max|y| next to 1, exactly; k = 0 where x is zero or not finite."""
    x = x.astype(at_least_float32(x.dtype))
    top = jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim)))
    exponent = jnp.where(jnp.isfinite(top) & (top > 0), jnp.frexp(top)[1] - 1, 0)
    exponent = jnp.clip(exponent, -126, 126)  # so that 2^-k is a normal float32
    return Scaled(x * per_config(power_of_two(-exponent, x.dtype), x), exponent)


def per_config(a: Array, x: Array) -> Array:
    """Return one number per configuration in the shape that multiplies `x`."""
    return a.reshape(-1, *(1,) * (x.ndim - 1))


def power_of_two(k: Int[Array, "*shape"], dtype: DTypeLike) -> Float[Array, "*shape"]:
    """Return 2^k, exactly."""
    return jnp.ldexp(jnp.ones((), dtype), k)


def observe(scaled: Scaled, measures: tuple[Measure, ...]) -> dict[str, Array]:
    """Return the statistics of each configuration and the `exponent` that they are to carry."""
    if not measures:
        return {}
    configs, batch, units = scaled.y.shape[0], scaled.y.shape[1:2], scaled.y.shape[-1:]
    flat, shaped = (scaled.y.reshape(configs, *batch, *rest) for rest in ((-1,), (-1, *units)))
    taken = {m.name: jax.vmap(m.fn)(shaped if m.shaped else flat) for m in measures}
    return {"exponent": scaled.exponent, **taken}


def decades(
    measure: Measure, value: np.ndarray | float, exponent: np.ndarray | float
) -> np.ndarray:
    """Finish a statistic in float64: log10(value · 2^(power · exponent)), or the value itself."""
    value = np.asarray(value, np.float64)
    if not measure.power:
        return value
    with np.errstate(divide="ignore"):
        shift = measure.power * math.log10(2.0) * np.asarray(exponent, np.float64)
        return np.asarray(np.log10(value) + shift)
