r"""Gaussian expectations of any activation, in float64, with an error estimate.

One argument, $E f(\phi, \phi')$ at $h = \sqrt q z$, $z \sim N(0, 1)$: `average` for any f, `expect`
with an error, `moments` for those that theory needs most. Two correlated arguments
(`average_pair`) are turned by 45°, so that $\epsilon = 1-c$ enters as it is, never as a difference:

$$h_\pm = \sqrt q\left(\sqrt{1-\tfrac\epsilon2}\,z_1 \pm \sqrt{\tfrac\epsilon2}\,z_2\right).$$

With `dims`, $z$ is a coordinate of a vector that is uniform on a sphere of radius $\sqrt{\rm
dims}$, which is what normalising makes of a Gaussian vector; it is N(0, 1) again at dims = inf.

Points and weights are those of `quadrature`; `derivatives` evaluates $\phi$ and $\phi'$ at them.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from propagate.activations import Activation, activation
from propagate.theory.derivatives import Values as Values
from propagate.theory.derivatives import evaluate as evaluate
from propagate.theory.derivatives import evaluate_all as evaluate_all
from propagate.theory.derivatives import kinks as kinks
from propagate.theory.quadrature import (
    FARTHEST,
    FINEST,
    ORDER,
    fewer,
    leaves,
    octaves,
    panels,
    reach,
    sparse,
)
from propagate.theory.quadrature import Rule as Rule
from propagate.theory.quadrature import nodes as nodes
from propagate.types import Elementwise, UnusableInput

ORDERS = (14, 20, 40, 80)  # tried in turn until two agree
PROBED = np.array([0.0, 0.5, 1.5, 3.0])  # z_2 at which rules of fewer points are tried
AGREED = 1e-12
EXACT = 2e-15  # agreement that is asked of one argument, whose errors a deep stack grows


class Estimate(NamedTuple):
    """An integral and a bound on its error from a coarser rule."""

    value: float
    error: float


Integrand = Callable[[np.ndarray, Values], np.ndarray]
PairIntegrand = Callable[[Values, Values], np.ndarray]


def expect(phi: str | Activation | Elementwise, f: Integrand, q: float = 1.0) -> Estimate:
    r"""Return $E f(z, \phi(\sqrt q z))$.

    Args:
        phi: an activation, a name or any function.
        f: of z and the `Values` of phi there, elementwise.
        q: the second moment of h, not negative.

    Raises:
        UnusableInput: q is negative, or phi is not finite on the way.

    Example:
        >>> expect("relu", lambda z, at: at.phi**2).value
        0.5
    """
    phi = activation(phi)
    if not 0 <= q < math.inf:
        raise UnusableInput(f"q must be a second moment, 0 or more and finite, got {q}")
    value, error = refined(lambda order: average(phi, f, np.array([q]), order))
    if not np.isfinite(value).all():
        raise UnusableInput(
            f"{phi.name} is not finite, or beyond float64, within {FARTHEST:g} standard "
            f"deviations of q = {q:g}; theory needs E phi^2 to exist"
        )
    return Estimate(float(value[0]), float(error[0]))


def refined(average: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    r"""Return an average and a bound on its error, $|A_{\rm order} - A_{\rm coarser}|$ + rounding.

    Args:
        average: A, of the points in a panel; `ORDERS` are tried until two agree to `AGREED`.
    """
    fine, error = np.asarray(math.nan), np.asarray(math.inf)
    for order in ORDERS:
        coarse, fine = fine, average(order)
        with np.errstate(invalid="ignore"):
            error = abs(fine - coarse)
            if (error <= AGREED * np.max(abs(fine))).all() or not np.isfinite(fine).all():
                break
    return fine, error + 4 * np.finfo(float).eps * abs(fine)


def average(
    phi: Activation, f: Integrand, q: np.ndarray, order: int = ORDER, dims: float = math.inf
) -> np.ndarray:
    r"""Return $E f(z, \phi(\sqrt q z))$ at each q of an array, shape (Q,)."""
    sqrt_q = np.sqrt(np.asarray(q, float))[:, None]
    far = reach(phi, float(np.max(sqrt_q)))
    z, weight = nodes(sqrt_q, kinks(phi) + 0 * sqrt_q, Rule(order), dims, far)
    with np.errstate(all="ignore"):  # what is not finite is the caller's to judge
        return _weighted(weight, f(z, evaluate(phi, sqrt_q * z)))


def _weighted(weight: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sums of weight·y over the last axis, correctly rounded where NumPy can.

    A q-map that is steep grows the last digit from layer to layer.
    """
    return np.sum(weight.astype(np.longdouble) * y, axis=-1).astype(float)


