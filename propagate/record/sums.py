r"""Statistics of a value of any shape, as sums on the device that the host finishes.

A custom model has hundreds of sites, and every scalar operation at each of them would be compiled
to a program of its own. So the device only sums, and what is left of a statistic is done once, in
float64, for all sites. Only $y = x/\max|x|$ is squared, so that nothing over- or underflows that x
does not; the plain sum is of x itself, since a quotient that two sums share would be written out.
Values of few elements are kept, and summed on the host by the same functions.

`REDUCTIONS` says which sums each measure needs and how it follows from them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from propagate.record.layout import Ends, Laid, Layout, Sizes
from propagate.record.measures import OF_SOFTMAX, Measure
from propagate.record.scaled import decades
from propagate.record.statistics import (
    COLUMNS,
    FIRST,
    ROWS,
    SATURATED_SLOPE,
    gram,
    library,
    of_weights,
    softmax_statistics,
    spread_out,
)
from propagate.types import AnyArray, AnyNumber, Float, at_least_float32

OnHost = np.ndarray | np.floating  # one number, or one for each iteration around a site
Sums = Mapping[str, Any]  # by name, arrays of no axis or of one for each scan around a site


def spread(x: Laid, largest: AnyNumber) -> AnyNumber:
    """Return the sum of (y - mean over inputs)^2, which keeps its digits far below that of y^2.

    The mean is a matrix product, in a tenth of the time that a CPU takes for a sum over the first
    axis; with one row it would be a program of its own.
    """
    inputs = x.shape[0]
    rows = x.reshape(inputs, -1)
    with jax.default_matmul_precision("highest"):
        mean = (np.full((2, inputs), 1 / inputs, x.dtype) @ rows)[:1]
    return (((rows - mean) / largest) ** 2).sum()


def cosines(y: Float[AnyArray, "... rows units"]) -> tuple[AnyNumber, AnyNumber]:
    """Return |sum of rows of length 1|^2, and the number of rows that are not zero."""
    norm = (y**2).sum(axis=-1, keepdims=True)
    alive = (norm > 0).astype(y.dtype)
    weight = alive * (norm + (1 - alive)) ** -0.5
    return ((weight * y).sum(axis=-2) ** 2).sum(), alive.sum()


def directions(x: Laid, largest: AnyNumber) -> tuple[AnyNumber, AnyNumber]:
    """Return the rows and tr G^2 of the inputs' directions, from some of the positions."""
    y = spread_out(spread_out(x, 0, ROWS), 1, max(COLUMNS // x.shape[2], 1))
    return gram((y / largest).reshape(y.shape[0], -1))


def token_directions(x: Laid, largest: AnyNumber) -> AnyNumber:
    """Return the participation ratio of positions, averaged over inputs; 0 of one position."""
    y = spread_out(spread_out(x, 0, FIRST), 1, ROWS)
    if y.shape[1] < 2 or y.shape[2] < 2:
        return (x[:1, :1, :1] * 0).sum()
    rows, squared = gram(y / largest)
    return library(rows).where(rows > 1, rows**2 / squared, np.nan).mean()


SUMS: dict[str, Callable[[Laid, AnyNumber], AnyNumber | tuple[AnyNumber, ...]]] = {
    "sum": lambda x, _: x.sum(),
    "squares": lambda x, largest: ((x / largest) ** 2).sum(),
    "spread": spread,
    "zeros": lambda x, _: (x == 0).sum(dtype=x.dtype),
    "dead": lambda x, _: (abs(x).max(axis=(0, 1)) == 0).sum(dtype=x.dtype),
    "flat": lambda x, _: (abs(x) < SATURATED_SLOPE).sum(dtype=x.dtype),
    "cosines": lambda x, largest: cosines((x / largest).reshape(x.shape[0], -1)),
    "token_cosines": lambda x, largest: cosines(x / largest),
    "directions": directions,
    "token_directions": token_directions,
}
"""What is added up, given x and max|x|: on the device, or of values kept for the host.

Operators and methods alone, which mean the same for arrays of JAX and of NumPy.
"""
BY_HEAD = {"softmax": softmax_statistics}
"""What is added up given (heads, rows, units)."""
COUNTS = ("zeros", "dead", "flat", "subnormal")
PAIRS = ("cosines", "token_cosines", "directions", "token_directions")
OVER_ALL = ("sum", "squares", "zeros", "flat")  # over all elements, for which axes need no order
FEW = 4096  # elements: of fewer, XLA on a CPU has no sum ready-made, and each is a program


class Reduction(NamedTuple):
    """How a measure follows from sums.

    Attributes:
        sums: the names of those it needs.
        finish: `finish(sums, sizes)`, the measure.
    """

    sums: tuple[str, ...]
    finish: Callable[[Sums, Sizes], Any]


def _share(name: str) -> Callable[[Sums, Sizes], Any]:
    """Return the measure that is a sum over the number of elements."""
    return lambda sums, sizes: sums[name] / sizes.elements


def _variance(sums: Sums, sizes: Sizes) -> Any:
    return sums["spread"] / sizes.elements if sizes.inputs > 1 else np.nan * sums["spread"]


def _mean(sums: Sums, sizes: Sizes) -> Any:
    rms = np.sqrt(sums["squares"] / sizes.elements)
    return sums["sum"] / sizes.elements / np.where(rms == 0, 1, rms)


def _largest(sums: Sums, sizes: Sizes) -> Any:
    return np.where(np.isfinite(sums["squares"]), sums["squares"] > 0, sums["squares"])


def _dead(sums: Sums, sizes: Sizes) -> Any:
    return sums["dead"] / sizes.units


def _correlation(sums: Sums, sizes: Sizes) -> Any:
    total, rows = sums["cosines"]
    return _mean_cosine(total, rows, rows)


def _token_correlation(sums: Sums, sizes: Sizes) -> Any:
    total, rows = sums["token_cosines"]
    return _mean_cosine(total, rows, rows / sizes.inputs)


def _mean_cosine(total: OnHost, rows: OnHost, each: OnHost) -> OnHost:
    """Return the mean cosine of pairs among `each` rows, of `rows` in all."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(each > 1, (total - rows) / (rows * (each - 1)), np.nan)


def _effective_rank(sums: Sums, sizes: Sizes) -> Any:
    rows, squared = sums["directions"]
    with np.errstate(divide="ignore"):
        told = (rows > 1) & (sizes.positions * sizes.units > 1)
        return np.where(told, rows**2 / squared, np.nan)


def _token_effective_rank(sums: Sums, sizes: Sizes) -> Any:
    value = sums["token_directions"]
    return np.where((sizes.positions > 1) & (sizes.units > 1), value, np.nan)


def _of_softmax(which: int) -> Callable[[Sums, Sizes], Any]:
    return lambda sums, sizes: of_weights(sums["softmax"], which, sizes.units)


REDUCTIONS = {
    "q": Reduction(("squares",), _share("squares")),
    "variance": Reduction(("spread",), _variance),
    "mean": Reduction(("sum", "squares"), _mean),
    "max": Reduction(("squares",), _largest),
    "correlation": Reduction(("cosines",), _correlation),
    "token_correlation": Reduction(("token_cosines",), _token_correlation),
    "effective_rank": Reduction(("directions",), _effective_rank),
    "token_effective_rank": Reduction(("token_directions",), _token_effective_rank),
    **{name: Reduction(("softmax",), _of_softmax(k)) for k, name in enumerate(OF_SOFTMAX)},
    "subnormal_fraction": Reduction(("subnormal",), _share("subnormal")),
    "zero_fraction": Reduction(("zeros",), _share("zeros")),
    "dead_fraction": Reduction(("dead",), _dead),
    "saturated_fraction": Reduction(("flat",), _share("flat")),
}
"""For each measure of a site."""


def needed(measures: Iterable[Measure]) -> tuple[str, ...]:
    """Return the sums that these measures need."""
    return tuple(dict.fromkeys(name for m in measures for name in REDUCTIONS[m.name].sums))


def reduce(
    x: AnyArray,
    sums: tuple[str, ...],
    layout: Layout,
    tiny: float | None = None,
    ends: Ends | None = None,
) -> dict[str, Any]:
    """Return `largest`, max|x|, and the sums.

    XLA has maxima and sums of floats, of squares and of quotients ready-made; a scale of any other
    kind, a guard against 0/0, or a quotient that two sums share would be one more program for each
    site. `tiny` is the smallest normal number of the value's own dtype, if x has another. Where
    x is a sample with `ends`, sums over all elements are weighted, and pairs of positions are those
    between the ends.
    """
    tiny = float(jax.numpy.finfo(x.dtype).tiny) if tiny is None else tiny
    x = x.astype(at_least_float32(x.dtype))
    largest = abs(x).max()
    taken: dict[str, Any] = {"largest": largest}
    weights = None if ends is None else ends.along(x)
    between = x if ends is None else ends.cut(x)
    for name in sums:
        if name in BY_HEAD:
            taken[name] = BY_HEAD[name](layout.by_head(between))
        elif name == "subnormal":
            taken[name] = _counted((x != 0) & (abs(x) < tiny), x.dtype, weights)
        elif name in PAIRS:
            taken[name] = SUMS[name](layout.lay(between), largest)
        elif weights is not None and name in WEIGHTED:
            taken[name] = WEIGHTED[name](x, weights, largest, layout)
        else:
            taken[name] = SUMS[name](x if name in OVER_ALL else layout.lay(x), largest)
    return taken


def _counted(where: AnyArray, dtype: Any, weights: AnyArray | None) -> AnyNumber:
    """Return how many elements are so, each counted with its weight."""
    return where.sum(dtype=dtype) if weights is None else (where.astype(dtype) * weights).sum()


WEIGHTED: dict[str, Callable[[AnyArray, AnyArray, AnyNumber, Layout], AnyNumber]] = {
    "sum": lambda x, w, _, layout: (x * w).sum(),
    "squares": lambda x, w, largest, layout: ((x / largest * w**0.5) ** 2).sum(),
    "spread": lambda x, w, largest, layout: spread(layout.lay(x * w**0.5), largest),
    "zeros": lambda x, w, _, layout: _counted(x == 0, x.dtype, w),
    "flat": lambda x, w, _, layout: _counted(abs(x) < SATURATED_SLOPE, x.dtype, w),
}
"""The sums over all elements of a sample, each position counted with its weight."""


def keep(x: AnyArray) -> dict[str, Any]:
    """Return the values themselves, for `kept` to sum on the host."""
    return {"values": x}


def kept(seen: Sums, sums: tuple[str, ...], layout: Layout, ends: Ends | None = None) -> Sums:
    """Return the sums, whether the device took them or kept the values."""
    if "values" not in seen:
        return seen
    with np.errstate(all="ignore"):  # as on the device
        values = np.asarray(seen["values"])
        tiny = float(jax.numpy.finfo(values.dtype).tiny)
        return reduce(values.astype(np.float64), sums, layout, tiny, ends)


def flat(slope: AnyArray) -> dict[str, Any]:
    """Return the count of slopes phi'/sup|phi'| next to none."""
    return {"flat": (abs(slope) < SATURATED_SLOPE).sum(dtype=slope.dtype)}


def finish(measure: Measure, seen: Sums, sizes: Sizes) -> np.ndarray:
    """Return a statistic in float64, log10 if it is scale-like.

    Args:
        measure: which.
        seen: what `reduce` returned, of one site or stacked over iterations.
        sizes: of the value, in one iteration.
    """
    wide = jax.tree.map(lambda v: np.asarray(v, np.float64), dict(seen))
    largest = wide.pop("largest", np.ones(()))
    counts = {name: v for name, v in wide.items() if name in COUNTS}
    scale = np.where(largest > 0, largest, 1)
    if "sum" in wide:
        wide["sum"] = _in_units(wide["sum"], scale)
    for end in (0.0, np.inf):  # where y is 0/0 or inf/inf, a sum of it is of x
        wide = jax.tree.map(lambda v, end=end: np.where(largest == end, end, v), wide) | counts
    with np.errstate(invalid="ignore"):
        value = REDUCTIONS[measure.name].finish(wide, sizes)
    return np.asarray(decades(measure, np.asarray(value), np.log2(scale)))


def _in_units(total: OnHost, scale: OnHost) -> OnHost:
    """Return a sum in units of the largest magnitude; NaN if it overflowed where that did not."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(total) & np.isfinite(scale), np.nan, total / scale)
