r"""A head of self-attention on random tokens, forward and backward.

Tokens $x_j = m_j + \sqrt\omega\,\eta_j$ share a part m and have one of their own, $\omega = v(1-r)$
per unit. In $s_{ij} = x_i\cdot u_j$, $u = W_K W_Q^T x/\sqrt{d_h}$ is isotropic and independent
of the tokens, so that what is shared cancels and a row of attention is *exactly* a softmax of
independent $\tau z$, $z = \eta\cdot\hat u$, with $\tau^2 = \omega|u|^2$, mean
$\sigma_q^2\sigma_k^2\,E x^2\,\omega$, a product of mean squares over $d_h$, d and d units.

Values see the tokens, and $\sum_j A_{ij}x_j$ is longer along $\hat u_i$ than across it. A gradient
comes back through the values, the queries and the keys; with $e_i = W_V W_O g_i$,

$$\frac{dL}{dx_j} = \sum_i A_{ij}e_i + M\sum_k A_{jk}(x_k-\bar x_j)(x_k-\bar x_j)^T e_j
+ \sum_i A_{ij}\,e_i\cdot(x_j-\bar x_i)\,u_i,\quad M = W_Q W_K^T/\sqrt{d_h}.$$

Each term is averaged over rows of the softmax (`softmax_moments.Rows`), along $\hat u$ and in the d
- 1 directions across it. Left out are products of different terms that vanish as 1/(L d).
"""

import functools
import math
from typing import NamedTuple

from propagate.theory.operations.signal import mean_square
from propagate.theory.operations.softmax_moments import Rows, overlap

COARSE = 0.75  # of `mean_square`: a mean over rows is smooth in tau
RARE = 1e-6


class Shape(NamedTuple):
    """Tokens, their units d, units d_h of the head."""

    length: int
    width: int
    head: int


class Head(NamedTuple):
    """What a head makes of tokens, with weights of unit sigma_v^2 and sigma_o^2.

    Attributes:
        second: E y^2 of the output.
        covariance: E y y' of two positions.
        gradient: the factor on a gradient's second moment.
    """

    second: float
    covariance: float
    gradient: float


@functools.lru_cache(maxsize=1024)
def head(shape: Shape, scores: float, second: float, own: float) -> Head:
    r"""Return the moments of a head, averages of `_row` over $\tau^2$. Derived here.

    $E y^2 = m^2 + \omega E|\langle\eta\rangle|^2/d$, and two positions have
    $m^2 + \omega(E\sum_k A_kA'_k + r\,(E\langle z\rangle)^2/d)$, r their cosine.

    Args:
        shape: of the tokens and the head.
        scores: $\sigma_q^2\sigma_k^2$.
        second: E x^2 of a unit.
        own: $\omega$, the variance of a unit's own part at a position.
    """
    _, d, d_h = shape
    shared, tau2 = second - own, scores * second * own
    units = 2 / ((1 + 2 / d_h) * (1 + 2 / d) ** 2 - 1)  # as many have the same spread
    sizes, weights = mean_square(units, COARSE)
    kept = weights > RARE
    out = gradient = 0.0
    for size, weight in zip(sizes[kept], weights[kept] / weights[kept].sum(), strict=True):
        row = _row(tau2 * size, shape)
        out += weight * (shared + own * row.mixed)
        gradient += weight * _gradient(row, tau2 * size, own**2 * scores, shape)
    middle = Rows(tau2, shape.length).expect((1, 1)) ** 2
    cosine = shared / second
    both = overlap(tau2, shape.length, cosine) + cosine * middle / d
    return Head(float(out), shared + own * both, float(gradient))


class _Row(NamedTuple):
    """Means over rows A of attention, A-weighted sums written <·>.

    Attributes:
        alone: sum A^2; `bent`: |dA/ds|^2 = sum A^2 - 2 sum A^3 + (sum A^2)^2.
        spread: (1 - sum A^2)^2.
        mixed: |<eta>|^2/d, along u and across.
        tilted: sum A^2 (z - <z>); `lever`: sum A^2 (z - <z>)^2.
        narrow: (<z^2> - <z>^2)^2.
    """

    alone: float
    bent: float
    spread: float
    mixed: float
    tilted: float
    lever: float
    narrow: float


def _row(tau2: float, shape: Shape) -> _Row:
    r"""Return the means that `_Row` names, over the softmax of L independent N(0, $\tau^2$)."""
    e = Rows(tau2, shape.length).expect
    one, mean = (2, 0), (1, 1)
    alone, twice = e(one), e(one, one)
    return _Row(
        alone=alone,
        bent=alone - 2 * e((3, 0)) + twice,
        spread=1 - 2 * alone + twice,
        mixed=((shape.width - 1) * alone + e(mean, mean)) / shape.width,
        tilted=e((2, 1)) - e(one, mean),
        lever=e((2, 2)) - 2 * e((2, 1), mean) + e(one, mean, mean),
        narrow=e((1, 2), (1, 2)) - 2 * e((1, 2), mean, mean) + e(mean, mean, mean, mean),
    )


def _gradient(row: _Row, tau2: float, queries: float, shape: Shape) -> float:
    r"""Return the factor on the second moment of a gradient: values, queries, keys, and a cross.

    Derived here, in the names of `_Row` and with $\kappa$ = queries,
    $\omega^2\sigma_q^2\sigma_k^2$: alone + [κ·(through M and the spread of a row) + $\tau^2$((d-1)
    bent + lever) + 2τ tilted]/d.
    """
    d, across = shape.width, shape.width - 1
    along = (2 + d / shape.head) / d  # |M u|^2 of this u; of all directions the sum is 1
    other = (1 - along) / across
    through_queries = along * (row.narrow + across * row.lever)
    through_queries += other * across * (row.lever + d * row.bent + row.spread)
    through_keys = tau2 * (across * row.bent + row.lever)
    cross = 2 * math.sqrt(tau2) * row.tilted
    return row.alone + (queries * through_queries + through_keys + cross) / d
