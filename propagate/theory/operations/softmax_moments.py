r"""Exact expectations over the softmax of L independent Gaussians, at any L and any variance.

With $x_k = \sigma z_k$ and $S = \sum_k e^{x_k}$, what is hard is $S^{-n}$. It is an integral of
factors that are independent between entries:

$$S^{-n} = \frac1{\Gamma(n)}\int_{-\infty}^\infty t^n e^{-tS}\,du,\quad t = e^u
\qquad\Rightarrow\qquad
E\prod_{k\le m} y_k^{a_k} z_k^{b_k}
= \frac1{\Gamma(n)}\int \prod_{k\le m} K_{a_k b_k}(u)\,M(u)^{L-m}\,du,$$

$n = \sum a_k$, $K_{ab} = E[w^a z^b e^{-w}]$, $M = K_{00}$, $w = e^{u+\sigma z}$. Every factor is
bounded and smooth in u and z, so plain sums over a grid converge to rounding.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

STEP = 0.3  # of u and of sigma z: sums are exact to about 1e-10
REACH = 8.0  # standard deviations of z
TAIL = 24.0  # of u beyond what z can move it: e^-24 is left out
POWERS = 5  # of z, from 0
HUGE, TINY = 700.0, 1e-300  # exp of the one and log of the other are float64s
Sum = tuple[int, int]  # (a, b): the sum of y^a z^b over the entries of a row


class Rows:
    """Rows y of a softmax over `length` independent N(0, variance).

    Example:
        >>> rows = Rows(1.0, 32)
        >>> round(rows.expect((2, 0)), 6)  # E sum_k y_k^2
        0.072814
    """

    def __init__(self, variance: float, length: int) -> None:
        r"""Make $w = e^{u+\sigma z}$, $\ln M(u)$ $1 - M = E(1 - e^{-w})$, and $z^b$."""
        self.length, sigma = length, math.sqrt(variance)
        self.z, self.density = _gaussian(sigma)
        self.x = np.minimum(_grid(sigma, length)[:, None] + sigma * self.z, HUGE)
        self.w = np.exp(self.x)
        self.log_rest = _log(-np.expm1(-self.w) @ self.density)
        self.powers = self.density[:, None] * self.z[:, None] ** np.arange(POWERS)
        self._known: dict[int, np.ndarray] = {}

    def expect(self, *sums: Sum) -> float:
        """Return the mean of a product of sums of y^a z^b over the entries of a row.

        A product of sums is a sum over all ways in which their indices may coincide. The powers b
        add up to 4 at most.
        """
        total = 0.0
        for blocks in _partitions(sums):
            merged = [(sum(a for a, _ in block), sum(b for _, b in block)) for block in blocks]
            total += math.perm(self.length, len(merged)) * self._apart(merged)
        return total

    def _apart(self, factors: Sequence[Sum]) -> float:
        r"""Return $E\prod_k y_k^{a_k}z_k^{b_k}$ of entries that are all different, as above."""
        if len(factors) > self.length:
            return 0.0
        product = np.exp((self.length - len(factors)) * self.log_rest)
        for factor in factors:
            product = product * self._factor(factor)
        return float(product.sum()) * STEP / math.gamma(sum(a for a, _ in factors))

    def _factor(self, of: Sum) -> np.ndarray:
        r"""Return $K_{ab}(u) = E[w^az^be^{-w}]$ over the grid of u."""
        a, b = of
        if a not in self._known:
            self._known[a] = np.exp(a * self.x - self.w) @ self.powers
        return self._known[a][:, b]


def overlap(variance: float, length: int, correlation: float) -> float:
    r"""Return $E\sum_k y_k y'_k$ of two rows whose $z_k, z'_k$ have this correlation.

    $L\iint E[ww'e^{-w-w'}]\,(E e^{-w-w'})^{L-1}\,du\,du'$, as above with n = 1 for each row. Given
    what z and z' share, they are independent; what is not shared is averaged once, into a table,
    between whose entries logarithms are taken as lines: exact to about 1e-4.

    Example:
        >>> round(overlap(1.0, 64, 0.0) * 64, 3)  # independent rows: sum_k (1/L)^2
        1.0
    """
    sigma = math.sqrt(variance)
    common, own = (sigma * math.sqrt(share) for share in (abs(correlation), 1 - abs(correlation)))
    z, chance = _gaussian(own)
    v = np.arange(-math.log(length) - 2 * REACH * sigma - TAIL, 2 * REACH * sigma + 6, STEP / 8)
    w = np.exp(np.minimum(v[:, None] + own * z, HUGE))
    tables = [np.log(table @ chance + TINY) for table in (w * np.exp(-w), -np.expm1(-w))]
    z, density = _gaussian(common)
    u = _grid(sigma, length)
    one, two = u[:, None] + common * z, u[:, None] + math.copysign(common, correlation) * z
    found = [[np.exp(np.interp(at, v, table)) for table in tables] for at in (one, two)]
    (made, lost), (other_made, other_lost) = found
    missing = (lost @ density)[:, None] + ((1 - lost) * density) @ other_lost.T  # 1 - E e^(-w - w')
    both = (made * density) @ other_made.T * np.exp((length - 1) * _log(missing))
    return float(length * both.sum()) * STEP**2


def _gaussian(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Return z, close enough for $e^{\sigma z}$, and weights $e^{-z^2/2}\,dz/\sqrt{2\pi}$."""
    step = STEP / max(sigma, 1.0)
    z = np.arange(-REACH, REACH + step, step)
    return z, np.exp(-z * z / 2) * step / math.sqrt(2 * math.pi)


def _grid(sigma: float, length: int) -> np.ndarray:
    """Return the u over which the integral is a sum, from where L e^u is nothing."""
    return np.arange(-math.log(length) - REACH * sigma - TAIL, REACH * sigma + 6.0, STEP)


def _log(lost: np.ndarray) -> np.ndarray:
    """Return ln M = log1p(-(1 - M)), given 1 - M without its cancellation."""
    return np.log1p(-np.minimum(lost, 1 - 1e-16))


def _partitions(items: Sequence[Sum]) -> Iterator[list[list[Sum]]]:
    """Yield every way of putting the items into groups."""
    if len(items) == 1:
        yield [[items[0]]]
        return
    for rest in _partitions(items[1:]):
        yield [[items[0]], *rest]
        for k, block in enumerate(rest):
            yield [*rest[:k], [items[0], *block], *rest[k + 1 :]]
