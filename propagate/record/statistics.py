"""The formula of each statistic: a pure function of one layer's array."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from propagate.types import AnyArray, Array, Float

SATURATED_SLOPE = 0.05  # a unit is saturated on an input if |phi'| is below this share of its sup
HISTOGRAM_EDGES = tuple(k / 4 for k in range(-21, 22))  # of values in units of their rms
SYMMETRIC_RTOL = 1e-5  # of the largest magnitude; rounding of a float32 sum of ~1000 equal terms
ROWS = 32  # inputs, or positions of one, whose directions are compared; enough for a rank of 32
COLUMNS = 4096  # elements of an input that are looked at to compare directions
FIRST = 8  # inputs whose positions are compared
SUM_RTOL = 0.02  # of weights in bfloat16 that sum to 1
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


def effective_rank(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    r"""Participation ratio of the inputs' directions, 1 where all are parallel.

    $(\mathrm{tr}\,G)^2/\mathrm{tr}\,G^2$ of the Gram matrix $G_{ab} = \hat y_a\cdot\hat y_b$ of at
    most `ROWS` inputs, spread over the batch; $\hat y = y/\lVert y\rVert$, so that norms do
    not matter. It is the number of inputs where they are orthogonal, 1 where all are parallel or
    opposite. NaN of one unit, where it says nothing, and of one input.
    """
    y = spread_out(y, 0, ROWS)
    top = _row_max(y)[:, None]
    count, squared = gram(y / jnp.where(top > 0, top, 1))
    told = (count > 1) & (y.shape[1] > 1)
    return jnp.where(told, count**2 / jnp.maximum(squared, 1), jnp.nan)


def token_effective_rank(y: Float[Array, "batch tokens units"]) -> Float[Array, ""]:
    """Participation ratio of the positions of an input, averaged over at most `FIRST` inputs."""
    return jnp.mean(jax.vmap(effective_rank)(spread_out(y, 0, FIRST)))


def spread_out(y: AnyArray, axis: int, most: int) -> Any:
    """Return at most so many slices along an axis, at equal distances."""
    index = [slice(None)] * y.ndim
    index[axis] = slice(None, None, max(-(-y.shape[axis] // most), 1))
    return y[tuple(index)]


def gram(y: Float[AnyArray, "*others rows units"]) -> tuple[Any, Any]:
    """Return how many rows are not zero, and tr G^2 of the Gram matrix of rows of length 1.

    Operators and methods alone, which mean the same for arrays of JAX and of NumPy.
    """
    norm = (y**2).sum(axis=-1, keepdims=True)
    alive = (norm > 0).astype(y.dtype)
    unit = y * (alive * (norm + (1 - alive)) ** -0.5)
    with jax.default_matmul_precision("highest"):
        products = unit @ unit.swapaxes(-1, -2)
    return alive.sum(axis=(-1, -2)), (products**2).sum(axis=(-1, -2))


def softmax_statistics(p: Float[AnyArray, "heads rows keys"]) -> tuple[Any, ...]:
    r"""Return what says how sharp the weights of a softmax are, which sum to 1 over the last axis.

    With n weights that are not 0 in a row, so that what a mask hides does not count:

    * the mean over rows of the entropy $-\sum p \ln p/\ln n$, 1 for equal weights, 0 for one-hot;
    * that of the head with the least;
    * the mean of the largest weight;
    * the standard deviation of the scores in a row, which is that of $\ln p$, root mean square;
    * the mean of the sum over a row.

    Rows with one weight are left out, unless all are such: then they are one-hot.
    """
    where, log = library(p).where, library(p).log
    alive = p > 0
    real = alive.astype(p.dtype)
    count = real.sum(axis=-1)
    several = (count > 1).astype(p.dtype)
    score = log(where(alive, p, 1))
    entropy = -(p * score).sum(axis=-1) / log(where(count > 1, count, np.e))
    centre = (score.sum(axis=-1) / where(count > 0, count, 1))[..., None]
    variance = ((real * (score - centre)) ** 2).sum(axis=-1) / where(count > 0, count, 1)
    rows = several.sum(axis=-1)
    total = rows.sum()
    of_head = (several * entropy).sum(axis=-1) / where(rows > 0, rows, 1)
    lowest = where(rows > 0, of_head, where(total > 0, 1, 0).astype(p.dtype)).min()
    mean = lambda value: (several * value).sum() / where(total > 0, total, 1)  # noqa: E731
    largest = where(total > 0, mean(p.max(axis=-1)), 1)
    return mean(entropy), lowest, largest, mean(variance) ** 0.5, p.sum(axis=-1).mean()


def library(x: AnyArray) -> Any:
    """Return the library of an array: `jax.numpy` or NumPy."""
    return jnp if isinstance(x, jax.Array) else np


def softmax_measure(which: int) -> Any:
    """Return the measure that is one of `softmax_statistics`; NaN where rows do not sum to 1."""

    def of(p: Float[Array, "heads rows keys"]) -> Float[Array, ""]:
        return of_weights(softmax_statistics(p), which, p.shape[-1])

    return of


def of_weights(found: tuple[Any, ...], which: int, keys: int) -> Any:
    """Return one of `softmax_statistics`; NaN of one weight, or where rows do not sum to 1."""
    known = (abs(found[-1] - 1) < SUM_RTOL) & (keys > 1)
    return library(found[-1]).where(known, found[which], np.nan)


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
