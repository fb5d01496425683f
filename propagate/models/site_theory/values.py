r"""What mean-field theory knows of a value in a user's program.

Take `x = relu(h)` with `h = x0 @ W`. In the limit of wide layers h is Gaussian, so x is a function
of one Gaussian, and each of its moments is a sum over the points of a quadrature in h:

>>> h = gaussian(mean=0.0, second=2.0, node=0)  # h ~ N(0, 2), node 0 of the graph of gradients
>>> slope = (h.values > 0) * 1.0  # of relu, at each point
>>> x = replace(h, values=slope * h.values, derivatives={0: slope})
>>> round(x.second, 6)  # E relu(h)^2 = 2/2
1.0
>>> round(x.gradient_factors[0], 6)  # E relu'(h)^2
0.5

A residual branch is a function of another Gaussian. Of its sum with the skip two moments are known:

>>> branch = gaussian(mean=0.0, second=0.5, node=1)
>>> out = independent_sum(x, branch)
>>> round(out.second, 6), {node: round(factor, 6) for node, factor in out.gradient_factors.items()}
(1.5, {0: 0.5, 1: 1.0})

A value is one of four:

* a `Constant`: a number that all units share, as the mean over many units is in the limit;
* a `FunctionOfGaussian` f(h): its values and derivatives at the points of a quadrature in h;
* `Moments`: only the mean and the second moment are known, NaN where they are not;
* an array that does not depend on the data.

The gradient factor of a value y with respect to an earlier value h is

$$\frac{\sum (\partial L/\partial h)^2}{\sum (\partial L/\partial y)^2}, \qquad
E\,\phi'(h)^2 \text{ for } y = \phi(h),$$

with both sums over all elements. Factors along a chain multiply, those of several chains add.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from propagate.theory import gauss

KINKS = (0.0, -1.0, 1.0, -3.0, 3.0, 6.0)  # of the named activations: panels end there
POINTS = 8  # of a panel: a second moment is right to 1e-5 where a kink lies within one
LINEAR_RTOL = 1e-9  # rounding of a derivative that is the same everywhere

NEGLIGIBLE = 0.05
"""Share of a second moment that is left out: 0.021 decades. With weights of mean m it bounds
fan_in m^2/E W^2, by which sum_i m x_i adds to fan_in E W^2 E x^2 when all x_i are equal."""

CHANCE_SIGMAS = 5.0
"""Standard errors within which a mean or a kurtosis of drawn numbers is due to chance; a Gaussian
estimate is outside with probability 5.7e-7."""

GradientFactors = dict[int, float]  # by the number of an earlier node


@dataclass(frozen=True)
class Constant:
    """A number that all units share."""

    value: float


@dataclass(frozen=True, eq=False)
class FunctionOfGaussian:
    """A function f of one Gaussian h.

    Attributes:
        argument: stands for h. Two functions with the same argument are functions of the same h,
            so they combine point by point.
        quadrature: the weights of the points (P,), which sum to 1.
        values: f at the points (P,).
        derivatives: of f by each earlier node of the graph of gradients, at the points (P,).
        parent: the argument that h is a slice of along positions. Slices of one parent are not
            independent.
    """

    argument: object
    quadrature: np.ndarray
    values: np.ndarray
    derivatives: dict[int, np.ndarray]
    parent: object = None

    @property
    def mean(self) -> float:
        """E f."""
        return float(self.quadrature @ self.values)

    @property
    def second(self) -> float:
        """E f^2."""
        return float(self.quadrature @ np.square(self.values))

    @property
    def gradient_factors(self) -> GradientFactors:
        """E f'^2, by each earlier node."""
        return {k: float(self.quadrature @ np.square(v)) for k, v in self.derivatives.items()}

    @property
    def is_gaussian(self) -> bool:
        """Whether f is linear, so that f(h) is Gaussian too."""
        slope = next(iter(self.derivatives.values()), np.zeros(1))
        return bool(np.ptp(slope) <= LINEAR_RTOL * np.max(np.abs(slope)) and slope.any())


@dataclass(frozen=True, eq=False)
class Moments:
    """A value of which two moments are known.

    Attributes:
        mean: E y.
        second: E y^2.
        gradient_factors: by each earlier node.
        is_gaussian: whether y is Gaussian, as a sum over many units is. It then becomes a node
            and an argument of its own (`gaussian`).
    """

    mean: float
    second: float
    gradient_factors: GradientFactors = field(default_factory=dict)
    is_gaussian: bool = False


Random = FunctionOfGaussian | Moments
Value = Any  # Constant | FunctionOfGaussian | Moments | an array that does not depend on the data


