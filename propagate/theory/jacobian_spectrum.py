r"""What free probability expects of the squared singular values of a deep stack's Jacobian.

For L layers at a fixed point $J J^T$ is a free product (Pennington et al., 2017, 2018; Tao, 2011),
whose spectrum has mean $\chi_1^L$, relative variance $L(\mu_2/\mu_1^2 - 1 - s_1)$ with
$\mu_k = E\phi'^{2k}$ and $s_1 = -1$ for Gaussian weights, 0 for orthogonal ones. With

$$y = E\frac{\phi'^2}{z - \phi'^2},\qquad
\lambda = \frac{1+y}{y}\,(\sigma_w^2\,y\,z)^L \text{ (Gaussian)},\quad
\frac{1+y}{y}\left(\frac{\sigma_w^2\,y\,z}{1+y}\right)^L \text{ (orthogonal)},$$

its upper edge is the least $\lambda$ over $z > \sup\phi'^2$, and the density of $\ln\lambda$ is
$-\operatorname{Im} y/\pi$ at the z of the upper half-plane for which $\lambda$ is real.

`spectrum` gives mean, variance and edge, `density` the whole curve. Both hold the distribution of
$\phi'^2$ as points and weights (`_SquaredSlopes`), of which y is a sum. Pennington et al. (2017),
arXiv:1711.04735; (2018), arXiv:1802.09979.
"""

import math
from typing import NamedTuple

import numpy as np

from propagate.activations import Activation, ActivationLike, activation
from propagate.checks import check_count
from propagate.theory import gauss
from propagate.theory.derivatives import evaluate, kinks
from propagate.theory.quadrature import ORDER, REACH, Rule, nodes
from propagate.types import UnusableInput

FAR = 1e6  # where phi' is looked at, which may be unbounded
ISOMETRIC = 1.0  # relative variance of squared singular values, below which all are of one size
POINTS = 300  # of a density
FALLEN = 16.0  # e-folds that it is followed down, for each layer
FINER = 40  # points in a panel: z comes close to the slopes
WHOLE = 0.01  # of a density's mass and mean, by which it may be off before it is refused


class Spectrum(NamedTuple):
    """What free probability expects of the squared singular values of L layers.

    Attributes:
        mean: of the squares, chi_1^L.
        variance: of the squares, divided by the squared mean.
        edge: the largest square, in the limit of wide layers; inf if phi' is unbounded.
    """

    mean: float
    variance: float
    edge: float

    @property
    def isometric(self) -> bool:
        """Dynamical isometry: squared singular values spread by less than their mean."""
        return self.variance < ISOMETRIC


class Density(NamedTuple):
    """The density of squared singular values over their logarithm.

    Attributes:
        log10_square: places, decreasing from the edge.
        per_decade: share of the values in a decade.
        zeros: share of the values that are exactly zero.
    """

    log10_square: np.ndarray
    per_decade: np.ndarray
    zeros: float


class _SquaredSlopes(NamedTuple):
    """The distribution of phi'^2 as points and weights, and the layers that it is in."""

    squares: np.ndarray
    weight: np.ndarray
    depth: int
    sigma_w2: float
    orthogonal: bool

    def log_square(self, z: complex) -> tuple[complex, complex, complex]:
        r"""Return y, $\ln\lambda$ and $d\ln\lambda/d\ln z$ at z.

        $\dot y = dy/d\ln z = -zE[\phi'^2/(z-\phi'^2)^2]$, and $d\ln\lambda/d\ln z = \dot y/(1+y) -
        \dot y/y + L(1 + \dot y/y\,[-\,\dot y/(1+y)])$, in brackets for orthogonal weights.
        """
        away = z - self.squares
        y = complex(np.sum(self.weight * self.squares / away))
        dy = -complex(np.sum(self.weight * self.squares / away**2)) * z
        factor = self.sigma_w2 * y * z / (1 + y if self.orthogonal else 1)
        log_lambda = np.log((1 + y) / y) + self.depth * np.log(factor)
        of_layer = 1 + dy / y - (dy / (1 + y) if self.orthogonal else 0)
        return y, complex(log_lambda), dy / (1 + y) - dy / y + self.depth * of_layer


