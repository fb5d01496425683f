"""The two maps of mean-field theory, of the second moment q and of the correlation c."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from propagate.activations import Activation, ActivationLike, activation
from propagate.theory import gauss
from propagate.types import UnusableInput

GRID = np.geomspace(1e-8, 1e8, 641)  # of second moments, on which roots are bracketed
SPARSE = GRID[::80]  # the same, to see whether a map is a line
FLAT = 1e-9  # a relative change of a map that is rounding
SMALL_Q = 1e-6  # where a map is looked at for its behaviour next to zero


def q_map(
    phi: ActivationLike, sigma_w2: float, sigma_b2: float, q: float, keep: float = 1.0
) -> float:
    """Return the second moment after a layer."""
    return float(sigma_w2 / keep * gauss.moments(phi, q)["second"][0] + sigma_b2)


def c_map(
    phi: ActivationLike,
    sigma_w2: float,
    sigma_b2: float,
    q: float,
    one_minus_c: float,
    keep: float = 1.0,
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


def moments_at(phi: Activation, q: float) -> dict[str, float]:
    """Return the expectations of `gauss.moments` at one q."""
    return {name: float(values[0]) for name, values in gauss.moments(phi, q).items()}


def limits_at_zero(phi: Activation) -> tuple[float, float]:
    """Return phi(0), and the mean of phi'^2 on both sides of it."""
    at = gauss.evaluate(phi, np.array([-1e-12, 0.0, 1e-12]))
    return float(at.phi[1]), float((at.slope[0] ** 2 + at.slope[2] ** 2) / 2)


def roots(excess: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Return where a function of q changes its sign, by more than rounding, in the grid."""
    y = excess(GRID)
    y = np.where(np.abs(y) < FLAT / 1e3, 0.0, y)
    known = np.flatnonzero(np.isfinite(y) & (y != 0))
    roots = []
    for a, b in itertools.pairwise(known):
        if np.sign(y[a]) != np.sign(y[b]):
            of_log = lambda u: float(excess(np.array([math.exp(u)]))[0])  # noqa: E731
            roots.append(math.exp(root(of_log, *np.log([GRID[a], GRID[b]]))))
    return roots


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that changes sign between two points is zero."""
    from scipy.optimize import brentq  # slow to load

    found: Any = brentq(f, low, high, xtol=1e-14, rtol=1e-14)  # type: ignore[arg-type]
    return found


def integrable(phi: ActivationLike) -> Activation:
    """Return the activation.

    Raises:
        UnusableInput: its moments under a unit Gaussian do not exist.
    """
    own = activation(phi)
    if not np.isfinite(gauss.moments(own)["second"]).all():
        raise UnusableInput(f"{own.name} has no finite E phi^2 under a unit Gaussian")
    return own