def gaussian(mean: float, second: float, node: int) -> "FunctionOfGaussian | Moments":
    """Return a new argument h ~ N(mean, second - mean^2), as the identity function of itself.

    Args:
        mean: E h.
        second: E h^2.
        node: its number in the graph of gradients.

    Where a moment is NaN nothing but the moments is known.
    """
    if not math.isfinite(mean + second):
        return Moments(mean, second, {node: 1.0})
    std = math.sqrt(max(second - mean**2, 0.0))
    z, weights = gauss.nodes(np.array([[std]]), np.array([KINKS]) - mean, gauss.Rule(POINTS))
    derivatives = {node: np.ones(z.size)}
    return FunctionOfGaussian(object(), weights[0], mean + std * z[0], derivatives)


def gradient_factors(value: Value) -> GradientFactors:
    """Return the gradient factors of any value: none for a constant or an array."""
    return value.gradient_factors if isinstance(value, Random) else {}


def unknown(*operands: Value) -> Moments:
    """Return a result of which nothing is known but that its gradient goes to its operands."""
    return Moments(math.nan, math.nan, {k: math.nan for v in operands for k in gradient_factors(v)})


def is_data(value: Value) -> bool:
    """Return whether a value depends on the data."""
    return isinstance(value, (Constant, FunctionOfGaussian, Moments))


def common_element(value: Value) -> Any:
    """Return the number that all elements of a value are; None if they differ."""
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, Random) or jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return None
    flat = np.ravel(np.asarray(value))
    return flat[0] if flat.size and (flat == flat[0]).all() else None


def moments(value: Value) -> Moments:
    """Return the two moments of any value; of an array, over its elements."""
    if isinstance(value, Constant):
        return Moments(value.value, value.value**2)
    if isinstance(value, Random):
        return Moments(value.mean, value.second, value.gradient_factors)
    wide = np.asarray(value, np.float64)
    return Moments(float(wide.mean()), float(np.square(wide).mean()))


def scaled(value: Moments, factor: float, share: float = 1.0) -> Moments:
    """Return a y in a share s of the elements and 0 in the others: s a E y, s a^2 E y^2.

    Args:
        value: y.
        factor: a.
        share: s.
    """
    both = share * factor**2
    return Moments(
        share * factor * value.mean, both * value.second, _times(value.gradient_factors, both)
    )


def mixture(parts: Iterable[Moments]) -> Moments:
    """Return a value each element of which is one of several: sum s_k E y_k, sum s_k E y_k^2.

    Args:
        parts: each y_k, `scaled` with the share s_k of the elements that are its own.
    """
    mean = second = 0.0
    factors: GradientFactors = {}
    for own in parts:
        mean, second = mean + own.mean, second + own.second
        factors = _added(factors, own.gradient_factors)
    return Moments(mean, second, factors)


def independent_sum(a: Value, b: Value, sign: float = 1.0) -> Moments:
    """Return a + b, or a - b, of independent values: E (a ± b)^2 = E a^2 + E b^2 ± 2 E a E b."""
    one, two = moments(a), scaled(moments(b), sign)
    second = one.second + two.second + 2 * one.mean * two.mean
    return Moments(one.mean + two.mean, second, _added(one.gradient_factors, two.gradient_factors))


def independent_product(a: Value, b: Value) -> Moments:
    """Return a b of independent values: E a E b and E a^2 E b^2; a's gradient factor is E b^2."""
    one, two = moments(a), moments(b)
    factors = _added(
        _times(one.gradient_factors, two.second), _times(two.gradient_factors, one.second)
    )
    return Moments(one.mean * two.mean, one.second * two.second, factors)


def slice_of(value: Value, *, positions: bool) -> Value:
    """Return a slice of a value.

    Args:
        value: what it is a slice of.
        positions: whether it is taken along inputs or positions, whose slices are not
            independent. Units are.
    """
    if isinstance(value, Constant):
        return value
    if isinstance(value, FunctionOfGaussian):
        parent = (value.parent or value.argument) if positions else value.parent
        return replace(value, argument=object(), parent=parent)
    return unknown(value) if positions else replace(value, is_gaussian=False)


def independent(a: Value, b: Value) -> bool:
    """Return whether two values are taken to be independent: unless they share an argument."""
    arguments = [v.parent or v.argument for v in (a, b) if isinstance(v, FunctionOfGaussian)]
    return len(arguments) < 2 or arguments[0] is not arguments[1]


def _times(factors: GradientFactors, by: float) -> GradientFactors:
    return {k: v * by for k, v in factors.items()}


def _added(a: GradientFactors, b: GradientFactors) -> GradientFactors:
    return {k: a.get(k, 0.0) + b.get(k, 0.0) for k in a | b}
