r"""Mean-field theory of wide random networks: maps, fixed points, criticality, depth scales.

For $W_{ij} \sim (0, \sigma_w^2/n)$, $b_i \sim (0, \sigma_b^2)$ and dropout that keeps a share
$\rho$, at infinite width (Poole et al., 2016; Schoenholz et al., 2017):

$$q' = \tfrac{\sigma_w^2}{\rho} E\phi(\sqrt q z)^2 + \sigma_b^2,\quad
\chi_1 = \tfrac{\sigma_w^2}{\rho} E\phi'(\sqrt q z)^2,\quad
\chi_\parallel = \tfrac{dq'}{dq},\quad
q'(1-c') = \sigma_w^2\left[\left(\tfrac1\rho - 1\right)E\phi^2 + \tfrac12
E(\phi(h_+) - \phi(h_-))^2\right].$$

It is $1-c$ that is followed, which keeps its digits as $c \to 1$. A gradient's second moment is
multiplied by $\chi_1$ in each layer on its way back.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from propagate import gauss
from propagate.activations import Activation, activation
from propagate.types import Elementwise, UnusableInput

Phi = str | Activation | Elementwise
GRID = np.geomspace(1e-8, 1e8, 641)  # of second moments, on which roots are bracketed
SPARSE = GRID[::80]  # the same, to see whether a map is a line
FLAT = 1e-9  # a relative change of a map that is rounding
MARGINAL = 1e-7  # of a slope around 1
SMALL_Q = 1e-6  # where a map is looked at for its behaviour next to zero


class Gain(NamedTuple):
    r"""Factors that keep a unit Gaussian's size through phi.

    Attributes:
        second_moment: $1/\sqrt{E\phi^2}$, for independent weights of variance gain²/fan_in.
        variance: $1/\sqrt{\operatorname{Var}\phi}$, for weights that are centred (scaled weight
            standardisation, Brock et al., 2021) or followed by batch normalisation.
    """

    second_moment: float
    variance: float


class CriticalPoint(NamedTuple):
    r"""A point on the edge of chaos, $\chi_1 = 1$.

    Attributes:
        sigma_w2: the variance of a weight, times fan_in.
        sigma_b2: the variance of a bias.
        q: the second moment that stays; 0 if it is the limit q → 0, 1 if every q stays.
        chi_par: the slope of the q-map there.
        stable: whether the signal returns to q when pushed away from it, or stays where pushed.
    """

    sigma_w2: float
    sigma_b2: float
    q: float
    chi_par: float
    stable: bool


class CriticalPoints(list[CriticalPoint]):
    """Every critical point; `reason` says why there is none."""

    reason: str = ""


@dataclass(frozen=True)
class FixedPoint:
    r"""Where the q-map, and with it the c-map, stays.

    Attributes:
        q: the second moment.
        chi_1: the factor on a gradient's second moment in a layer.
        chi_par: the slope of the q-map.
        one_minus_c: of the correlation to which two inputs tend; NaN at q = 0, where it stays.
        slope: of the c-map there.
    """

    q: float
    chi_1: float
    chi_par: float
    one_minus_c: float
    slope: float

    @property
    def stable(self) -> bool:
        """Whether the q-map returns to q."""
        return abs(self.chi_par) < 1 - MARGINAL

    @property
    def c(self) -> float:
        """The correlation to which two inputs tend."""
        return 1 - self.one_minus_c

    @property
    def xi_q(self) -> float:
        """Depth scale of q in layers, -1/ln|chi_par|."""
        return _scale(abs(self.chi_par))

    @property
    def xi_c(self) -> float:
        """Depth scale of the correlation in layers, -1/ln(slope of the c-map)."""
        return _scale(self.slope)

    @property
    def xi_grad(self) -> float:
        """Depth scale of the gradient in layers, -1/ln(chi_1); negative if it explodes."""
        return _scale(self.chi_1)

    @property
    def trainable_depth(self) -> float:
        """6 xi_c, up to which depth a network trains (Schoenholz et al., 2017)."""
        return 6 * self.xi_c


def _scale(factor: float) -> float:
    if factor <= 0:
        return 0.0
    return -1 / math.log(factor) if factor != 1 else math.inf


def gain(phi: Phi) -> Gain:
    r"""Return $1/\sqrt{E\phi^2}$ and $1/\sqrt{\operatorname{Var}\phi}$ for a unit Gaussian.

    Example:
        >>> gain("relu").second_moment
        1.41421356...
    """
    at = gauss.moments(usable(phi))
    with np.errstate(divide="ignore"):
        return Gain(*(float(1 / np.sqrt(at[name][0])) for name in ("second", "variance")))


def q_map(phi: Phi, sigma_w2: float, sigma_b2: float, q: float, keep: float = 1.0) -> float:
    """Return the second moment after a layer."""
    return float(sigma_w2 / keep * gauss.moments(phi, q)["second"][0] + sigma_b2)


def c_map(
    phi: Phi, sigma_w2: float, sigma_b2: float, q: float, one_minus_c: float, keep: float = 1.0
) -> float:
    """Return 1 - c after a layer that takes q to q'."""
    own = activation(phi)
    second = float(gauss.moments(own, q)["second"][0])
    apart = float(gauss.average_pair(own, lambda a, b: (a.phi - b.phi) ** 2, q, one_minus_c))
    return weighted(sigma_w2, sigma_b2, second, apart / 2, keep)[1]


