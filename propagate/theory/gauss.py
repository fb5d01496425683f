r"""Gaussian expectations of any activation, in float64, with an error estimate.

$E f(\phi, \phi', \phi'')$ at $h = \sqrt q z$, $z \sim N(0, 1)$, by Gauss–Legendre quadrature on
panels that end at the kinks of $\phi$, where Gauss–Hermite would converge slowly, and that grow
geometrically around each, so that a feature of size 1 in h is seen at every q. For two correlated
arguments the pair is turned by 45°, so that $1-c$ enters as it is, never as a difference:

$$h_\pm = \sqrt q\left(\sqrt{1-\tfrac\epsilon2}\,z_1 \pm \sqrt{\tfrac\epsilon2}\,z_2\right),
\qquad \epsilon = 1 - c.$$

The same, with `dims`, for coordinates of a vector that is uniform on a sphere of radius
$\sqrt{\rm dims}$, which is what normalising makes of a Gaussian one; it is N(0, 1) again at inf.

JAX evaluates $\phi$ and its derivatives, in float64 whatever the user's flags; all else is NumPy.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.activations import Activation, activation
from propagate.types import Elementwise, UnusableInput

REACH = 13.0  # standard deviations, beyond which the density is below 1e-37
FARTHEST = 37.0  # the same for a phi that grows as e^h does: beyond it the density is no float64
UNSEEN = 1e-20  # of the largest phi^4 times density: what may be left out
ORDER = 20  # points in a panel
ORDERS = (14, 20, 40, 80)  # tried in turn until two agree
AGREED = 1e-12
AROUND = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # ends of panels in h, from each kink
WITHIN = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0, REACH)  # ends of panels in z
BEYOND = (16.0, 19.0, 22.0, 25.0, 28.0, 31.0, 34.0, FARTHEST)  # the same, where these matter
SEARCHED = 32.0  # kinks of a function of your own are looked for in [-SEARCHED, SEARCHED]


class Estimate(NamedTuple):
    """An integral and a bound on its error from a coarser rule."""

    value: float
    error: float


class Values(NamedTuple):
    """phi, phi' and phi'' at some h, and h itself."""

    phi: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    h: np.ndarray


Integrand = Callable[[np.ndarray, Values], np.ndarray]


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
    own = activation(phi)
    if not 0 <= q < math.inf:
        raise UnusableInput(f"q must be a second moment, 0 or more and finite, got {q}")
    value, error = refined(lambda order: average(own, f, np.array([q]), order))
    if not np.isfinite(value).all():
        raise UnusableInput(
            f"{own.name} is not finite, or beyond float64, within {FARTHEST:g} standard "
            f"deviations of q = {q:g}; theory needs E phi^2 to exist"
        )
    return Estimate(float(value[0]), float(error[0]))