def spectrum(
    phi: ActivationLike, depth: int, sigma_w2: float, *, q: float = 1.0, orthogonal: bool = False
) -> Spectrum:
    r"""Return the spectrum that L layers at second moment q have in the limit of large width.

    Mean $(\sigma_w^2\mu_1)^L$, relative variance $L(\mu_2/\mu_1^2 - 1 - s_1)$, $\mu_k =
    E\phi'^{2k}$, and edge $\min_{z>\sup\phi'^2}\lambda(z)$. Pennington et al. (2018),
    arXiv:1802.09979.

    Args:
        phi: an activation.
        depth: L.
        sigma_w2: variance of a weight, times fan_in.
        q: second moment of the pre-activations, in every layer.
        orthogonal: whether weights are orthogonal times sigma_w rather than Gaussian.

    Raises:
        UnusableInput: depth is not a count, or q or sigma_w2 is not positive and finite.

    Example:
        >>> spectrum("identity", 8, 1.0).variance, round(spectrum("identity", 1, 1.0).edge, 6)
        (8.0, 4.0)
    """
    phi = activation(phi)
    check_count("depth", depth)
    if not (0 < q < math.inf and 0 < sigma_w2 < math.inf):
        raise UnusableInput(f"q and sigma_w2 must be positive, got {q} and {sigma_w2}")
    at = gauss.moments(phi, q)
    mu_1, mu_2 = float(at["slope2"][0]), float(at["slope4"][0])
    spread = mu_2 / mu_1**2 - (1 if orthogonal else 0)
    edge = math.inf
    if _bounded(phi, q):
        edge = _exp(_log_edge(_squared_slopes(phi, depth, sigma_w2, q, orthogonal, ORDER)))
    return Spectrum(_exp(depth * math.log(sigma_w2 * mu_1)), depth * spread, edge)


def _squared_slopes(
    phi: Activation, depth: int, sigma_w2: float, q: float, orthogonal: bool, order: int
) -> _SquaredSlopes:
    r"""Return $\phi'(\sqrt q z)^2$ at the points of a quadrature over z ~ N(0, 1), with weights."""
    sqrt_q = np.array([[math.sqrt(q)]])
    z, weight = nodes(sqrt_q, np.asarray(kinks(phi))[None, :], Rule(order))
    squares = evaluate(phi, sqrt_q * z).slope ** 2
    return _SquaredSlopes(squares[0], weight[0], depth, sigma_w2, orthogonal)


def _bounded(phi: Activation, q: float) -> bool:
    """Return whether phi'^2 is no larger far away than 1.5 times where h is."""
    near = math.sqrt(q) * np.linspace(-REACH, REACH, 1001)
    far = FAR * (1 + math.sqrt(q)) * np.array([-1.0, 1.0])
    return bool(
        (evaluate(phi, far).slope ** 2).max() <= 1.5 * (evaluate(phi, near).slope ** 2).max()
    )


def _log_edge(slopes: _SquaredSlopes) -> float:
    r"""Return the least $\ln\lambda(z)$ over $z = \sup\phi'^2\,(1 + e^u)$."""
    from scipy.optimize import minimize_scalar  # slow to load

    top = float(slopes.squares.max())

    def log_edge(log_above: float) -> float:
        r"""Return $\ln\lambda$ at $z = \sup\phi'^2\,(1 + e^u)$, u = log_above."""
        return slopes.log_square(top * (1 + math.exp(log_above)))[1].real

    found = minimize_scalar(
        log_edge, bounds=(-32.0, 25.0), method="bounded", options={"xatol": 1e-10}
    )
    return min(float(found.fun), log_edge(-32.0))


