r"""Statistics of a value of any shape, as sums on the device that the host finishes.

A custom model has hundreds of sites, and every scalar operation at each of them would be compiled
to a program of its own. So the device only sums, and what is left of a statistic is done once, in
float64, for all sites. Sums and counts add up over shards. As in `measures.rescale`, a value is
$x = y \cdot 2^k$ with max|y| next to 1, and only y is squared.

`REDUCTIONS` says which sums each measure needs and how it follows from them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.measures import SATURATED_SLOPE, SITE_MEASURES, Measure, decades
from propagate.types import Array, Float, at_least_float32

Laid = Float[Array, "batch positions units"]


def spread(y: Laid) -> tuple[Array, Array]:
    """Return the sums of (y - y_0)^2 and of (sum over inputs of y - y_0)^2; y_0 is one input.

    The shift keeps the digits of a variance far below the second moment.
    """
    apart = y - y[:1]
    return jnp.sum(jnp.square(apart)), jnp.sum(jnp.square(jnp.sum(apart, axis=0)))


def cosines(y: Float[Array, "... rows units"]) -> tuple[Array, Array]:
    """Return |sum of rows of length 1|^2, and the number of rows that are not zero."""
    norm = jnp.sum(jnp.square(y), axis=-1, keepdims=True)
    weight = jnp.where(norm > 0, jax.lax.rsqrt(norm), 0)
    return jnp.sum(jnp.square(jnp.sum(weight * y, axis=-2))), jnp.sum(norm > 0, dtype=y.dtype)


SUMS: dict[str, Callable[[Laid], Array | tuple[Array, ...]]] = {
    "sum": jnp.sum,
    "squares": lambda y: jnp.sum(jnp.square(y)),
    "spread": spread,
    "zeros": lambda y: jnp.sum(y == 0, dtype=y.dtype),
    "dead": lambda y: jnp.sum(jnp.max(jnp.abs(y), axis=(0, 1)) == 0, dtype=y.dtype),
    "flat": lambda slope: jnp.sum(jnp.abs(slope) < SATURATED_SLOPE, dtype=slope.dtype),
    "cosines": lambda y: cosines(y.reshape(y.shape[0], -1)),
    "token_cosines": cosines,
}
"""What the device adds up. Of the scaled value, but for `flat`, which takes slopes as they are."""


class Layout(NamedTuple):
    """Which axes of a value are what.

    Attributes:
        batch: the axis of the inputs; None: it is a value of all of them together.
        unit: the axis of the channels or features; every other axis is one of positions.
    """

    batch: int | None
    unit: int

    def of(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return how many inputs, positions and units a shape has."""
        if not shape:
            return 1, 1, 1
        inputs = 1 if self.batch is None else shape[self.batch]
        units = shape[self.unit] if self.unit != self.batch else 1
        return inputs, int(np.prod(shape)) // max(inputs * units, 1), units

    def lay(self, x: Array) -> Laid:
        """Return the value as (inputs, positions, units)."""
        if not x.ndim:
            return x.reshape(1, 1, 1)
        ends = [k for k in (self.batch,) if k is not None], [self.unit] * (self.unit != self.batch)
        middle = [k for k in range(x.ndim) if k not in (*ends[0], *ends[1])]
        return x.transpose(*ends[0], *middle, *ends[1]).reshape(self.of(x.shape))


class Reduction(NamedTuple):
    """The sums that a measure needs, and what it is, given those, inputs, positions and units."""

    sums: tuple[str, ...]
    finish: Callable[..., Any]


def _moment(s: Mapping[str, Any], b: Any, t: Any, n: Any) -> Any:
    return s["squares"] / (b * t * n)


def _variance(s: Mapping[str, Any], b: Any, t: Any, n: Any) -> Any:
    apart, together = s["spread"]
    return np.where(b > 1, np.maximum(apart - together / b, 0) / (b * t * n), np.nan)


def _mean(s: Mapping[str, Any], b: Any, t: Any, n: Any) -> Any:
    rms = np.sqrt(_moment(s, b, t, n))
    return s["sum"] / (b * t * n) / np.where(rms == 0, 1, rms)


