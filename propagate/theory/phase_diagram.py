r"""The phase diagram of an activation: where in $(\sigma_w^2, \sigma_b^2)$ signals live.

`phase` goes through the plane in two steps. The second moment: all points share one table of
expectations over q, so that a point is a search for the second moment at which its q-map crosses
the diagonal, the first on the way from the input's, and Newton's steps to it (`_settled_q`). Second
moments move without overshoot where $E\phi^2$ grows with q; elsewhere the point found is still a
fixed one, and `chi_par` says whether signals come to it.

The correlation: where c = 1 is left ($\chi_1 > 1$), 1 - c settles where

$$\frac{D(q, 1-c)}{1-c} = \frac q{\sigma_w^2},\qquad
D = \tfrac12E(\phi_1 - \phi_2)^2 = \sum_{k\ge1} a_k^2\,(1 - c^k),\qquad
a_k = E\,\phi(\sqrt q z)\,\mathrm{He}_k(z)/\sqrt{k!},$$

looked up in a second table that all points share, of D/(1 - c) over q and 1 - c
(`_settled_correlation`), to 1 %. Its slope is $\chi_c = \sigma_w^2\sum_k k\,a_k^2c^{k-1}/q$.
"""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from propagate.activations import Activation, ActivationLike
from propagate.record import provenance
from propagate.theory import gauss
from propagate.theory.derivatives import evaluate, kinks
from propagate.theory.mean_field import integrable
from propagate.theory.quadrature import nodes
from propagate.types import UnusableInput

TABLE_Q = np.geomspace(1e-12, 1e12, 961)  # second moments of the table of expectations
NEWTON_STEPS = 4
STILL = 1e-9  # relative distance from the diagonal that is rounding: every q stays
TABLE_APART = np.geomspace(1e-8, 1.0, 361)  # 1 - c of the table of D/(1 - c)
TABLE_ROWS = 200  # second moments of that table
HERMITE = 160  # coefficients a_k that are computed
REST = 240  # the order k that stands for all beyond
MOST_BYTES = 4e9  # of a plane; one of 300 × 250 points takes 14 MB
VALUES_OF_A_POINT = 16  # eight that are returned, and as many on the way
ROWS_OF_THE_TABLE = 4 * len(TABLE_Q)  # that are kept of one value of sigma_b2 for each sigma_w2
POINTS_AT_A_TIME = 8192  # of the plane: what a processor's cache holds


def phase(
    phi: ActivationLike,
    sigma_w2: Sequence[float] | np.ndarray,
    sigma_b2: Sequence[float] | np.ndarray,
    *,
    q: float = 1.0,
) -> xr.Dataset:
    r"""Return where signals settle, and what becomes of gradients there.

    $q = \sigma_w^2E\phi^2 + \sigma_b^2$, $\chi_1 = \sigma_w^2E\phi'^2$,
    $\chi_\parallel = \sigma_w^2\,dE\phi^2/dq$, and depth scales of -1/ln of a slope (Poole et al.,
    2016, arXiv:1606.05340; Schoenholz et al., 2017, arXiv:1611.01232).

    Args:
        phi: an activation.
        sigma_w2: variances of the weights times fan_in, increasing.
        sigma_b2: variances of the biases, increasing.
        q: second moment of the input, per unit.

    Returns:
        A dataset with dims (sigma_b2, sigma_w2): `q`, where the second moment settles (0 or inf if
        it does not), `chi_1`, `chi_par` there, `one_minus_c`, of the correlation to which two
        inputs tend (NaN where q does not settle), and `log10_growth`, log10 chi_1, the decades by
        which the gradient's second moment grows in a layer. Depth scales in layers: `xi_q`,
        `xi_c`, to 1 %, and `xi_grad`, negative where the gradient explodes; networks train to
        6 xi_c. In the limits q → 0 and q → ∞, chi_1 is that of the nearest second moment of the
        table, 1e-12 or 1e12.

    Raises:
        UnusableInput: variances that are negative, not finite, or not increasing, or so many
            that their plane would fill the memory.

    Example:
        >>> plane = phase("tanh", [1.0, 1.7609546396], [0.05])
        >>> np.round(plane.chi_1.values, 6).tolist()
        [[0.759032, 1.0]]
    """
    phi = integrable(phi)
    w2, b2 = (_increasing(name, v) for name, v in (("sigma_w2", sigma_w2), ("sigma_b2", sigma_b2)))
    check_size(len(w2), len(b2))
    if not TABLE_Q[0] < q < TABLE_Q[-1]:
        raise UnusableInput(f"q must be within {TABLE_Q[0]:g} and {TABLE_Q[-1]:g}, got {q}")
    at = gauss.moments(phi, TABLE_Q)
    found = np.array([_settled_q(w2, float(b), at, math.log(q)) for b in b2])
    names = "q", "chi_1", "chi_par"
    made = xr.Dataset(
        {name: (("sigma_b2", "sigma_w2"), found[:, k]) for k, name in enumerate(names)},
        {"sigma_b2": b2, "sigma_w2": w2},
    )
    weights = np.broadcast_to(w2, made["q"].shape)
    apart, chi_c = _settled_correlation(phi, weights, made["q"].values, made["chi_1"].values)
    made["one_minus_c"] = made["q"].dims, apart
    with np.errstate(divide="ignore"):
        made["log10_growth"] = np.log10(made["chi_1"])
        made["xi_q"] = -1 / np.log(np.abs(made["chi_par"]))
        made["xi_c"] = made["q"].dims, -1 / np.log(chi_c)
        made["xi_grad"] = -1 / np.log(made["chi_1"])
    return made.assign_attrs(provenance.provenance(activation=phi.name, theory="mean field"))