def moments(
    phi: str | Activation | Elementwise, q: np.ndarray | float = 1.0, mean: float = 0.0
) -> dict[str, np.ndarray]:
    r"""Return expectations over $h = m + \sqrt q z$ at each q.

    Args:
        phi: an activation, a name or any function.
        q: variances of h, a number or an array of shape (Q,).
        mean: m.

    Returns:
        Each of shape (Q,): `mean` $E\phi$, `second` $E\phi^2$, `fourth` $E\phi^4$, `variance`
        $\operatorname{Var}\phi$, `slope2` $E\phi'^2$, `slope4` $E\phi'^4$, `mixed`
        $E\phi^2\phi'^2$, and `growth`, $dE\phi^2/dq = E[z\phi\phi']/\sqrt q$, by Stein's lemma.
    """
    phi = activation(phi)
    points = moment_points(phi, q, mean)
    return points.moments(evaluate(phi, points.h))


class MomentPoints(NamedTuple):
    """Where `moments` looks at phi; each of shape (Q, points), the scale (Q, 1)."""

    h: np.ndarray
    z: np.ndarray
    weight: np.ndarray
    scale: np.ndarray

    def moments(self, at: Values) -> dict[str, np.ndarray]:
        """Return `moments`, from phi at h."""
        e = lambda y: _weighted(self.weight, y)  # noqa: E731
        with np.errstate(all="ignore"):  # what is not finite is the caller's to judge
            phi2, slope2, e_phi = at.phi**2, at.slope**2, e(at.phi)
            lean = e(self.z * at.phi * at.slope)
            return {
                "mean": e_phi,
                "second": e(phi2),
                "fourth": e(phi2**2),
                "variance": e((at.phi - e_phi[:, None]) ** 2),
                "slope2": e(slope2),
                "slope4": e(slope2**2),
                "mixed": e(phi2 * slope2),
                "growth": lean / np.where(self.scale > 0, self.scale, np.nan)[:, 0],
            }


def moment_points(phi: Activation, q: np.ndarray | float, mean: float = 0.0) -> MomentPoints:
    """Return where `moments` looks at phi."""
    scale = np.sqrt(np.atleast_1d(np.asarray(q, float)))[:, None]
    far = reach(phi, float(np.max(scale)))
    alike = np.max(scale) ** 2 <= 2 * np.min(scale) ** 2
    rule = _enough(phi, octaves(np.max(q)), octaves(0), mean, EXACT) if alike else FINEST
    z, weight = nodes(scale, _features(phi, mean)[None, :] + 0 * scale, rule, reach=far)
    with np.errstate(all="ignore"):
        return MomentPoints(mean + scale * z, z, weight, scale)


def _features(phi: Activation, mean: float) -> np.ndarray:
    """Return where panels end, from the mean: the kinks, and h = 0, which `nodes` has at mean 0."""
    at = np.asarray(kinks(phi))
    return at if not mean else np.append(at, 0.0) - mean


def average_pair(
    phi: Activation,
    f: PairIntegrand,
    q: float,
    epsilon: float,
    order: int | None = None,
    dims: float = math.inf,
    mean: float = 0.0,
) -> np.ndarray:
    r"""Return $E f$ of phi at two correlated arguments, $m + h_+$ and $m + h_-$.

    $h_\pm = \sqrt q(\sqrt{1-\epsilon/2}\,z_1 \pm \sqrt{\epsilon/2}\,z_2)$; an inner average over
    $z_1$ stands in an outer one over $z_2$.

    Args:
        phi: an activation.
        f: of the `Values` at both arguments, symmetric in them; several integrands may be stacked
            in front.
        q: second moment of each $h_\pm$.
        epsilon: 1 - c, in [0, 2].
        order: points in a panel; by default the rule of fewest points that the inner average needs.
        dims: of the sphere that $(z_1, z_2)$ are coordinates of; inf for independent N(0, 1).
        mean: m.

    Returns:
        The average, shape (), or those of the stacked integrands.
    """
    points = pair_points(phi, q, epsilon, order, dims, mean)
    return points.average(f, evaluate(phi, points.h))


class PairPoints(NamedTuple):
    r"""Where `average_pair` looks at phi.

    Attributes:
        h: $h_+$ and $h_-$, shape (2, rows, points).
        inner: weights within a row, shape (rows, points) or (1, points).
        outer: weights of the rows, shape (rows,).
    """

    h: np.ndarray
    inner: np.ndarray
    outer: np.ndarray

    def average(self, f: PairIntegrand, at: Values) -> np.ndarray:
        """Return the average of f, from phi at h."""
        return np.asarray(np.sum(self.outer * self.rows(f, at), axis=-1))

    def rows(self, f: PairIntegrand, at: Values) -> np.ndarray:
        """Return the averages of f over z_1, row by row."""
        plus, minus = (Values(*(values[k] for values in at)) for k in (0, 1))
        return np.sum(self.inner * f(plus, minus), axis=-1)


