"""The formula of each statistic: a pure function of one layer's array."""

import jax
import jax.numpy as jnp

from propagate.types import AnyArray, Array, Float

SATURATED_SLOPE = 0.05  # a unit is saturated on an input if |phi'| is below this share of its sup
HISTOGRAM_EDGES = tuple(k / 4 for k in range(-21, 22))  # of values in units of their rms
SYMMETRIC_RTOL = 1e-5  # of the largest magnitude; rounding of a float32 sum of ~1000 equal terms
CONSTANT_SHARE = 1e-5  # of a second moment: a smaller variance of a parameter is rounding


def q(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Second moment per unit, E y^2."""
    return jnp.mean(jnp.square(y))


def variance(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Variance over the inputs of each unit, averaged over units: what tells inputs apart."""
    return jnp.mean(jnp.square(y - jnp.mean(y, axis=0, keepdims=True)))


def mean(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Mean over inputs and units, divided by the rms."""
    rms = jnp.sqrt(q(y))
    return jnp.mean(y) / jnp.where(rms == 0, 1, rms)


def largest(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Largest magnitude; NaN if there is one, which a maximum alone may pass over on a CPU."""
    return jnp.where(jnp.isnan(q(y)), jnp.nan, jnp.max(_row_max(y)))


def correlation(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    r"""Mean cosine between different inputs' signals; inputs with a zero signal are left out.

    $(\lVert\sum_b \hat y_b\rVert^2 - B)/(B(B-1))$ with $\hat y_b = y_b/\lVert y_b\rVert$.
    """
    top = _row_max(y)[:, None]
    y = y / jnp.where(top > 0, top, 1)  # so that an input far below the largest one still counts
    norm = jnp.sum(jnp.square(y), axis=1)
    weight = jnp.where(norm > 0, jax.lax.rsqrt(jnp.where(norm > 0, norm, 1)), 0)
    count = jnp.sum(weight > 0).astype(y.dtype)
    total = jnp.sum(jnp.square(jnp.einsum("b,bn->n", weight, y)))
    return jnp.where(count > 1, (total - count) / jnp.maximum(count * (count - 1), 1), jnp.nan)


def token_correlation(y: Float[Array, "batch tokens units"]) -> Float[Array, ""]:
    """Mean cosine between different positions of the same input, averaged over inputs."""
    return jnp.mean(jax.vmap(correlation)(y))


def channel_mean_q(y: Float[Array, "batch positions channels"]) -> Float[Array, ""]:
    """Mean over channels of the squared mean of each, over inputs and positions."""
    return jnp.mean(jnp.square(jnp.mean(y, axis=(0, 1))))


def channel_variance(y: Float[Array, "batch positions channels"]) -> Float[Array, ""]:
    """Variance of each channel, over inputs and positions, averaged over channels."""
    return jnp.mean(jnp.square(y - jnp.mean(y, axis=(0, 1), keepdims=True)))


def as_it_is(value: Array) -> Array:
    """What the layer reports."""
    return value


def _row_max(y: Float[Array, "batch units"]) -> Float[Array, " batch"]:
    return jnp.max(jnp.abs(y), axis=1)


def zero_fraction(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Share of zeros (of values below 2^-126 of the layer's largest, to be exact)."""
    return jnp.mean(y == 0, dtype=y.dtype)


def subnormal_fraction(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Share of values that are not zero and below the smallest normal number of their dtype."""
    small = (y != 0) & (jnp.abs(y) < jnp.finfo(y.dtype).tiny)
    return jnp.mean(small, dtype=y.dtype)


def dead_fraction(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Share of units that are zero for every input."""
    return jnp.mean(jnp.all(y == 0, axis=0), dtype=y.dtype)


def symmetric_fraction(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Share of units that equal the mean over units, on every input; NaN of one unit."""
    if y.shape[1] == 1:
        return jnp.full((), jnp.nan, y.dtype)
    apart = jnp.max(jnp.abs(y - jnp.mean(y, axis=1, keepdims=True)), axis=0)
    return jnp.mean(apart <= SYMMETRIC_RTOL * largest(y), dtype=y.dtype)


def saturated_fraction(slope: Float[AnyArray, "batch *units"]) -> Float[Array, ""]:
    """Share of (input, unit) pairs with |phi'| < 0.05 sup|phi'|; `slope` is phi'/sup|phi'|."""
    return jnp.mean(jnp.abs(slope) < SATURATED_SLOPE, dtype=slope.dtype)


def histogram(y: Float[Array, "batch units"]) -> Float[Array, " bins"]:
    """Share of values per bin, in units of the rms; the outer bins take what lies beyond."""
    z = y / jnp.maximum(jnp.sqrt(q(y)), jnp.finfo(y.dtype).tiny)
    below = jax.lax.map(
        lambda edge: jnp.mean(z < edge, dtype=y.dtype), jnp.asarray(HISTOGRAM_EDGES[1:-1], y.dtype)
    )
    return jnp.diff(below, prepend=0, append=1)
