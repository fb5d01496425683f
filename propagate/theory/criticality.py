"""Gains, and the critical initialisations of an activation: the edge of chaos."""

from typing import NamedTuple

import numpy as np

from propagate.activations import Activation, ActivationLike, activation
from propagate.checks import check_variances
from propagate.theory import gauss
from propagate.theory.mean_field import (
    FLAT,
    SMALL_Q,
    SPARSE,
    integrable,
    limits_at_zero,
    moments_at,
    roots,
)


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


def gain(phi: ActivationLike) -> Gain:
    r"""Return $1/\sqrt{E\phi^2}$ and $1/\sqrt{\operatorname{Var}\phi}$ for a unit Gaussian.

    Example:
        >>> gain("relu").second_moment
        1.41421356...
    """
    at = gauss.moments(integrable(phi))
    with np.errstate(divide="ignore"):
        return Gain(*(float(1 / np.sqrt(at[name][0])) for name in ("second", "variance")))


def critical(phi: ActivationLike, sigma_b2: float = 0.05) -> CriticalPoints:
    r"""Return every (sigma_w², sigma_b²) on the edge of chaos, where $q$ stays and $\chi_1 = 1$.

    There $q - E\phi^2/E\phi'^2 = \sigma_b^2$ and $\sigma_w^2 = 1/E\phi'^2$.

    Args:
        phi: the activation: a name, an `Activation` or a function.
        sigma_b2: the variance of biases.

    Raises:
        UnusableInput: sigma_b2 is negative or not finite.

    Example:
        >>> critical("tanh", 0.05)[0].sigma_w2
        1.76095463...
        >>> critical("softplus").reason
        "no q >= 0.05 has q - E phi^2/E phi'^2 = sigma_b^2 = 0.05 for softplus"
    """
    own = integrable(phi)
    check_variances(sigma_b2=sigma_b2)

    def excess(q: np.ndarray) -> np.ndarray:
        at = gauss.moments(own, q)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - at["second"] / at["slope2"] / q - sigma_b2 / q

    points = CriticalPoints()
    if not sigma_b2:
        points += _at_the_origin(own)
    flat = bool(points) and points[0].q == 1
    for q in [] if flat else roots(excess):
        at = moments_at(own, q)
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
    value, slope2 = limits_at_zero(phi)
    if value or slope2 < SMALL_Q**3:
        return []
    near = gauss.moments(phi, SPARSE)["second"] / SPARSE / slope2 - 1
    if np.all(np.abs(near) < FLAT):
        return [CriticalPoint(1 / slope2, 0.0, 1.0, 1.0, True)]
    above = near[np.abs(near) > FLAT][0]  # the first q at which the map is not q itself
    return [CriticalPoint(1 / slope2, 0.0, 0.0, 1.0, bool(above < 0))]


def half_stable(phi: ActivationLike) -> CriticalPoints:
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
    for q in roots(excess):
        at = moments_at(own, q)
        sigma_b2 = q - at["second"] / at["slope2"]
        if sigma_b2 > 0:
            points.append(CriticalPoint(1 / at["slope2"], sigma_b2, q, 1.0, False))
    if not points:
        points.reason = f"chi_par is nowhere chi_1 at a q > 0 with sigma_b^2 > 0 for {own.name}"
    return points
