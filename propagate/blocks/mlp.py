r"""Fully connected layers, $u = x W$ for rows $x$."""

import jax.numpy as jnp

from propagate.types import Array, Float, Precision, at_least_float32


def apply(
    weight: Float[Array, "fan_in fan_out"],
    x: Float[Array, "*batch fan_in"],
    precision: Precision = "highest",
) -> Float[Array, "*batch fan_out"]:
    """Return x W for every row of `x`, as one tall matrix product.

    It is not scaled yet, so short floats, whose range it may leave, give a float32.
    """
    wide = at_least_float32(weight.dtype)
    rows = x.reshape(-1, x.shape[-1])
    rows = jnp.matmul(rows, weight, precision=precision, preferred_element_type=wide)
    return rows.reshape(*x.shape[:-1], weight.shape[-1])
