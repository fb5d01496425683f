"""Where q and c settle, and over how many layers: fixed points and depth scales."""

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
    limits_at_zero,
    moments_at,
    q_map,
    root,
    roots,
)

MARGINAL = 1e-7  # of a slope around 1


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


def fixed_points(
    phi: ActivationLike, sigma_w2: float, sigma_b2: float, keep: float = 1.0
) -> tuple[FixedPoint, ...]:
    r"""Return every fixed point of the q-map in [1e-8, 1e8], and zero if it is one.

    Where every q stays, as for He's ReLU, the one at q = 1 stands for all of them.

    Args:
        phi: the activation: a name, an `Activation` or a function.
        sigma_w2: fan_in times the variance of a weight.
        sigma_b2: the variance of biases.
        keep: the share of units that dropout keeps.

    Raises:
        UnusableInput: a variance is negative or not finite, or `keep` is not in (0, 1].

    Example:
        >>> point, = fixed_points("tanh", 1.7, 0.05)
        >>> point.xi_c
        74.9182...
    """
    own = integrable(phi)
    check_variances(sigma_w2=sigma_w2, sigma_b2=sigma_b2)
    check_keep(keep)
    sw2 = sigma_w2 / keep

    def excess(q: np.ndarray) -> np.ndarray:
        return sw2 * gauss.moments(own, q)["second"] / q + sigma_b2 / q - 1

    found = roots(excess)
    if np.all(np.abs(excess(SPARSE)) < FLAT):
        found = [1.0]
    elif not sigma_b2 and (not sigma_w2 or not limits_at_zero(own)[0]):
        found.insert(0, 0.0)
    return tuple(_fixed(own, sigma_w2, sigma_b2, q, keep) for q in found)


def _fixed(phi: Activation, sigma_w2: float, sigma_b2: float, q: float, keep: float) -> FixedPoint:
    at = moments_at(phi, q or SMALL_Q**2)
    chi_1, chi_par = (sigma_w2 / keep * at[k] for k in ("slope2", "growth"))
    if not q:
        chi_1 = chi_par = sigma_w2 / keep * limits_at_zero(phi)[1]
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
    return math.exp(root(excess, low, high))


def saddle_nodes(phi: ActivationLike, sigma_b2: float) -> tuple[tuple[float, float], ...]:
    r"""Return each (sigma_w², q) at which two fixed points of the q-map meet, chi_par = 1."""
    own = integrable(phi)
    check_variances(sigma_b2=sigma_b2)

    def excess(q: np.ndarray) -> np.ndarray:
        at = gauss.moments(own, q)
        return 1 - (q - sigma_b2) * at["growth"] / at["second"]

    found = [(q, q_map(own, 1.0, 0.0, q)) for q in roots(excess)]
    return tuple(((q - sigma_b2) / second, q) for q, second in found if q > sigma_b2)
