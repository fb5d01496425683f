r"""Which initialisation law a parameter resembles, by likelihood, from its sums alone.

The laws that frameworks draw from are uniform on ±a, normal, or normal and cut at two sigma. The
likelihood of N elements under each of them follows from N, their sum of squares and the largest:

    uniform on ±a        -N ln 2a                            where the largest is at most a
    normal               -N ln(s sqrt(2 pi)) - sum x²/2s²
    cut at ±2s           -N ln(0.954 s sqrt(2 pi)) - sum x²/2s²  where the largest is at most 2s

so the nearest law is the one of largest likelihood, and two that explain the elements equally are
both named:

    100 x 100, Var(W) = 2/100, largest 3.9 std  ─▶  he_normal
    100 x 100, Var(W) = 2/100, largest 1.7 std  ─▶  he_uniform
    100 x 100, Var(W) = 1/100, largest 1.7 std  ─▶  ambiguous: lecun_uniform or glorot_uniform
    no product, all 1                           ─▶  ones
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from propagate.distributions import TRUNCATED_STD
from propagate.record.measures import LARGEST, MEAN, Q
from propagate.record.statistics import CONSTANT_SHARE
from propagate.tracing.trees import ParameterTable

MOMENTS = (Q, MEAN, LARGEST)  # what is taken of parameters
SLACK = 0.01  # of a scale: what a law that is written otherwise adds
NEAR_ONE = 1e-3  # a constant that is called ones
CENTRED_SIGMAS = 5.0  # standard errors within which a mean counts as 0: beyond with p = 6e-7
FAR = 12.5
"""By how much the log-likelihood of a law may stay behind that of the best scale.

Under a normal law, twice the difference is chi-squared with one degree of freedom: beyond 25 with
probability 6e-7. Under a uniform law the difference is exponential: beyond 12.5 with 4e-6.
"""
EQUAL = 5.0
"""Difference of log-likelihoods within which two laws explain the elements equally.

Under the true law another is ahead by more with probability e^-5 = 0.7 % at most.
"""
INSIDE = math.erf(math.sqrt(2.0))  # share of a normal law within two sigma: 0.954

Shape = Literal["uniform", "truncated_normal", "normal"]
Fans = tuple[int, int]


class Law(NamedTuple):
    """A distribution of mean 0.

    Attributes:
        name: of the initialiser.
        shape: of the distribution.
        scale: a of a uniform law, s of a normal one, cut at ±2s or not.
    """

    name: str
    shape: Shape
    scale: float


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

    def nearest(self, shape: Shape) -> float:
        """Return the scale of a shape under which the elements are likeliest."""
        largest, rms = 10**self.log10_largest, 10 ** (self.log10_q / 2)
        return {"uniform": largest, "truncated_normal": max(largest / 2, rms), "normal": rms}[shape]

    def log_likelihood(self, shape: Shape, scale: float) -> float:
        """Return the log-likelihood of the elements; -inf where one is out of the law's range."""
        largest = 10**self.log10_largest
        if shape == "uniform":
            return -self.size * math.log(2 * scale) if largest <= scale else -math.inf
        cut = shape == "truncated_normal"
        if cut and largest > 2 * scale:
            return -math.inf
        area = math.sqrt(2 * math.pi) * scale * (INSIDE if cut else 1)
        return -self.size * (math.log(area) + 10**self.log10_q / (2 * scale**2))


def laws(fan_in: int, fan_out: int) -> Iterator[Law]:
    """Yield the laws that frameworks draw a weight of these fans from."""
    variances = {"he": 2 / fan_in, "lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out)}
    for name, variance in variances.items():
        yield Law(f"{name}_uniform", "uniform", math.sqrt(3 * variance))
        yield Law(f"{name}_normal", "normal", math.sqrt(variance))
        yield Law(f"{name}_normal", "truncated_normal", math.sqrt(variance) / TRUNCATED_STD)
    yield Law("torch", "uniform", math.sqrt(1 / fan_in))
    yield Law("haiku", "truncated_normal", math.sqrt(1 / fan_in))


def fans_by_shape(shape: tuple[int, ...]) -> Fans | None:
    """Return the fans that frameworks read off a shape, whatever the product is.

    Those of (…, in, out), each times the size of the axes before. A depthwise, a grouped or a
    transposed kernel has others in its product.

    Example:
        >>> fans_by_shape((3, 3, 16, 1))  # a depthwise kernel of Keras, whose fan_in is 9
        (144, 9)
    """
    if len(shape) < 2:
        return None
    taps = math.prod(shape[:-2])
    return taps * shape[-2], taps * shape[-1]


def resembles(own: Moments, *fans: Fans | None) -> str:
    """Return the name of the law, such as `"he_normal"`, or of its distribution and scale.

    The likeliest of the named laws, if it stays behind the best scale of any distribution by no
    more than chance; all that come as near, after the word `"ambiguous:"`. A law whose scale is 1 %
    off counts as it is. An orthogonal matrix resembles the normal law whose moments it has.

    Args:
        own: of the parameter.
        fans: fan_in and fan_out, in each way in which a framework may have counted them.

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
    if abs(own.mean) > CENTRED_SIGMAS / math.sqrt(own.size):
        mean = own.mean * 10 ** (own.log10_q / 2)
        return f"mean_{mean:.3g}_std_{math.sqrt(own.variance):.3g}"
    shapes: dict[Shape, float] = {
        shape: own.log_likelihood(shape, own.nearest(shape))
        for shape in ("uniform", "truncated_normal", "normal")
    }
    near = _near(own, fans, max(shapes.values()) - FAR)
    if near:
        return near[0] if len(near) == 1 else f"ambiguous: {' or '.join(near)}"
    shape = max(shapes, key=lambda name: shapes[name])
    scale = own.nearest(shape) * (TRUNCATED_STD if shape == "truncated_normal" else 1)
    return f"{shape}_{scale:.3g}"


def _near(own: Moments, fans: Sequence[Fans | None], least: float) -> list[str]:
    """Return the named laws that explain the elements best, the likeliest first."""
    found: dict[str, float] = {}
    for law in (law for pair in dict.fromkeys(fans) if pair for law in laws(*pair)):
        low, high = law.scale * (1 - SLACK), law.scale * (1 + SLACK)
        scale = min(max(own.nearest(law.shape), low), high)
        likelihood = own.log_likelihood(law.shape, scale)
        found[law.name] = max(found.get(law.name, -math.inf), likelihood)
    best = max(found.values(), default=-math.inf)
    near = [name for name, value in found.items() if value >= max(best - EQUAL, least)]
    return sorted(near, key=lambda name: -found[name])


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
        shape = parameters.shapes[number][parameters.stacked[number] :]
        for column, value in _row(own, shape, fans.get(name), float(log10_g)).items():
            columns.setdefault(column, []).append(value)
    return labels | {k: ("weight", np.array(v)) for k, v in columns.items()}


def _row(own: Moments, shape: tuple[int, ...], fans: Fans | None, log10_g: float) -> dict[str, Any]:
    counted = (fans, fans_by_shape(shape)) if fans else ()
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "log10_weight_q": own.log10_q,
            "log10_weight_sigma2": np.log10(own.variance * fans[0]) if fans else np.nan,
            "weight_fan_in": float(fans[0]) if fans else np.nan,
            "weight_law": resembles(own, *counted),
            "log10_gradient_q": log10_g,
            "log10_gradient_to_weight": np.float64(log10_g - own.log10_q) / 2,
        }
