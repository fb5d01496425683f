r"""Where q and c settle, and over how many layers: fixed points and depth scales.

`fixed_points` finds every zero of q' - q, and at each of them the stable zero of c' - c. A distance
from a fixed point shrinks by the slope of the map there in each layer, over a depth scale of
-1/ln(slope) layers: $\chi_\parallel$ for q, $\chi_c$ for c, $\chi_1$ for gradients (Schoenholz et
al., 2017, arXiv:1611.01232). `saddle_nodes` finds where two fixed points of q meet.
"""

import math
from dataclasses import dataclass

import numpy as np

from propagate.activations import Activation, ActivationLike
from propagate.checks import check_keep, check_variances
from propagate.theory import gauss
from propagate.theory.mean_field import (
    FLAT,
    SMALL_Q,
    SPARSE,
    c_map,
    integrable,
    moments_at,
    moments_at_zero,
    q_map,
    zero_between,
    zeros_over_q,
)

MARGINAL = 1e-7  # of a slope around 1


@dataclass(frozen=True)
class FixedPoint:
    r"""Where the q-map, and with it the c-map, stays.

    Attributes:
        q: the second moment.
        chi_1: $\chi_1 = \sigma_w^2 E\phi'^2/\rho$, of a gradient's second moment in a layer.
        chi_par: $\chi_\parallel = dq'/dq = \sigma_w^2 E[z\phi\phi']/(\rho\sqrt q)$.
        one_minus_c: of the correlation to which two inputs tend; NaN at q = 0, where it stays.
        chi_c: $\chi_c = dc'/dc = \sigma_w^2 E\phi'(h_1)\phi'(h_2)$ there.
    """

    q: float
    chi_1: float
    chi_par: float
    one_minus_c: float
    chi_c: float

    @property
    def slope(self) -> float:
        """The same as `chi_c`, by the name that it had first."""
        return self.chi_c

    @property
    def stable(self) -> bool:
        """Whether the q-map returns to q: |chi_par| < 1."""
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
        """Depth scale of the correlation in layers, -1/ln(chi_c)."""
        return _scale(self.chi_c)

    @property
    def xi_grad(self) -> float:
        """Depth scale of the gradient in layers, -1/ln(chi_1); negative if it explodes."""
        return _scale(self.chi_1)

    @property
    def trainable_depth(self) -> float:
        """6 xi_c, up to which depth a network trains (Schoenholz et al., 2017)."""
        return 6 * self.xi_c


def _scale(factor: float) -> float:
    """Return -1/ln(factor) in layers; 0 if nothing is left after one, inf at a factor of 1."""
    if factor <= 0:
        return 0.0
    return -1 / math.log(factor) if factor != 1 else math.inf


def fixed_points(
    phi: ActivationLike, sigma_w2: float, sigma_b2: float, keep: float = 1.0
) -> tuple[FixedPoint, ...]:
    r"""Return every fixed point of the q-map, $q = \sigma_w^2E\phi^2/\rho + \sigma_b^2$.

    They are looked for in [1e-8, 1e8] and at 0. Where every q stays, as for He's ReLU, the one at q
    = 1 stands for all of them.

    Args:
        phi: an activation.
        sigma_w2: variance of a weight, times fan_in.
        sigma_b2: variance of a bias.
        keep: ρ, the share of phi(h) that dropout keeps.

    Returns:
        The points, with q increasing.

    Raises:
        UnusableInput: a variance is negative or not finite, or `keep` is not in (0, 1].

    Example:
        >>> point, = fixed_points("tanh", 1.7, 0.05)
        >>> point.xi_c
        74.9182...
    """
    phi = integrable(phi)
    check_variances(sigma_w2=sigma_w2, sigma_b2=sigma_b2)
    check_keep(keep)

    def excess(q: np.ndarray) -> np.ndarray:
        r"""Return $q'/q - 1$."""
        return sigma_w2 / keep * gauss.moments(phi, q)["second"] / q + sigma_b2 / q - 1

    found = zeros_over_q(excess)
    if np.all(np.abs(excess(SPARSE)) < FLAT):
        found = [1.0]
    elif not sigma_b2 and (not sigma_w2 or not moments_at_zero(phi)[0]):
        found.insert(0, 0.0)
    return tuple(_fixed(phi, sigma_w2, sigma_b2, q, keep) for q in found)


def _fixed(phi: Activation, sigma_w2: float, sigma_b2: float, q: float, keep: float) -> FixedPoint:
    r"""Return the fixed point at q; at q = 0 all three slopes are limits.

    There $\phi$ is two half-lines: $\chi_1 = \chi_\parallel = \sigma_w^2E\phi'^2/\rho$ and
    $\chi_c = \rho$, because what q loses, the covariance loses too.
    """
    at = moments_at(phi, q or SMALL_Q**2)
    chi_1, chi_par = (sigma_w2 / keep * at[k] for k in ("slope2", "growth"))
    if not q:
        chi_1 = chi_par = sigma_w2 / keep * moments_at_zero(phi)[1]
    apart = _apart(phi, sigma_w2, sigma_b2, q, keep, chi_1) if q else 0.0
    both = lambda a, b: a.slope * b.slope  # noqa: E731
    chi_c = sigma_w2 * float(gauss.average_pair(phi, both, q, apart)) if apart else chi_1 * keep
    if not q:
        apart, chi_c = math.nan, keep
    return FixedPoint(q, chi_1, chi_par, apart, chi_c)


def _apart(
    phi: Activation, sigma_w2: float, sigma_b2: float, q: float, keep: float, chi_1: float
) -> float:
    r"""Return the stable zero of c' - c: 1 - c, in [0, 1], on which the c-map is convex.

    It is c = 1 if $\chi_1 \le 1$ and nothing is dropped.
    """
    if keep == 1 and chi_1 <= 1 + 1e-12:
        return 0.0

    def excess(log_apart: float) -> float:
        """Return (1 - c')/(1 - c) - 1, which keeps its digits as 1 - c goes to zero."""
        apart = math.exp(log_apart)
        return c_map(phi, sigma_w2, sigma_b2, q, apart, keep) / apart - 1

    low, high = math.log(1e-14), 0.0
    if excess(high) >= -1e-13:
        return 1.0
    if excess(low) <= 0:
        return 0.0
    return math.exp(zero_between(excess, low, high))


def saddle_nodes(phi: ActivationLike, sigma_b2: float) -> tuple[tuple[float, float], ...]:
    r"""Return each (sigma_w^2, q) at which two fixed points of q meet, $\chi_\parallel = 1$.

    There $(q - \sigma_b^2)\,dE\phi^2/dq = E\phi^2$ and $\sigma_w^2 = (q - \sigma_b^2)/E\phi^2$:
    beyond that variance of the weights the signal does not settle nearby. It is not an edge of
    chaos.

    Args:
        phi: an activation.
        sigma_b2: variance of a bias.

    Raises:
        UnusableInput: sigma_b2 is negative or not finite.

    Example:
        >>> saddle_nodes("silu", 0.04)[0]
        (2.94024..., 0.34183...)
    """
    phi = integrable(phi)
    check_variances(sigma_b2=sigma_b2)

    def excess(q: np.ndarray) -> np.ndarray:
        r"""Return $1 - (q - \sigma_b^2)(dE\phi^2/dq)/E\phi^2$."""
        at = gauss.moments(phi, q)
        return 1 - (q - sigma_b2) * at["growth"] / at["second"]

    found = [(q, q_map(phi, 1.0, 0.0, q)) for q in zeros_over_q(excess)]
    return tuple(((q - sigma_b2) / second, q) for q, second in found if q > sigma_b2)