def check_size(sigma_w2: int, sigma_b2: int) -> None:
    """Refuse a plane of so many points that it would fill the memory.

    Args:
        sigma_w2: number of values of the one axis.
        sigma_b2: of the other.

    Raises:
        UnusableInput: it takes more than `MOST_BYTES`.
    """
    needed = 8 * (VALUES_OF_A_POINT * sigma_w2 * sigma_b2 + ROWS_OF_THE_TABLE * sigma_w2)
    if needed > MOST_BYTES:
        raise UnusableInput(
            f"a phase diagram of {sigma_w2} × {sigma_b2} points takes about {needed / 1e9:.3g} GB, "
            f"more than {MOST_BYTES / 1e9:.3g} GB: take fewer points, such as 300 × 250"
        )


def _increasing(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return variances as an array, or raise `UnusableInput` if they are not increasing."""
    found = np.atleast_1d(np.asarray(values, float))
    if not (
        found.size
        and np.isfinite(found).all()
        and (found >= 0).all()
        and (np.diff(found) > 0).all()
    ):
        ends = f"{found[0]:g} … {found[-1]:g}" if found.size else "none"
        raise UnusableInput(f"{name} must be variances in increasing order, got {ends}")
    return found


def _settled_q(
    w2: np.ndarray, b2: float, at: dict[str, np.ndarray], log_start: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Return q, $\chi_1$ and $\chi_\parallel$ of every sigma_w2 at one sigma_b2, each (sigma_w2,).

    excess = q'/q - 1 says how q moves. There are five cases:

    | excess at the start | on the way           | q settles                              |
    |---------------------|----------------------|----------------------------------------|
    | 0                   |                      | where it starts                        |
    | > 0                 | ≤ 0 further up       | at the crossing below that grid point  |
    | > 0                 | > 0 all the way up   | at infinity                            |
    | < 0                 | ≥ 0 further down     | at the crossing above that grid point  |
    | < 0                 | < 0, or 0 to the end | at zero                                |

    Args:
        w2: sigma_w2, shape (sigma_w2,).
        b2: sigma_b2.
        at: `gauss.moments` over `TABLE_Q`.
        log_start: ln of the second moment of the input.
    """
    start = int(np.argmin(np.abs(np.log(TABLE_Q) - log_start)))
    excess = (w2[:, None] * at["second"] + b2) / TABLE_Q - 1
    excess[np.abs(excess) < STILL] = 0.0
    stays, grows = excess[:, start] == 0, excess[:, start] > 0
    falls = ~stays & ~grows
    above = _first(excess[:, start:] <= 0, start)
    below = _last(excess[:, : start + 1] >= 0)
    to_infinity = grows & (above == len(TABLE_Q))
    to_zero = falls & (below < (excess != 0).argmax(axis=1))  # next to zero the map is q itself

    log_q = np.full(w2.shape, log_start)  # stays
    up, down = grows & ~to_infinity, falls & ~to_zero
    log_q[up] = _crossing(w2[up], b2, at, above[up] - 1)
    log_q[down] = _crossing(w2[down], b2, at, below[down])
    log_q[to_infinity], log_q[to_zero] = np.log(TABLE_Q[[-1, 0]])
    q = np.exp(log_q)
    q[to_infinity], q[to_zero] = np.inf, 0.0
    return q, w2 * _between(at["slope2"], log_q), w2 * _between(at["growth"], log_q)


def _first(true: np.ndarray, offset: int) -> np.ndarray:
    """Return the index of the first that is true in each row, or the length of the grid."""
    return np.where(true.any(axis=1), true.argmax(axis=1) + offset, len(TABLE_Q))


def _last(true: np.ndarray) -> np.ndarray:
    """Return the index of the last that is true in each row, or -1."""
    return np.where(true.any(axis=1), true.shape[1] - 1 - true[:, ::-1].argmax(axis=1), -1)


def _crossing(w2: np.ndarray, b2: float, at: dict[str, np.ndarray], k: np.ndarray) -> np.ndarray:
    r"""Return ln q with q' = q between grid points k and k + 1, by Newton's steps in ln q.

    A step is $-(q' - q)/(q\,(dq'/dq - 1))$.
    """
    low, high = np.log(TABLE_Q[k]), np.log(TABLE_Q[k + 1])
    log_q = (low + high) / 2
    for _ in range(NEWTON_STEPS):
        q = np.exp(log_q)
        after = w2 * _between(at["second"], log_q) + b2
        steepness = w2 * _between(at["growth"], log_q) - 1
        steep = np.abs(steepness) > 1e-12
        step = np.where(steep, (after - q) / np.where(steep, steepness * q, 1.0), 0.0)
        log_q = np.clip(log_q - step, low, high)
    return log_q


def _between(values: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """Interpolate a table over `TABLE_Q`, by the cubic through four points in ln q (Lagrange)."""
    at = (log_q - math.log(TABLE_Q[0])) / math.log(TABLE_Q[1] / TABLE_Q[0])
    k = np.clip(np.floor(at).astype(int), 1, len(TABLE_Q) - 3)
    t = at - k
    a, b, c, d = (values[k + j] for j in (-1, 0, 1, 2))
    left = -t * (t - 1) * (t - 2) / 6 * a + (t + 1) * (t - 1) * (t - 2) / 2 * b
    return left - (t + 1) * t * (t - 2) / 2 * c + (t + 1) * t * (t - 1) / 6 * d


def _settled_correlation(
    phi: Activation, sigma_w2: np.ndarray, q: np.ndarray, chi_1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return 1 - c where the c-map settles and its slope $\chi_c$ there, at each point.

    0 and $\chi_1$ where $\chi_1 \le 1$; NaN where q does not settle.

    Args:
        phi: an activation.
        sigma_w2: variances of the weights times fan_in.
        q: second moments at which the q-map stays; 0, inf or NaN: nowhere.
        chi_1: the slope of the c-map at c = 1, above 1 where it leaves that.
    """
    apart, chi_c = np.zeros(q.shape), chi_1.copy()
    lives = np.isfinite(q) & (q > 0)
    apart[~lives], chi_c[~lives] = np.nan, np.nan
    chaotic = lives & (chi_1 > 1)
    if chaotic.any():
        there = sigma_w2[chaotic], q[chaotic], chi_1[chaotic]
        apart[chaotic], chi_c[chaotic] = _chaotic(phi, *there)
    return apart, chi_c


def _chaotic(
    phi: Activation, sigma_w2: np.ndarray, q: np.ndarray, chi_1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the 1 - c with $D/(1-c) = q/\sigma_w^2$, and $\chi_c$; all of shape (points,).

    $D/(1-c)$ falls as 1 - c grows, from $q\chi_1/\sigma_w^2$; between entries of the table, lines
    in ln q and ln(1 - c).
    """
    log_q = np.log(q)
    grid = np.linspace(log_q.min(), log_q.max(), TABLE_ROWS)
    ratio, slopes = _correlation_tables(phi, np.exp(grid))
    at = np.clip((log_q - grid[0]) / max(grid[1] - grid[0], 1e-300), 0, TABLE_ROWS - 1)
    apart, chi_c = np.empty(q.size), np.empty(q.size)
    for block in np.array_split(np.arange(q.size), -(-q.size // POINTS_AT_A_TIME)):
        ratio_at, slopes_at = (_rows(table, at[block]) for table in (ratio, slopes))
        target = q[block] / sigma_w2[block]
        k = np.clip((ratio_at > target[:, None]).sum(axis=1) - 1, 0, len(TABLE_APART) - 2)
        each = np.arange(len(block))
        high, low = ratio_at[each, k], ratio_at[each, k + 1]
        t = np.clip((high - target) / np.where(high > low, high - low, 1.0), 0, 1)
        apart[block] = np.exp((1 - t) * np.log(TABLE_APART[k]) + t * np.log(TABLE_APART[k + 1]))
        slope = (1 - t) * slopes_at[each, k] + t * slopes_at[each, k + 1]
        chi_c[block] = sigma_w2[block] * slope
    return apart, np.minimum(chi_c, chi_1)


def _rows(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return rows of a table at fractional indices, between which they are lines."""
    k = np.minimum(at.astype(int), len(table) - 2)
    t = (at - k)[:, None]
    return (1 - t) * table[k] + t * table[k + 1]


def _correlation_tables(phi: Activation, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return tables of $D/(1-c)$ and of $E\phi'_1\phi'_2$.

    $\sum_k a_k^2(1-c^k)/(1-c)$ and $\sum_k k\,a_k^2c^{k-1}/q$, at most $E\phi'^2$.

    Args:
        phi: an activation.
        q: second moments, shape (Q,).

    Returns:
        Two tables over q and `TABLE_APART`.
    """
    squares, slope2 = _hermite_squares(phi, q)
    order = np.append(np.arange(1.0, HERMITE + 1), REST)[:, None]
    log_c = np.log1p(-np.minimum(TABLE_APART, 1 - 1e-16))
    ratio = squares @ (-np.expm1(order * log_c) / TABLE_APART)
    slopes = squares @ (order * np.exp((order - 1) * log_c)) / q[:, None]
    return ratio, np.minimum(slopes, slope2[:, None])


def _hermite_squares(phi: Activation, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return $a_k^2$ for k from 1 to `HERMITE` and their rest, (Q, `HERMITE` + 1), and $E\phi'^2$.

    With $H_k = \mathrm{He}_k/\sqrt{k!}$, $\sqrt k H_k = zH_{k-1} - \sqrt{k-1}H_{k-2}$, and the rest
    is $E\phi^2 - \sum_k a_k^2$.
    """
    sqrt_q = np.sqrt(q)[:, None]
    z, weight = nodes(sqrt_q, np.array(kinks(phi) or (0.0,)) + 0 * sqrt_q)
    values = evaluate(phi, sqrt_q * z).phi * weight
    before, now = np.zeros(z.shape), np.ones(z.shape)
    squares = [np.sum(values, axis=1) ** 2]
    for k in range(1, HERMITE + 1):
        before, now = now, (z * now - math.sqrt(k - 1) * before) / math.sqrt(k)
        squares.append(np.sum(values * now, axis=1) ** 2)
    found = np.stack(squares, axis=1)
    at = gauss.moments(phi, q)
    rest = np.maximum(at["second"] - found.sum(axis=1), 0.0)
    return np.concatenate([found[:, 1:], rest[:, None]], axis=1), at["slope2"]