def weighted(
    sigma_w2: float, sigma_b2: float, second: float, apart: float, keep: float = 1.0
) -> tuple[float, float]:
    """Return q and 1 - c after dropout and weights.

    Args:
        sigma_w2: the variance of a weight, times fan_in.
        sigma_b2: the variance of a bias.
        second: E x^2 of what comes in.
        apart: half the mean squared difference of two inputs' x.
        keep: the share that dropout keeps.
    """
    lost = sigma_w2 * ((1 / keep - 1) * second + apart)
    after = sigma_w2 / keep * second + sigma_b2
    return after, lost / after if after else math.nan


def fixed_points(
    phi: Phi, sigma_w2: float, sigma_b2: float, keep: float = 1.0
) -> tuple[FixedPoint, ...]:
    r"""Return every fixed point of the q-map in [1e-8, 1e8], and zero if it is one.

    Where every q stays, as for He's ReLU, the one at q = 1 stands for all of them.

    Raises:
        UnusableInput: a variance is negative or not finite, or `keep` is not in (0, 1].

    Example:
        >>> point, = fixed_points("tanh", 1.7, 0.05)
        >>> point.xi_c
        74.9182...
    """
    own = usable(phi)
    check_variances(sigma_w2=sigma_w2, sigma_b2=sigma_b2)
    check_keep(keep)
    sw2 = sigma_w2 / keep

    def excess(q: np.ndarray) -> np.ndarray:
        return sw2 * gauss.moments(own, q)["second"] / q + sigma_b2 / q - 1

    found = _roots(excess)
    if np.all(np.abs(excess(SPARSE)) < FLAT):
        found = [1.0]
    elif not sigma_b2 and (not sigma_w2 or not _at_zero(own)[0]):
        found.insert(0, 0.0)
    return tuple(_fixed(own, sigma_w2, sigma_b2, q, keep) for q in found)


def _fixed(phi: Activation, sigma_w2: float, sigma_b2: float, q: float, keep: float) -> FixedPoint:
    at = _at(phi, q or SMALL_Q**2)
    chi_1, chi_par = (sigma_w2 / keep * at[k] for k in ("slope2", "growth"))
    if not q:
        chi_1 = chi_par = sigma_w2 / keep * _at_zero(phi)[1]
    apart = _apart(phi, sigma_w2, sigma_b2, q, keep, chi_1) if q else 0.0
    both = lambda a, b: a.slope * b.slope  # noqa: E731
    slope = sigma_w2 * float(gauss.average_pair(phi, both, q, apart)) if apart else chi_1 * keep
    if not q:  # c goes on as it is: what q loses, the covariance loses too
        apart, slope = math.nan, keep
    return FixedPoint(q, chi_1, chi_par, apart, slope)


