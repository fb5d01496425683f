r"""Statistics: each is a name and a pure function of one layer's array.

An array is divided by the power of two $2^k$ next to its largest magnitude before anything is
squared or summed, and sums are float32 or wider. So no statistic over- or underflows while the
values themselves are finite; $k$ travels beside it, and the logarithm is finished on the host
in float64.

`MEASURES` is the table: add a line to it to add a statistic.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.types import (
    STACK_PLACES,
    Array,
    Float,
    Int,
    Place,
    UnusableInput,
    at_least_float32,
)

SATURATED_SLOPE = 0.05  # a unit is saturated on an input if |phi'| is below this share of its sup
HISTOGRAM_EDGES = tuple(k / 4 for k in range(-21, 22))  # of values in units of their rms
SYMMETRIC_RTOL = 1e-5  # of the largest magnitude; rounding of a float32 sum of ~1000 equal terms


def q(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Second moment per unit, E y^2."""
    return jnp.mean(jnp.square(y))


def variance(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Variance over the inputs of each unit, averaged over units: what tells inputs apart."""
    return jnp.mean(jnp.square(y - jnp.mean(y, axis=0)))


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
    return jnp.mean(jnp.square(y - jnp.mean(y, axis=(0, 1))))


def as_it_is(value: Array) -> Array:
    """What the layer reports."""
    return value


def _row_max(y: Float[Array, "batch units"]) -> Float[Array, " batch"]:
    return jnp.max(jnp.abs(y), axis=1)


def zero_fraction(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Share of zeros (of values below 2^-126 of the layer's largest, to be exact)."""
    return jnp.mean(y == 0, dtype=y.dtype)


def dead_fraction(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Share of units that are zero for every input."""
    return jnp.mean(jnp.all(y == 0, axis=0), dtype=y.dtype)


def symmetric_fraction(y: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Share of units that equal the mean over units, on every input; NaN of one unit."""
    if y.shape[1] == 1:
        return jnp.full((), jnp.nan, y.dtype)
    apart = jnp.max(jnp.abs(y - jnp.mean(y, axis=1, keepdims=True)), axis=0)
    return jnp.mean(apart <= SYMMETRIC_RTOL * largest(y), dtype=y.dtype)


def saturated_fraction(slope: Float[Array, "batch units"]) -> Float[Array, ""]:
    """Share of (input, unit) pairs with |phi'| < 0.05 sup|phi'|; `slope` is phi'/sup|phi'|."""
    return jnp.mean(jnp.abs(slope) < SATURATED_SLOPE, dtype=slope.dtype)


def histogram(y: Float[Array, "batch units"]) -> Float[Array, " bins"]:
    """Share of values per bin, in units of the rms; the outer bins take what lies beyond."""
    z = y / jnp.maximum(jnp.sqrt(q(y)), jnp.finfo(y.dtype).tiny)
    below = jax.lax.map(
        lambda edge: jnp.mean(z < edge, dtype=y.dtype), jnp.asarray(HISTOGRAM_EDGES[1:-1], y.dtype)
    )
    return jnp.diff(below, prepend=0, append=1)


@dataclass(frozen=True)
class Measure:
    """A statistic and where it is taken.

    Attributes:
        name: the ending of its variables' names.
        fn: array of one layer, (batch, units), to a number.
        places: the signals it is taken of.
        power: the statistic of 2^k y is 2^(k power) times that of y; 0 for ratios and shares.
        bins: how many numbers it consists of, if more than one.
        on_request: whether it is taken only when named.
        shaped: whether `fn` takes (batch, positions, units) rather than (batch, units).
    """

    name: str
    fn: Callable[[Array], Array]
    places: tuple[Place, ...]
    power: int = 0
    bins: int = 0
    on_request: bool = False
    shaped: bool = False

    def variable(self, place: Place) -> str:
        """Return the name of this statistic of `place` in a record."""
        return f"log10_{place}_{self.name}" if self.power else f"{place}_{self.name}"


_SIGNALS: tuple[Place, ...] = ("forward", "activation", "backward")

MEASURES = (
    Measure("q", q, (*_SIGNALS, "weight_gradient"), power=2),
    Measure("variance", variance, ("forward", "activation"), power=2),
    Measure("mean", mean, _SIGNALS),
    Measure("max", largest, ("forward",), power=1),
    Measure("correlation", correlation, ("forward", "backward")),
    Measure("zero_fraction", zero_fraction, _SIGNALS),
    Measure("dead_fraction", dead_fraction, ("activation",)),
    Measure("symmetric_fraction", symmetric_fraction, ("forward",)),
    Measure("saturated_fraction", saturated_fraction, ("activation",)),
    Measure("histogram", histogram, _SIGNALS, bins=len(HISTOGRAM_EDGES) - 1, on_request=True),
)

SITE_MEASURES = (
    *(m for m in MEASURES if m.name not in ("symmetric_fraction", "histogram")),
    Measure("token_correlation", token_correlation, ("forward",)),
)
"""Of the sites of a custom model, whose values may have positions beside inputs and units."""

Q, MEAN, LARGEST = (
    next(m for m in SITE_MEASURES if m.name == name) for name in ("q", "mean", "max")
)

Selection = tuple[tuple[Place, tuple[Measure, ...]], ...]


def select(
    endings: Iterable[str] | None = None, table: tuple[Measure, ...] = MEASURES
) -> Selection:
    """Return the measures of each place whose variables have one of the `endings`.

    Args:
        endings: of variable names: `"q"`, `"mean"`, `"weight_gradient_q"`, `"forward_q"`, …;
            None means all but `"histogram"`, which is taken when named. The plain `"q"` leaves
            out the weight gradient, which costs a matrix product, and what only a family has.
        table: the measures to choose from.

    Raises:
        UnusableInput: an ending that no variable has.
    """
    if isinstance(endings, str):
        endings = (endings,)
    wanted = None if endings is None else set(endings)
    known = {name for m in table for place in m.places for name in _endings(m, place)}
    if wanted is not None and (not wanted or wanted - known):
        raise UnusableInput(
            f"measures must be some of {', '.join(sorted(known))}; "
            f"got {', '.join(sorted(wanted - known)) or 'none'}"
        )
    places = dict.fromkeys((*STACK_PLACES, *(place for m in table for place in m.places)))
    return tuple(
        (place, tuple(m for m in table if place in m.places and _taken(m, place, wanted)))
        for place in places
    )


def _endings(measure: Measure, place: Place) -> tuple[str, ...]:
    """Return what a statistic answers to; a signal's, or one of a kind, also to its bare name."""
    full = (f"{place}_{measure.name}", measure.variable(place))
    plain = place in _SIGNALS and not (measure.shaped and len(measure.places) > 1)
    return (measure.name, *full) if plain else full


def _taken(measure: Measure, place: Place, wanted: set[str] | None) -> bool:
    if wanted is None:
        return not measure.on_request
    return not wanted.isdisjoint(_endings(measure, place))


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


def power_of_two(k: Int[Array, " configs"], dtype) -> Float[Array, " configs"]:
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


def decades(measure: Measure, value: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Finish a statistic in float64: log10(value · 2^(power · exponent)), or the value itself."""
    value = np.asarray(value, np.float64)
    if not measure.power:
        return value
    with np.errstate(divide="ignore"):
        return np.log10(value) + measure.power * math.log10(2.0) * np.asarray(exponent, np.float64)
