r"""Gains, and the critical initialisations of an activation: the edge of chaos.

`gain` keeps the size of a unit Gaussian from layer to layer. `critical` finds every variance of the
weights at which the second moment q stays and a gradient's second moment does, too: $\chi_1 =
\sigma_w^2E\phi'^2 = 1$ (Poole et al., 2016, arXiv:1606.05340). Whether the signal returns to such a
q is the matter of $\chi_\parallel = dq'/dq$; `half_stable` finds where both are 1 (Roberts et al.,
2022, arXiv:2106.10165).
"""

from typing import NamedTuple

import numpy as np

from propagate.activations import Activation, ActivationLike
from propagate.checks import check_variances
from propagate.theory import gauss
from propagate.theory.mean_field import (
    FLAT,
    SMALL_Q,
    SPARSE,
    integrable,
    moments_at,
    moments_at_zero,
    zeros_over_q,
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
        sigma_w2: $\sigma_w^2 = 1/E\phi'^2$, the variance of a weight, times fan_in.
        sigma_b2: $\sigma_b^2$, the variance of a bias.
        q: the second moment that stays; 0 if it is the limit q → 0, 1 if every q stays.
        chi_par: $\chi_\parallel = dq'/dq = E[z\phi\phi']/(\sqrt q\,E\phi'^2)$ there.
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

    Raises:
        UnusableInput: E phi^2 does not exist.

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
        phi: an activation.
        sigma_b2: variance of a bias.

    Returns:
        The points, with q increasing; `reason` says why there is none.

    Raises:
        UnusableInput: sigma_b2 is negative or not finite.

    Example:
        >>> critical("tanh", 0.05)[0].sigma_w2
        1.76095463...
        >>> critical("softplus").reason
        "no q >= 0.05 has q - E phi^2/E phi'^2 = sigma_b^2 = 0.05 for softplus"
    """
    phi = integrable(phi)
    check_variances(sigma_b2=sigma_b2)

    def excess(q: np.ndarray) -> np.ndarray:
        r"""Return $1 - (E\phi^2/E\phi'^2 + \sigma_b^2)/q$."""
        at = gauss.moments(phi, q)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - at["second"] / at["slope2"] / q - sigma_b2 / q

    points = CriticalPoints()
    if not sigma_b2:
        points += _at_the_origin(phi)
    flat = bool(points) and points[0].q == 1
    for q in [] if flat else zeros_over_q(excess):
        at = moments_at(phi, q)
        chi_par = at["growth"] / at["slope2"]
        points.append(CriticalPoint(1 / at["slope2"], sigma_b2, q, chi_par, abs(chi_par) < 1))
    if not points:
        points.reason = (
            f"no q >= {sigma_b2:g} has q - E phi^2/E phi'^2 = sigma_b^2 = {sigma_b2:g} "
            f"for {phi.name}"
        )
    return points


def _at_the_origin(phi: Activation) -> list[CriticalPoint]:
    r"""Return the point with $\sigma_b = 0$ and q → 0, where phi is a line or two half-lines.

    If $\phi(0) = 0$, it is at $\sigma_w^2 = 1/E\phi'^2$, and stable if $\sigma_w^2E\phi^2 < q$ next
    to it.
    """
    value, slope2 = moments_at_zero(phi)
    if value or slope2 < SMALL_Q**3:
        return []
    near = gauss.moments(phi, SPARSE)["second"] / SPARSE / slope2 - 1
    if np.all(np.abs(near) < FLAT):
        return [CriticalPoint(1 / slope2, 0.0, 1.0, 1.0, True)]
    above = near[np.abs(near) > FLAT][0]  # the first q at which the map is not q itself
    return [CriticalPoint(1 / slope2, 0.0, 0.0, 1.0, bool(above < 0))]


def half_stable(phi: ActivationLike) -> CriticalPoints:
    r"""Return the points with $\chi_1 = \chi_\parallel = 1$ at q > 0, left on one side.

    There $dE\phi^2/dq = E\phi'^2$, $\sigma_w^2 = 1/E\phi'^2$ and $\sigma_b^2 = q - E\phi^2/E\phi'^2
    > 0$. GELU and SiLU have one: the half-stable class of Roberts et al. (2022), arXiv:2106.10165.

    Args:
        phi: an activation.

    Returns:
        The points, with q increasing; `reason` says why there is none.

    Raises:
        UnusableInput: E phi^2 does not exist.

    Example:
        >>> half_stable("gelu")[0].sigma_w2
        1.98305825...
    """
    phi = integrable(phi)

    def excess(q: np.ndarray) -> np.ndarray:
        r"""Return $(dE\phi^2/dq)/E\phi'^2 - 1 = \chi_\parallel/\chi_1 - 1$."""
        at = gauss.moments(phi, q)
        with np.errstate(divide="ignore", invalid="ignore"):
            return at["growth"] / at["slope2"] - 1

    points = CriticalPoints()
    for q in zeros_over_q(excess):
        at = moments_at(phi, q)
        sigma_b2 = q - at["second"] / at["slope2"]
        if sigma_b2 > 0:
            points.append(CriticalPoint(1 / at["slope2"], sigma_b2, q, 1.0, False))
    if not points:
        points.reason = f"chi_par is nowhere chi_1 at a q > 0 with sigma_b^2 > 0 for {phi.name}"
    return points