def _apart(
    phi: Activation, sigma_w2: float, sigma_b2: float, q: float, keep: float, chi_1: float
) -> float:
    """Return 1 - c at the stable fixed point of the c-map, which is convex on [0, 1]."""
    if keep == 1 and chi_1 <= 1 + 1e-12:
        return 0.0

    def excess(log_apart: float) -> float:
        apart = math.exp(log_apart)
        return c_map(phi, sigma_w2, sigma_b2, q, apart, keep) / apart - 1

    low, high = math.log(1e-14), 0.0
    if excess(high) >= -1e-13:
        return 1.0
    if excess(low) <= 0:
        return 0.0
    return math.exp(_root(excess, low, high))


def critical(phi: Phi, sigma_b2: float = 0.05) -> CriticalPoints:
    r"""Return every (sigma_w², sigma_b²) on the edge of chaos, where $q$ stays and $\chi_1 = 1$.

    There $q - E\phi^2/E\phi'^2 = \sigma_b^2$ and $\sigma_w^2 = 1/E\phi'^2$.

    Raises:
        UnusableInput: sigma_b2 is negative or not finite.

    Example:
        >>> critical("tanh", 0.05)[0].sigma_w2
        1.76095463...
        >>> critical("softplus").reason
        "no q >= 0.05 has q - E phi^2/E phi'^2 = sigma_b^2 = 0.05 for softplus"
    """
    own = usable(phi)
    check_variances(sigma_b2=sigma_b2)

    def excess(q: np.ndarray) -> np.ndarray:
        at = gauss.moments(own, q)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - at["second"] / at["slope2"] / q - sigma_b2 / q

    points = CriticalPoints()
    if not sigma_b2:
        points += _at_the_origin(own)
    flat = bool(points) and points[0].q == 1
    for q in [] if flat else _roots(excess):
        at = _at(own, q)
        chi_par = at["growth"] / at["slope2"]
        points.append(CriticalPoint(1 / at["slope2"], sigma_b2, q, chi_par, abs(chi_par) < 1))
    if not points:
        points.reason = (
            f"no q >= {sigma_b2:g} has q - E phi^2/E phi'^2 = sigma_b^2 = {sigma_b2:g} "
            f"for {own.name}"
        )
    return points


def _at_the_origin(phi: Activation) -> list[CriticalPoint]:
    """Return the point with sigma_b = 0 and q → 0, where phi is a line or two."""
    value, slope2 = _at_zero(phi)
    if value or slope2 < SMALL_Q**3:
        return []
    near = gauss.moments(phi, SPARSE)["second"] / SPARSE / slope2 - 1
    if np.all(np.abs(near) < FLAT):
        return [CriticalPoint(1 / slope2, 0.0, 1.0, 1.0, True)]
    above = near[np.abs(near) > FLAT][0]  # the first q at which the map is not q itself
    return [CriticalPoint(1 / slope2, 0.0, 0.0, 1.0, bool(above < 0))]


def half_stable(phi: Phi) -> CriticalPoints:
    r"""Return the points with $\chi_1 = \chi_\parallel = 1$ at q > 0 (Roberts et al., 2022).

    Example:
        >>> half_stable("gelu")[0].sigma_w2
        1.98305825...
    """
    own = activation(phi)

    def excess(q: np.ndarray) -> np.ndarray:
        at = gauss.moments(own, q)
        with np.errstate(divide="ignore", invalid="ignore"):
            return at["growth"] / at["slope2"] - 1

    points = CriticalPoints()
    for q in _roots(excess):
        at = _at(own, q)
        sigma_b2 = q - at["second"] / at["slope2"]
        if sigma_b2 > 0:
            points.append(CriticalPoint(1 / at["slope2"], sigma_b2, q, 1.0, False))
    if not points:
        points.reason = f"chi_par is nowhere chi_1 at a q > 0 with sigma_b^2 > 0 for {own.name}"
    return points