def _exp(log: float) -> float:
    """Return e^log, inf beyond float64."""
    return math.exp(log) if log < 709 else math.inf


def density(
    phi: ActivationLike, depth: int, sigma_w2: float, *, q: float = 1.0, orthogonal: bool = False
) -> Density:
    r"""Return the density of the squared singular values that `spectrum` is of.

    $-\operatorname{Im} y(z)/\pi$ at the z with $\lambda(z)$ real: from above the edge z is followed
    a little off the real axis of lambda, by Newton's steps, and brought down to it at each place.

    Args:
        phi: the activation: a name, an `Activation` or a function.
        depth: L.
        sigma_w2: fan_in times the variance of a weight.
        q: second moment of the pre-activations.
        orthogonal: whether weights are orthogonal rather than Gaussian.

    Raises:
        UnusableInput: as `spectrum`; or there is no density that can be followed: phi' is
            unbounded, or all singular values are the same, or nearly so in one layer.

    Example:
        >>> found = density("relu", 4, 2.0)
        >>> round(float(10 ** found.log10_square[0]), 2), round(found.zeros, 6)
        (21.86, 0.5)
    """
    phi = activation(phi)
    whole = spectrum(phi, depth, sigma_w2, q=q, orthogonal=orthogonal)
    if not whole.edge < math.inf or whole.variance < 1e-9:
        raise UnusableInput("there is no density: phi' is unbounded, or all values are the same")
    slopes = _squared_slopes(phi, depth, sigma_w2, q, orthogonal, FINER)
    spread = math.sqrt(math.log1p(whole.variance))
    near, reach = spread / 2, FALLEN * (depth + 1)  # a share x of the values is below x^(L+1)
    logs = math.log(whole.edge) - near * np.sinh(np.linspace(0, math.asinh(reach / near), POINTS))
    y = _followed(slopes, logs, spread / 20)
    shares = np.maximum(-np.imag(y), 0) / math.pi
    zeros = float(slopes.weight[slopes.squares == 0].sum())
    mass, mean = (-float(np.trapezoid(shares * w, logs)) for w in (1.0, np.exp(logs)))
    if not abs(mass + zeros - 1) + abs(mean / whole.mean - 1) < WHOLE:
        raise UnusableInput(f"the density of {phi.name} could not be followed at depth {depth}")
    return Density(logs / math.log(10), shares * math.log(10), zeros)


def _followed(slopes: _SquaredSlopes, logs: np.ndarray, off: float) -> np.ndarray:
    """Return y at each ln of lambda, decreasing from the edge.

    Args:
        slopes: the distribution of phi'^2.
        logs: ln of lambda, shape (points,).
        off: the imaginary part of ln of lambda along which z is followed, before it is brought
            down to 1e-5 of that.
    """
    log_z = complex(math.log(1e4 * slopes.squares.max()))
    high = slopes.log_square(np.exp(log_z))[1].real
    for log in np.linspace(high, logs[0], 50):
        log_z = _newton(slopes, log_z, log + off * 1j)
    found = []
    for log in logs:
        log_z = _newton(slopes, log_z, log + off * 1j)
        close = log_z
        for part in (0.2, 0.04, 1e-3, 1e-5):
            close = _newton(slopes, close, log + part * off * 1j)
        found.append(slopes.log_square(np.exp(close))[0])
    return np.array(found)


def _newton(slopes: _SquaredSlopes, log_z: complex, target: complex) -> complex:
    r"""Return ln z at which $\ln\lambda$ is the target, by damped Newton's steps."""
    for _ in range(30):
        _, log_lambda, derivative = slopes.log_square(np.exp(log_z))
        step = (log_lambda - target) / derivative
        log_z -= step / max(1.0, 2 * abs(step))
        if abs(step) < 1e-12:
            break
    return log_z
