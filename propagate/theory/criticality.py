r"""Gains, and the critical initialisations of an activation: the edge of chaos.

`gain` keeps the size of a unit Gaussian from layer to layer. `critical` finds every variance of the
weights at which the second moment q stays and a gradient's second moment does, too: $\chi_1 =
\sigma_w^2E\phi'^2 = 1$ (Poole et al., 2016, arXiv:1606.05340). Whether the signal returns to such a
q is the matter of $\chi_\parallel = dq'/dq$; `half_stable` finds where both are 1 (Roberts et al.,
2022, arXiv:2106.10165). `critical_at_unit` chooses among them for the initialiser `critical`.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

from propagate.activations import Activation, ActivationLike, activation
from propagate.checks import check_variances
from propagate.initializers import Initializer, Scale
from propagate.theory import gauss
from propagate.theory.mean_field import (
    FLAT,
    SMALL_Q,
    SPARSE,
    integrable,
    moments_at,
    moments_at_zero,
    sloped,
    zeros_over_q,
)

DISTANT = 1e6, 1e8  # second moments that stand for q to infinity
NO_BIAS = 1e-6  # sigma_b² below which biases are left out: ReLU6 at q = 1 would have 2e-9
SETTLED = 1e-2  # relative change of E phi'^2 between them


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
        >>> critical("softplus").reason.partition(":")[0]
        'softplus has no critical point at sigma_b^2 = 0.05'
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
            f"{phi.name} has no critical point at sigma_b^2 = {sigma_b2:g}: at such a point "
            "sigma_b^2 = q - E phi^2/E phi'^2, and no q gives that"
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


class UnitCritical(NamedTuple):
    r"""The critical variances for inputs of unit second moment.

    Attributes:
        sigma_w2: $\sigma_w^2$.
        sigma_b2: $\sigma_b^2$.
        q: the second moment that stays; 1 where the input's own does.
        kind: `"every q"`, `"unit q"`, `"half-stable"`, `"far q"` or `"none"`.
        reason: what it rests on or, of none, why there is none and what this is instead.
    """

    sigma_w2: float
    sigma_b2: float
    q: float
    kind: str
    reason: str


@functools.lru_cache(maxsize=256)
def critical_at_unit(phi: ActivationLike) -> UnitCritical:
    r"""Return the variances that the initialisers `critical` and `critical_orthogonal` have.

    At q = 1 the gradient stays at $\sigma_w^2 = 1/E\phi'^2$, and so does q at $\sigma_b^2 = 1 -
    E\phi^2/E\phi'^2$. Of several critical points the first of these is taken:

    1. that point, if $\sigma_b^2 = 0$ and every q stays (ReLU, the identity);
    2. that point, if $\sigma_b^2 > 0$ and the signal returns to it (tanh, SELU);
    3. the half-stable point with the smallest q (GELU, SiLU), which q = 1 approaches slowly;
    4. the stable point with $\sigma_b = 0$, or else $\sigma_b^2 = 0.05$, and the smallest q > 0, to
       which q = 1 goes (sigmoid);
    5. none: then the $\sigma_w^2 = 1/E\phi'^2$ of q to infinity, to which q grows slowly
       (softplus); where there is none either, $1/E\phi^2$, at which q = 1 stays and gradients do
       not.

    Args:
        phi: an activation.

    Raises:
        UnusableInput: E phi^2 does not exist, or E phi'^2 is 0.

    Example:
        >>> critical_at_unit("relu")[:3]
        (2.0, 0.0, 1.0)
        >>> critical_at_unit("gelu").kind
        'half-stable'
    """
    phi = sloped(phi)
    at = moments_at(phi, 1.0)
    sigma_w2, sigma_b2 = 1 / at["slope2"], 1 - at["second"] / at["slope2"]
    chi_par = at["growth"] * sigma_w2
    if abs(sigma_b2) < NO_BIAS:
        kept = "every q stays" if phi.homogeneous else "q = 1 stays"
        return UnitCritical(round(sigma_w2, 12), 0.0, 1.0, "every q", f"{kept} without biases")
    if sigma_b2 > 0 and abs(chi_par) < 1:
        reason = f"q returns to 1 by a factor {chi_par:.2f} per layer"
        return UnitCritical(sigma_w2, sigma_b2, 1.0, "unit q", reason)
    name = next((name for name in SEARCHED if activation(name) == phi), None)
    return _searched(phi) if name is None else SEARCHED[name]


def _searched(phi: Activation) -> UnitCritical:
    """Return the choice of `critical_at_unit` where q = 1 is no point that a signal returns to."""
    for point in half_stable(phi):
        after = point.sigma_w2 * moments_at(phi, 1.0)["second"] + point.sigma_b2
        near = _near(point.q, (after - 1) * (point.q - 1) > 0)
        return UnitCritical(point.sigma_w2, point.sigma_b2, point.q, "half-stable", near)
    points, biased = critical(phi, 0.0), critical(phi)
    for point in (*points, *biased):
        if point.stable and point.q:
            return UnitCritical(point.sigma_w2, point.sigma_b2, point.q, "far q", _far(point.q))
    unstable = "its critical points are unstable: signals leave them"
    why = unstable if points or biased else points.reason
    far, farther = (moments_at(phi, q)["slope2"] for q in DISTANT)
    at = moments_at(phi, 1.0)
    if far and abs(farther / far - 1) < SETTLED and at["second"] > farther:
        reason = f"none: {why}; this is critical for large q, to which q grows slowly"
        return UnitCritical(float(1 / farther), 0.0, math.inf, "none", reason)
    chi_1 = at["slope2"] / at["second"]
    reason = f"none: {why}; this keeps q = 1 and multiplies gradients by {chi_1:.3g} per layer"
    return UnitCritical(1 / at["second"], 0.0, 1.0, "none", reason)


def _near(q: float, towards: bool = True) -> str:
    return f"half-stable: from 1, q moves slowly {'towards' if towards else 'away from'} {q:.3g}"


def _far(q: float) -> str:
    return f"q goes from 1 to {q:.3g}, and stays"


def _known(sigma_w2: float, sigma_b2: float, q: float) -> UnitCritical:
    if sigma_b2:
        return UnitCritical(sigma_w2, sigma_b2, q, "half-stable", _near(q))
    return UnitCritical(sigma_w2, sigma_b2, q, "far q", _far(q))


SEARCHED = {
    "sigmoid": _known(103.00755385551936, 0.0, 45.62427779737975),
    "gelu": _known(1.983058257437547, 0.1729223907560673, 3.5615528128088356),
    "gelu_tanh": _known(1.9828882398210923, 0.17289519826381605, 3.556772844715109),
    "silu": _known(1.9880046782694918, 0.5551431707215304, 14.320173618025814),
    "mish": _known(2.013524069719531, 0.09452178737066497, 1.670169132478072),
    "hard_swish": _known(1.9732895836424695, 0.5071458487885163, 4.803855948880401),
}
"""What `_searched` finds for activations of the table; a search takes a second."""


def tuned(init: Initializer, phi: Activation) -> Initializer:
    """Return an initialiser with its scales, if these follow from the activation; else itself.

    Args:
        init: such as `critical`, or any other.
        phi: the activation of the layers that it draws.

    Example:
        >>> from propagate.activations import activation
        >>> from propagate.initializers import initializer
        >>> tuned(initializer("critical"), activation("relu")).moments(8, 8)[1]
        0.25...
    """
    if not init.tuned:
        return init
    point = critical_at_unit(phi)
    scale = Scale(init.scale.gain * point.sigma_w2**0.5, init.scale.mode)
    return dataclasses.replace(init, scale=scale, bias=Scale(point.sigma_b2**0.5))