def pair_points(
    phi: Activation,
    q: float,
    epsilon: float,
    order: int | None = None,
    dims: float = math.inf,
    mean: float = 0.0,
) -> PairPoints:
    """Return where `average_pair` looks at phi; its arguments."""
    if phi.homogeneous and not mean and math.isinf(dims):
        return _polar(q, epsilon, order or ORDER)
    rule = Rule(order) if order else _enough(phi, octaves(q), octaves(epsilon), mean)
    features, far = _features(phi, mean), reach(phi, math.sqrt(q))
    apart, middle = _scales(q, epsilon)
    # the inner average bends where a kink of h_+ meets one of h_-: at half of their distance
    meetings = np.unique(np.subtract.outer(features, features) / 2)
    bends = np.append(meetings, leaves(features, apart, middle, dims * q))
    z_2, weight = nodes(np.array([[apart]]), bends[None, :], rule, dims, far)
    half = z_2[0] > 0  # f is symmetric, so is the inner average in z_2
    inner = _inner(phi, z_2[0][half], q, epsilon, rule, dims, mean)
    return inner._replace(outer=2 * weight[0][half])


def _scales(q: float, epsilon: float) -> tuple[float, float]:
    r"""Return $\sqrt{q\epsilon/2}$ and $\sqrt{q(1-\epsilon/2)}$, the scales of z_2 and z_1 in h."""
    return math.sqrt(q * epsilon / 2), math.sqrt(q * (1 - epsilon / 2))


def _inner(
    phi: Activation,
    z_2: np.ndarray,
    q: float,
    epsilon: float,
    rule: Rule,
    dims: float = math.inf,
    mean: float = 0.0,
) -> PairPoints:
    """Return a row of points over z_1 at each z_2, of equal weights."""
    features, (apart, middle) = _features(phi, mean), _scales(q, epsilon)
    delta = apart * z_2[:, None]
    scale = np.full_like(delta, middle)
    if dims < math.inf:  # the other coordinates share what this one leaves
        scale *= np.sqrt(np.maximum(dims - z_2[:, None] ** 2, 0) / (dims - 1))
    centres = np.concatenate([features - delta, features + delta], axis=1)
    z_1, weight = nodes(scale, centres, rule, dims - 1, reach(phi, math.sqrt(q)))
    h = mean + scale * z_1
    return PairPoints(np.stack([h + delta, h - delta]), weight, np.ones(len(z_2)))


@functools.lru_cache(maxsize=4096)
def _enough(
    phi: Activation, q_octaves: int, epsilon_octaves: int, mean: float, agreed: float = AGREED
) -> Rule:
    r"""Return the first rule of fewer points that gives what the finest does, or the finest.

    Of the inner averages of $\phi_1^2\phi_2^2$ and $\phi_1'^2\phi_2'^2$ at `PROBED`, for all q and
    epsilon of one octave. Beyond epsilon = 1 it is z_2 that has the larger scale in h: that scale
    is tried, and panels between kinks are not fewer.
    """
    epsilon = min(2.0**epsilon_octaves, 2.0)
    at = 2.0**q_octaves, min(epsilon, 2 - epsilon)
    squares = lambda a, b: np.stack([(a.phi * b.phi) ** 2, (a.slope * b.slope) ** 2])  # noqa: E731

    def inner(rule: Rule) -> np.ndarray:
        points = _inner(phi, PROBED, *at, rule, mean=mean)
        return points.rows(squares, evaluate(phi, points.h))

    with np.errstate(all="ignore"):  # what is not finite agrees with nothing
        fine = inner(FINEST)
        near = agreed * np.max(abs(fine), axis=-1, keepdims=True)
        tried = fewer(bool(kinks(phi)), epsilon)
        return next((rule for rule in tried if (abs(inner(rule) - fine) <= near).all()), FINEST)


def _polar(q: float, epsilon: float, order: int) -> PairPoints:
    r"""Return the points for a positively homogeneous phi, whose kink at 0 lies on rays.

    Derived here: $h_\pm = -\sqrt q\,r\sin(\theta \mp \alpha)$ with $\sin\alpha =
    \sqrt{\epsilon/2}$ and density $r e^{-r^2/2}/\pi$ on $\theta \in [-\pi/2, \pi/2]$, of which the
    other half of the circle is the mirror image; kinks are at $\theta = \pm\alpha$.
    """
    alpha = math.asin(math.sqrt(epsilon / 2))
    ends = np.array([[-math.pi / 2, -alpha, alpha, math.pi / 2]])
    theta, weight = panels(ends, order)
    z, density = nodes(np.array([[math.sqrt(q)]]), np.zeros((1, 0)), sparse(order))
    r, outer = z[z > 0][:, None], (density * z)[z > 0] * math.sqrt(2 / math.pi)
    h = [-math.sqrt(q) * r * np.sin(theta - turn) for turn in (alpha, -alpha)]
    return PairPoints(np.stack(h), weight, outer)
