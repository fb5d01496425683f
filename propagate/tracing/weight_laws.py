"""Which initialisation law a parameter resembles, from its sums alone.

A parameter's sums give its variance and its largest magnitude; with the fans of its product that is
enough to tell the laws that frameworks draw from apart:

    100 x 100, Var(W) = 2/100, largest 3.9 std  ─▶  he_normal
    100 x 100, Var(W) = 2/100, largest 1.7 std  ─▶  he_uniform
    no product, all 1                           ─▶  ones
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from propagate.initializers import INITIALIZERS
from propagate.record.measures import LARGEST, MEAN, Q
from propagate.record.statistics import CONSTANT_SHARE
from propagate.tracing.trees import ParameterTable

MOMENTS = (Q, MEAN, LARGEST)  # what is taken of parameters
CANDIDATES = ("he", "lecun", "glorot")
FRAMEWORK_DEFAULTS = ("torch", "haiku")  # that are none of the candidates
ENOUGH = 100  # elements, to tell a uniform from a normal law by the largest
SIGMAS, SLACK = 4, 0.02  # of a variance: standard errors, and what a law written otherwise adds
NEAR_ONE = 1e-3  # a constant that is called ones
PAST_ITS_END = 1.01  # rounding of a largest element that a law bounds
ENDS = {"uniform": 3**0.5, "truncated": 2.2735, "normal": math.inf}  # largest/std, at most
KURTOSIS = {"uniform": 1.8, "truncated": 2.37, "normal": 3.0}


class Moments(NamedTuple):
    """A parameter's size and moments.

    Attributes:
        size: how many elements.
        log10_q: of the second moment.
        mean: divided by the rms.
        log10_largest: of the largest magnitude.
    """

    size: int
    log10_q: float
    mean: float
    log10_largest: float

    @property
    def variance(self) -> float:
        """Var(W), 0 where rounding is all that is left of it."""
        share = 1 - self.mean**2
        return 10**self.log10_q * share if share > CONSTANT_SHARE else 0.0


def resembles(own: Moments, fans: tuple[int, int] | None) -> str:
    """Return the name of the law, such as `"he_normal"`, or of its distribution and scale.

    A named law has the variance within four standard errors and 2 %, and the shape (uniform,
    truncated or normal) that the largest element tells. A square orthogonal matrix resembles
    `"lecun_normal"`, whose moments it has.

    Example:
        >>> resembles(Moments(10_000, math.log10(2 / 100), 0.0, math.log10(0.55)), (100, 100))
        'he_normal'
    """
    if own.log10_q == -math.inf:
        return "zeros"
    if not math.isfinite(own.log10_q):
        return "not finite"
    if own.variance == 0:
        value = math.copysign(10 ** (own.log10_q / 2), own.mean)
        return "ones" if abs(value - 1) < NEAR_ONE else f"constant_{value:.3g}"
    std = math.sqrt(own.variance)
    ratio = 10**own.log10_largest / std
    shape = next(name for name, end in ENDS.items() if ratio <= end * PAST_ITS_END)
    if own.size < ENOUGH:
        shape = "normal"
    for name in _candidates(shape) if fans else ():
        expected = INITIALIZERS[name]().moments(*fans)[1] if fans else math.nan
        error = SIGMAS * math.sqrt((KURTOSIS[shape] - 1) / own.size) + SLACK
        if abs(own.variance / expected - 1) < error:
            return name
    scale = std * 3**0.5 if shape == "uniform" else std
    stem = "truncated_normal" if shape == "truncated" else shape
    return f"{stem}_{scale:.3g}"


def _candidates(shape: str) -> Iterator[str]:
    stem = "uniform" if shape == "uniform" else "normal"
    yield from (f"{name}_{stem}" for name in CANDIDATES)
    yield from FRAMEWORK_DEFAULTS


def table(
    parameters: ParameterTable,
    weights: Sequence[dict[str, Any]],
    gradients: Sequence[dict[str, Any]] | None,
    fans: Mapping[str, tuple[int, int]],
) -> dict[str, Any]:
    """Return the variables of a record over dim `weight`: a row for each layer's parameter.

    `log10_weight_q`, `log10_weight_sigma2` (fan_in·Var(W), the $\\sigma_w^2$ of mean-field theory),
    `weight_fan_in`, `weight_law`, `log10_gradient_q` and `log10_gradient_to_weight` (of rms).

    Args:
        parameters: of the program.
        weights: their sums for `MOMENTS`.
        gradients: the sums of their gradients for q, if taken.
        fans: fan_in and fan_out of the parameters of products, by path.
    """
    names = parameters.names()
    labels = {"weight": np.array(names, dtype=np.str_)}
    if not names:
        return labels
    moments = zip(*(parameters.column(m, weights) for m in MOMENTS), strict=True)
    gradient = [np.nan] * len(names) if gradients is None else parameters.column(Q, gradients)
    columns: dict[str, list[Any]] = {}
    each = zip(names, parameters.rows(), moments, gradient, strict=True)
    for name, (number, _), taken, log10_g in each:
        own = Moments(parameters.size(number), *map(float, taken))
        for column, value in _row(own, fans.get(name), float(log10_g)).items():
            columns.setdefault(column, []).append(value)
    return labels | {k: ("weight", np.array(v)) for k, v in columns.items()}


def _row(own: Moments, fans: tuple[int, int] | None, log10_g: float) -> dict[str, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "log10_weight_q": own.log10_q,
            "log10_weight_sigma2": np.log10(own.variance * fans[0]) if fans else np.nan,
            "weight_fan_in": float(fans[0]) if fans else np.nan,
            "weight_law": resembles(own, fans),
            "log10_gradient_q": log10_g,
            "log10_gradient_to_weight": np.float64(log10_g - own.log10_q) / 2,
        }