def _cosine(total: Any, rows: Any, each: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(each > 1, (total - rows) / (rows * (each - 1)), np.nan)


def _correlation(s: Mapping[str, Any], b: Any, t: Any, n: Any) -> Any:
    total, rows = s["cosines"]
    return _cosine(total, rows, rows)


def _token_correlation(s: Mapping[str, Any], b: Any, t: Any, n: Any) -> Any:
    total, rows = s["token_cosines"]
    return _cosine(total, rows, rows / b)


REDUCTIONS = {
    "q": Reduction(("squares",), _moment),
    "variance": Reduction(("spread",), _variance),
    "mean": Reduction(("sum", "squares"), _mean),
    "max": Reduction((), lambda s, b, t, n: s["largest"]),
    "correlation": Reduction(("cosines",), _correlation),
    "token_correlation": Reduction(("token_cosines",), _token_correlation),
    "zero_fraction": Reduction(("zeros",), lambda s, b, t, n: s["zeros"] / (b * t * n)),
    "dead_fraction": Reduction(("dead",), lambda s, b, t, n: s["dead"] / n),
    "saturated_fraction": Reduction(("flat",), lambda s, b, t, n: s["flat"] / (b * t * n)),
}
assert set(REDUCTIONS) == {m.name for m in SITE_MEASURES}


def needed(measures: Iterable[Measure]) -> tuple[str, ...]:
    """Return the sums that these measures need."""
    return tuple(dict.fromkeys(name for m in measures for name in REDUCTIONS[m.name].sums))


def reduce(x: Array, sums: tuple[str, ...], layout: Layout) -> dict[str, Any]:
    """Return `largest`, max|x|, a `count` of one, and the sums of y.

    Bits of floats are ordered as their magnitudes are, with NaN at the top: the largest is found
    as an integer, which is half the code of a maximum of floats, and its bits give the scale.
    """
    x = x.astype(at_least_float32(x.dtype))
    whole, bits, bias = _bits(x.dtype)
    top = jnp.max(jax.lax.bitcast_convert_type(x, whole) & jnp.iinfo(whole).max)
    scale = (2 * bias - jnp.minimum(top >> bits, 2 * bias - 1)) << bits
    y = x * jax.lax.bitcast_convert_type(scale, x.dtype)
    plain = {name: SUMS[name](y) for name in sums if name in ("sum", "squares", "zeros")}
    laid = {name: SUMS[name](layout.lay(y)) for name in sums if name not in plain}
    largest = jax.lax.bitcast_convert_type(top, x.dtype)
    return {"largest": largest, "count": jnp.ones((), x.dtype), **plain, **laid}


def flat(slope: Array) -> dict[str, Any]:
    """Return the sums of slopes phi'/sup|phi'|."""
    return {"flat": SUMS["flat"](slope), "count": jnp.ones((), slope.dtype)}


def finish(measure: Measure, seen: Mapping[str, Any], sizes: tuple[int, int, int]) -> np.ndarray:
    """Return a statistic in float64, log10 if it is scale-like; NaN where nothing was counted.

    Args:
        measure: which.
        seen: what `reduce` returned, of one site or stacked over iterations.
        sizes: inputs, positions and units.
    """
    wide = jax.tree.map(lambda v: np.asarray(v, np.float64), dict(seen))
    if "largest" in seen:
        largest = np.asarray(seen["largest"])
        whole, bits, bias = _bits(largest.dtype)
        exponent = np.minimum(largest.view(whole) >> bits, 2 * bias - 1) - bias
        wide["largest"] = wide["largest"] / 2.0**exponent
    else:
        exponent = np.zeros(())
    value = np.asarray(REDUCTIONS[measure.name].finish(wide, *map(np.float64, sizes)))
    return np.where(wide["count"] > 0, decades(measure, value, exponent), np.nan)


def _bits(dtype: Any) -> tuple[Any, int, int]:
    """Return the integer as wide as a float, its bits below the exponent, and the bias of that."""
    info = jnp.finfo(dtype)
    return jnp.dtype(f"int{info.bits}"), info.nmant, 2 ** (info.nexp - 1) - 1
