r"""Where the correlation of two inputs settles, over a whole plane of variances at once.

With orthonormal Hermite polynomials $he_k$ and $a_k = E\phi(\sqrt q z)\,he_k(z)$,

$$E\phi(h)\phi(h') = \sum_k a_k^2 c^k,\qquad
\tfrac12E(\phi(h) - \phi(h'))^2 = \sum_k a_k^2 (1 - c^k) = D(q, 1 - c),$$

so one table of coefficients gives both for every c. The c-map at a fixed point q is
$q(1-c') = \sigma_w^2 D$, convex in c on [0, 1]: beside c = 1 it stays where
$D/(1-c) = q/\sigma_w^2$. What the coefficients beyond `ORDER` add up to is known, and is put at
`TAIL`. Depth scales are right to 1 %; `meanfield.fixed_points` has every digit of one point.
"""

import math

import numpy as np

from propagate import gauss
from propagate.activations import Activation

ORDER, TAIL = 160, 240  # Hermite coefficients; the order that stands for all beyond
SECONDS = 200  # second moments of the table
APART = np.geomspace(1e-8, 1.0, 361)  # 1 - c of the table


def settled(
    phi: Activation, sigma_w2: np.ndarray, q: np.ndarray, chi_1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return 1 - c and the slope of the c-map where it settles, at each point.

    Args:
        phi: an activation.
        sigma_w2: variances of the weights times fan_in.
        q: second moments at which the q-map stays; 0, inf or NaN: nowhere.
        chi_1: the slope of the c-map at c = 1, above 1 where it leaves that.
    """
    apart, slope = np.zeros(q.shape), chi_1.copy()
    lives = np.isfinite(q) & (q > 0)
    apart[~lives], slope[~lives] = np.nan, np.nan
    leaves = lives & (chi_1 > 1)
    if leaves.any():
        apart[leaves], slope[leaves] = _chaotic(phi, sigma_w2[leaves], q[leaves], chi_1[leaves])
    return apart, slope


def _chaotic(
    phi: Activation, sigma_w2: np.ndarray, q: np.ndarray, chi_1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    log_q = np.log(q)
    grid = np.linspace(log_q.min(), log_q.max(), SECONDS)
    ratio, slope = _tables(phi, np.exp(grid))
    at = np.clip((log_q - grid[0]) / max(grid[1] - grid[0], 1e-300), 0, SECONDS - 1)
    found = np.empty((2, q.size))
    for block in np.array_split(np.arange(q.size), -(-q.size // 8192)):  # the cache's size
        rows, slopes = (_rows(table, at[block]) for table in (ratio, slope))
        target = q[block] / sigma_w2[block]
        # D/(1 - c) falls as 1 - c grows, from q chi_1/sigma_w^2
        k = np.clip((rows > target[:, None]).sum(axis=1) - 1, 0, len(APART) - 2)
        each = np.arange(len(block))
        high, low = rows[each, k], rows[each, k + 1]
        t = np.clip((high - target) / np.where(high > low, high - low, 1.0), 0, 1)
        found[0, block] = np.exp((1 - t) * np.log(APART[k]) + t * np.log(APART[k + 1]))
        found[1, block] = sigma_w2[block] * ((1 - t) * slopes[each, k] + t * slopes[each, k + 1])
    return found[0], np.minimum(found[1], chi_1)


def _rows(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate the rows of a table."""
    k = np.minimum(at.astype(int), len(table) - 2)
    t = (at - k)[:, None]
    return (1 - t) * table[k] + t * table[k + 1]


def _tables(phi: Activation, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return D(q, 1 - c)/(1 - c) and $E\phi'(h)\phi'(h')$, (q, 1 - c)."""
    squares, slope2 = _coefficients(phi, q)
    order = np.append(np.arange(1.0, ORDER + 1), TAIL)
    log_c = np.log1p(-np.minimum(APART, 1 - 1e-16))
    lost = -np.expm1(order[:, None] * log_c) / APART
    bent = order[:, None] * np.exp((order[:, None] - 1) * log_c)
    ratio = squares @ lost
    slopes = squares @ bent / q[:, None]
    return ratio, np.minimum(slopes, slope2[:, None])


def _coefficients(phi: Activation, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a_k^2, those of 1 to `ORDER` and one for all beyond, (q, ORDER + 1), and E phi'^2."""
    root = np.sqrt(q)[:, None]
    z, weight = gauss.nodes(root, np.array(gauss.kinks(phi) or (0.0,)) + 0 * root)
    value = gauss.evaluate(phi, root * z).phi * weight
    before, now = np.zeros(z.shape), np.ones(z.shape)
    squares = [np.sum(value, axis=1) ** 2]
    for k in range(1, ORDER + 1):
        before, now = now, (z * now - math.sqrt(k - 1) * before) / math.sqrt(k)
        squares.append(np.sum(value * now, axis=1) ** 2)
    found = np.stack(squares, axis=1)
    at = gauss.moments(phi, q)
    beyond = np.maximum(at["second"] - found.sum(axis=1), 0.0)
    return np.concatenate([found[:, 1:], beyond[:, None]], axis=1), at["slope2"]
