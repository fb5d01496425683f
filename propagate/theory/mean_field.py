r"""The two maps of mean-field theory, of the second moment q and of the correlation c.

For a layer $h' = W\phi(h) + b$ with $\sigma_w^2$ = fan_in·Var W and $\sigma_b^2$ = Var b, in the
limit of wide layers (Poole et al., 2016, arXiv:1606.05340), with ρ the share that dropout keeps
(Schoenholz et al., 2017, arXiv:1611.01232):

$$q' = \frac{\sigma_w^2}\rho E\phi^2 + \sigma_b^2,\qquad
1-c' = \frac{\sigma_w^2}{q'}\left[\left(\tfrac1\rho-1\right)E\phi^2
       + \tfrac12E(\phi_1-\phi_2)^2\right].$$

`q_map` and `c_map` are these; both are made of `after_weights`, the same for whatever comes in.
`fixed_points` and `criticality` search both maps with `zeros_over_q`, on one grid of q.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from propagate.activations import Activation, ActivationLike, activation
from propagate.theory import gauss
from propagate.types import UnusableInput

GRID = np.geomspace(1e-8, 1e8, 641)  # of second moments, on which zeros are bracketed
SPARSE = GRID[::80]  # the same, to see whether a map is a line
FLAT = 1e-9  # a relative change of a map that is rounding
ORDERS = 20, 40  # points in a panel, to tell an average from a pole
POLE = 1.5  # at which it grows by more: 1/h² by 4
SMALL_Q = 1e-6  # where a map is looked at for its behaviour next to zero


def q_map(
    phi: ActivationLike, sigma_w2: float, sigma_b2: float, q: float, keep: float = 1.0
) -> float:
    r"""Return $q' = \sigma_w^2 E\phi^2/\rho + \sigma_b^2$, the second moment after a layer.

    Poole et al. (2016), arXiv:1606.05340.

    Args:
        phi: an activation.
        sigma_w2: variance of a weight, times fan_in.
        sigma_b2: variance of a bias.
        q: second moment of h.
        keep: ρ, the share of phi(h) that dropout keeps.
    """
    return float(sigma_w2 / keep * gauss.moments(phi, q)["second"][0] + sigma_b2)


def c_map(
    phi: ActivationLike,
    sigma_w2: float,
    sigma_b2: float,
    q: float,
    one_minus_c: float,
    keep: float = 1.0,
) -> float:
    r"""Return 1 - c' after a layer that takes q to q'.

    $1-c' = \sigma_w^2[(1/\rho-1)E\phi^2 + \tfrac12E(\phi_1-\phi_2)^2]/q'$, Poole et al. (2016),
    with dropout as in Schoenholz et al. (2017).

    Args:
        phi: an activation.
        sigma_w2: variance of a weight, times fan_in.
        sigma_b2: variance of a bias.
        q: second moment of h, the same for both inputs.
        one_minus_c: of the correlation of their h, from 0 to 2.
        keep: ρ, the share of phi(h) that dropout keeps.
    """
    phi = activation(phi)
    second = float(gauss.moments(phi, q)["second"][0])
    apart = half_square_distance(phi, q, one_minus_c)
    return after_weights(sigma_w2, sigma_b2, second, apart, keep)[1]


def half_square_distance(phi: Activation, q: float, one_minus_c: float, mean: float = 0.0) -> float:
    r"""Return $\tfrac12E(\phi(h_1) - \phi(h_2))^2 = E\phi^2 - E\phi(h_1)\phi(h_2)$."""
    return float(gauss.average_pair(phi, square_distance, q, one_minus_c, mean=mean)) / 2


def square_distance(a: gauss.Values, b: gauss.Values) -> np.ndarray:
    r"""Return $(\phi(h_1) - \phi(h_2))^2$."""
    return (a.phi - b.phi) ** 2


def after_weights(
    sigma_w2: float, sigma_b2: float, second: float, apart: float, keep: float = 1.0
) -> tuple[float, float]:
    r"""Return q' and 1 - c' after dropout and weights of any x.

    $q' = \sigma_w^2 Ex^2/\rho + \sigma_b^2$ and
    $1-c' = \sigma_w^2[(1/\rho-1)Ex^2 + \tfrac12E(x_1-x_2)^2]/q'$.

    Args:
        sigma_w2: variance of a weight, times fan_in.
        sigma_b2: variance of a bias.
        second: E x^2 of what comes in.
        apart: half the mean squared difference of two inputs' x.
        keep: ρ, the share that dropout keeps.
    """
    lost = sigma_w2 * ((1 / keep - 1) * second + apart)
    after = sigma_w2 / keep * second + sigma_b2
    return after, lost / after if after else math.nan


def moments_at(phi: Activation, q: float) -> dict[str, float]:
    """Return the expectations of `gauss.moments` at one q, as numbers."""
    return {name: float(values[0]) for name, values in gauss.moments(phi, q).items()}


def moments_at_zero(phi: Activation) -> tuple[float, float]:
    r"""Return phi(0), and $\lim_{q\to0}E\phi'^2 = \tfrac12(\phi'(0^-)^2 + \phi'(0^+)^2)$."""
    at = gauss.evaluate(phi, np.array([-1e-12, 0.0, 1e-12]))
    return float(at.phi[1]), float((at.slope[0] ** 2 + at.slope[2] ** 2) / 2)