def refined(average: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return averages that two orders agree on, and by how much they differ."""
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
    """Return E f at each q of an array, shape (Q,)."""
    root = np.sqrt(np.asarray(q, float))[:, None]
    z, weight = nodes(root, kinks(phi) + 0 * root, order, dims, reach(phi, root))
    with np.errstate(all="ignore"):  # what is not finite is the caller's to judge
        return np.sum(weight * f(z, evaluate(phi, root * z)), axis=-1)


def average_pair(
    phi: Activation,
    f: Callable[[Values, Values], np.ndarray],
    q: float,
    epsilon: float,
    order: int = ORDER,
    dims: float = math.inf,
    mean: float = 0.0,
) -> np.ndarray:
    """Return E f(values at mean + h_+, values at mean + h_-); epsilon = 1 - cosine, in [0, 2].

    f is symmetric in its two arguments; it may return several integrands, stacked in front.
    """
    apart, middle = (math.sqrt(q * share) for share in (epsilon / 2, 1 - epsilon / 2))
    own, far = _features(phi, mean), reach(phi, np.sqrt([[q]]))
    bends = np.append(own, _leaves(own, apart, middle, dims * q))
    outer, outer_weight = nodes(np.array([[apart]]), bends[None, :], order, dims, far)
    half = outer[0] > 0  # f is symmetric, so is the integrand in z_2
    outer, outer_weight = outer[0][half], 2 * outer_weight[0][half]
    delta = apart * outer[:, None]
    root = np.full_like(delta, middle)
    if dims < math.inf:  # the other coordinates share what this one leaves
        root *= np.sqrt(np.maximum(dims - outer[:, None] ** 2, 0) / (dims - 1))
    at = np.concatenate([own - delta, own + delta], axis=1)
    z, weight = nodes(root, at, order, dims - 1, far)
    h = mean + root * z
    inner = f(evaluate(phi, h + delta), evaluate(phi, h - delta))
    return np.asarray(np.sum(outer_weight * np.sum(weight * inner, axis=-1), axis=-1))


def _leaves(at: np.ndarray, apart: float, middle: float, square: float) -> np.ndarray:
    """Return the h_+ - h_- over 2 at which a kink leaves the sphere: the average bends there."""
    if math.isinf(square):
        return np.zeros(0)
    whole = math.hypot(apart, middle)
    far = np.sqrt(np.maximum(square - (at / whole) ** 2, 0)) * middle / whole * apart
    near = at * (apart / whole) ** 2
    return np.concatenate([near - far, near + far])


def nodes(
    root: np.ndarray,
    at: np.ndarray,
    order: int = ORDER,
    dims: float = math.inf,
    reach: float = REACH,
) -> tuple[np.ndarray, np.ndarray]:
    """Return points z and weights, the density included, for each row: shape (rows, points).

    Args:
        root: the scale of h, (rows, 1).
        at: kinks in h, (rows, kinks).
        order: points in a panel.
        dims: of the sphere of radius sqrt(dims) of which z is a coordinate, 2 or more.
        reach: where to end.
    """
    around = np.asarray(AROUND)
    ends = np.concatenate([-around[:0:-1], around])
    centres = np.concatenate([at, np.zeros((len(at), 1))], axis=1)
    in_h = (centres[:, :, None] + ends).reshape(len(at), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        in_z = np.where(root > 0, in_h / root, 0.0)
    within = np.asarray(WITHIN + (BEYOND if reach > REACH else ()))
    both = np.concatenate([-within[::-1], [0.0], within])
    edges = np.concatenate([in_z, both + 0 * root], axis=1)
    edges = np.sort(np.clip(edges, *(min(reach, math.sqrt(dims)) * np.array([-1, 1]))), axis=1)
    if math.isinf(dims):
        z, weight = _panels(edges, order)
        return z, weight * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    angle, weight = _panels(np.arcsin(np.clip(edges / math.sqrt(dims), -1, 1)), order, soft=True)
    weight *= np.cos(angle) ** (dims - 2)
    return math.sqrt(dims) * np.sin(angle), weight / weight.sum(axis=1, keepdims=True)


def _panels(edges: np.ndarray, order: int, soft: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss–Legendre points and weights on the panels between edges, row by row.

    `soft` is for square roots of the distance to an edge, which points next to it turn into lines.
    """
    x, w = _legendre(order)
    if soft:
        x, w = np.sin(math.pi / 2 * x), w * math.pi / 2 * np.cos(math.pi / 2 * x)
    width, middle = np.diff(edges, axis=1) / 2, (edges[:, 1:] + edges[:, :-1]) / 2
    points, weights = middle[..., None] + width[..., None] * x, width[..., None] * w
    return points.reshape(len(edges), -1), weights.reshape(len(edges), -1)


def reach(phi: Activation, root: np.ndarray) -> float:
    """Return how many standard deviations count: 13, or 37 if phi^4 still weighs something there.

    Such a phi grows as e^h does; what lies beyond 37 is beyond float64 too, and so comes out inf.
    """
    z = np.concatenate([np.linspace(-1, 1, 105) * REACH, BEYOND, -np.asarray(BEYOND)])
    with np.errstate(all="ignore"):
        value = evaluate(phi, float(np.max(root)) * z)
        size = 4 * np.log(np.maximum(abs(value.phi), abs(value.slope))) - z * z / 2
        beyond = np.max(size[105:]) - np.max(size[:105])
    return REACH if beyond < math.log(UNSEEN) else FARTHEST


@functools.cache
def _legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(order)


def mean_square(units: float, step: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    r"""Return values and weights of the mean of z^2 over n units, $\chi^2_n/n$.

    Its logarithm has a smooth density, over which sums converge at once.

    Args:
        units: n, above 2; it need not be whole.
        step: between values, in standard deviations of the logarithm.
    """
    sd = math.sqrt(2 / units)
    u = np.arange(-8 * sd - 80 / (units - 2), 8 * sd, step * sd)
    log = units / 2 * (u - np.exp(u))
    weight = np.exp(log - log.max())
    return np.exp(u), weight / weight.sum()


def evaluate(phi: Activation, h: np.ndarray) -> Values:
    """Return phi, phi' and phi'' at h in float64."""
    size = 1 << max(int(np.size(h)) - 1, 0).bit_length()  # few sizes, few compilations
    flat = np.zeros(size)
    flat[: np.size(h)] = np.ravel(h)
    with jax.enable_x64(True):
        values = _compiled(phi.fn)(flat)
    own, slope, bend = (np.asarray(v)[: np.size(h)].reshape(np.shape(h)) for v in values)
    return Values(own, slope, bend, np.asarray(h))


@functools.lru_cache(maxsize=256)
def _compiled(fn: Elementwise) -> Callable[[np.ndarray], tuple[jax.Array, ...]]:
    one = lambda h: jax.jvp(fn, (h,), (jnp.ones_like(h),))  # noqa: E731

    def three(h: jax.Array) -> tuple[jax.Array, ...]:
        (value, slope), (_, bend) = jax.jvp(one, (h,), (jnp.ones_like(h),))
        return value, slope, bend

    return jax.jit(three)


def kinks(phi: Activation) -> tuple[float, ...]:
    """Return where phi, phi' or phi'' jumps: as given, or else found in [-32, 32]."""
    return phi.kinks or _found(phi)


@functools.lru_cache(maxsize=256)
def _found(phi: Activation, step: float = 1 / 64) -> tuple[float, ...]:
    """Bisect each interval over which a derivative changes by more than its neighbours do."""
    grid = np.arange(-SEARCHED - 0.37 * step, SEARCHED, step)
    found: set[float] = set()
    for which in range(3):
        change = np.abs(np.diff(evaluate(phi, grid)[which]))
        usual = np.median(
            np.lib.stride_tricks.sliding_window_view(np.pad(change, 4, "edge"), 9), -1
        )
        for k in np.flatnonzero(change > 4 * usual + 1e-9):
            place = _bisect(phi, which, grid[k], grid[k + 1])
            if place is not None:
                found.add(round(float(place), 9) + 0.0)
    return tuple(sorted(found))


def _bisect(phi: Activation, which: int, low: float, high: float) -> float | None:
    """Return where a derivative jumps between two points; None if it does not."""
    first = last = math.inf
    while high - low > 1e-11 * max(1.0, abs(low)):
        ends = np.array([low, (low + high) / 2, high])
        value = evaluate(phi, ends)[which]
        left, right = abs(value[1] - value[0]), abs(value[2] - value[1])
        low, high = (low, ends[1]) if left >= right else (ends[1], high)
        last = max(left, right)
        first = last if first == math.inf else first
        if last < first / 8:  # a slope, not a jump: it shrinks with the interval
            return None
    return (low + high) / 2 if last > 1e-9 else None


def moments(
    phi: str | Activation | Elementwise, q: np.ndarray | float = 1.0, mean: float = 0.0
) -> dict[str, np.ndarray]:
    r"""Return expectations over $h \sim N(m, q)$ at each q, shape (Q,).

    `mean` E phi, `second` E phi^2, `variance` Var phi, `slope2` E phi'^2, `slope4` E phi'^4, and
    `growth`, $dE\phi^2/dq = E[\sqrt q z\phi\phi']/q$.
    """
    own, at = activation(phi), np.atleast_1d(np.asarray(q, float))
    root = np.sqrt(at)[:, None]
    z, weight = nodes(root, _features(own, mean)[None, :] + 0 * root, reach=reach(own, root))
    with np.errstate(all="ignore"):  # what is not finite is the caller's to judge
        return _averages(z, weight, root, evaluate(own, mean + root * z))


def _features(phi: Activation, mean: float) -> np.ndarray:
    """Return where panels end, from the mean: the kinks, and h = 0, which `nodes` has at mean 0."""
    own = np.asarray(kinks(phi))
    return own if not mean else np.append(own, 0.0) - mean


def _averages(
    z: np.ndarray, weight: np.ndarray, root: np.ndarray, value: Values
) -> dict[str, np.ndarray]:
    e = lambda y: np.sum(weight * y, axis=-1)  # noqa: E731
    mean = e(value.phi)
    return {
        "mean": mean,
        "second": e(value.phi**2),
        "variance": e((value.phi - mean[:, None]) ** 2),
        "slope2": e(value.slope**2),
        "slope4": e(value.slope**4),
        "growth": e(z * value.phi * value.slope) / np.where(root[:, 0] > 0, root[:, 0], np.nan),
    }