def saddle_nodes(phi: Phi, sigma_b2: float) -> tuple[tuple[float, float], ...]:
    r"""Return each (sigma_w², q) at which two fixed points of the q-map meet, chi_par = 1."""
    own = usable(phi)
    check_variances(sigma_b2=sigma_b2)

    def excess(q: np.ndarray) -> np.ndarray:
        at = gauss.moments(own, q)
        return 1 - (q - sigma_b2) * at["growth"] / at["second"]

    found = [(q, q_map(own, 1.0, 0.0, q)) for q in _roots(excess)]
    return tuple(((q - sigma_b2) / second, q) for q, second in found if q > sigma_b2)


def _at(phi: Activation, q: float) -> dict[str, float]:
    """Return the expectations of `gauss.moments` at one q."""
    return {name: float(values[0]) for name, values in gauss.moments(phi, q).items()}


def _at_zero(phi: Activation) -> tuple[float, float]:
    """Return phi(0), and the mean of phi'^2 on both sides of it."""
    at = gauss.evaluate(phi, np.array([-1e-12, 0.0, 1e-12]))
    return float(at.phi[1]), float((at.slope[0] ** 2 + at.slope[2] ** 2) / 2)


def _roots(excess: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Return where a function of q changes its sign, by more than rounding, in the grid."""
    y = excess(GRID)
    y = np.where(np.abs(y) < FLAT / 1e3, 0.0, y)
    known = np.flatnonzero(np.isfinite(y) & (y != 0))
    roots = []
    for a, b in itertools.pairwise(known):
        if np.sign(y[a]) != np.sign(y[b]):
            of_log = lambda u: float(excess(np.array([math.exp(u)]))[0])  # noqa: E731
            roots.append(math.exp(_root(of_log, *np.log([GRID[a], GRID[b]]))))
    return roots


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq  # slow to load

    found: Any = brentq(f, low, high, xtol=1e-14, rtol=1e-14)  # type: ignore[arg-type]
    return found


def usable(phi: Phi) -> Activation:
    """Return the activation.

    Raises:
        UnusableInput: its moments under a unit Gaussian do not exist.
    """
    own = activation(phi)
    if not np.isfinite(gauss.moments(own)["second"]).all():
        raise UnusableInput(f"{own.name} has no finite E phi^2 under a unit Gaussian")
    return own


def check_variances(**variances: float) -> None:
    """Raise `UnusableInput` unless each is 0 or more and finite."""
    for name, value in variances.items():
        if not 0 <= value < math.inf:
            raise UnusableInput(f"{name} must be a variance, 0 or more and finite, got {value}")


def check_keep(keep: float) -> None:
    """Raise `UnusableInput` unless `keep` is a share above 0."""
    if not 0 < keep <= 1:
        raise UnusableInput(f"keep, the share that dropout keeps, must be in (0, 1], got {keep}")


@functools.lru_cache(maxsize=256)
def fluctuation(phi: Phi, units: int) -> tuple[float, float]:
    r"""Return the exact mean and variance of ln of $\sum_i \phi(z_i)^2/(n E\phi^2)$ over n units.

    With E ~ Exp(1) and S the sum, ln E - ln S is above u with probability
    $E e^{-e^u S} = (E e^{-\phi(e^{u/2}z)^2})^n$ for a positively homogeneous phi, and has mean
    $-\gamma - E\ln S$ and variance $\pi^2/6 + \operatorname{Var}\ln S$. Given that S > 0.

    Raises:
        UnusableInput: phi is not positively homogeneous.

    Example:
        >>> fluctuation("identity", 10)[1]
        0.2213229...
    """
    own = activation(phi)
    if not own.homogeneous:
        raise UnusableInput(f"{own.name} is not positively homogeneous: its logarithm has no law")
    u = np.arange(-math.log(units) - 45, 80, 0.05)  # a smooth density: sums converge at once
    alone = gauss.average(own, lambda z, at: np.exp(-(at.phi**2)), np.exp(u))
    fading = gauss.average(own, lambda z, at: at.phi**2 * np.exp(-(at.phi**2)), np.exp(u))
    density = alone ** (units - 1) * fading
    density /= density.sum()
    mean = float((u * density).sum())
    variance = float(((u - mean) ** 2 * density).sum())
    log_s = -float(np.euler_gamma) - mean
    expected = math.log(units * float(gauss.moments(own)["second"][0]))
    return log_s - expected, variance - math.pi**2 / 6