def zeros_over_q(excess: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Return every q in [1e-8, 1e8] at which a function of q changes its sign.

    Args:
        excess: of second moments, shape (Q,), of order 1: below `FLAT`/1000 it is rounding.
    """
    y = excess(GRID)
    y = np.where(np.abs(y) < FLAT / 1e3, 0.0, y)
    known = np.flatnonzero(np.isfinite(y) & (y != 0))
    of_log_q = lambda u: float(excess(np.array([math.exp(u)]))[0])  # noqa: E731
    return [
        math.exp(zero_between(of_log_q, *np.log([GRID[a], GRID[b]])))
        for a, b in itertools.pairwise(known)
        if np.sign(y[a]) != np.sign(y[b])
    ]


def zero_between(f: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that changes sign between two points is zero (Brent's method)."""
    from scipy.optimize import brentq  # slow to load

    found: Any = brentq(f, low, high, xtol=1e-14, rtol=1e-14)  # type: ignore[arg-type]
    return found


def integrable(phi: ActivationLike) -> Activation:
    r"""Return the activation, whose $E\phi^2$ under a unit Gaussian is finite.

    Raises:
        UnusableInput: it is not.
    """
    phi = activation(phi)
    if not _has_second_moment(phi):
        raise UnusableInput(f"{phi.name} has no finite E phi^2 under a unit Gaussian")
    return phi


def sloped(phi: ActivationLike) -> Activation:
    r"""Return the activation, whose $E\phi^2$ is finite and whose $E\phi'^2$ is not 0.

    Raises:
        UnusableInput: it is not so.
    """
    phi = integrable(phi)
    if not moments_at(phi, 1.0)["slope2"]:
        raise UnusableInput(
            f"{phi.name} is flat, E phi'^2 = 0: no gradient comes through at any scale. Leave out "
            "what theory would tell of it, such as the initialiser critical"
        )
    return phi


@functools.lru_cache(maxsize=256)
def _has_second_moment(phi: Activation) -> bool:
    """Whether $E\\phi^2$ is finite, and not the larger, the more points look at a pole."""
    few, many = (gauss.average(phi, _square, np.ones(1), order) for order in ORDERS)
    with np.errstate(invalid="ignore", divide="ignore"):
        return bool(np.isfinite(few).all() and (many <= POLE * few).all())


def _square(z: np.ndarray, at: gauss.Values) -> np.ndarray:
    return at.phi**2
