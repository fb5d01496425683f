r"""Points and weights of Gaussian averages of functions with kinks.

`nodes` are Gauss–Legendre points on `panels` that end at the kinks, where Gauss–Hermite would
converge slowly. Panels grow geometrically from each kink, so that a feature of size 1 in h is seen
at every scale of h = scale·z, up to the `reach` in z beyond which nothing counts. That is the
`FINEST` rule; those of fewer points are for where they are tried first and agree with it.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from propagate.activations import Activation
from propagate.theory.derivatives import evaluate

REACH = 13.0  # standard deviations, beyond which the density is below 1e-37
FARTHEST = 37.0  # the same for a phi that grows as e^h does: beyond it the density is no float64
UNSEEN = 1e-20  # of the largest phi^4 times density: what may be left out
ORDER = 20  # points in a panel
AROUND = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # ends of panels in h, from each kink
WITHIN = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0, REACH)  # ends of panels in z
BEYOND = (16.0, 19.0, 22.0, 25.0, 28.0, 31.0, 34.0, FARTHEST)  # the same, where these matter
EVEN = 9.0  # standard deviations that equal steps go to


class Rule(NamedTuple):
    """Which panels there are, and the points in each: `order`; `within` and `around` end them."""

    order: int = ORDER
    within: tuple[float, ...] = WITHIN
    around: tuple[float, ...] = AROUND


FINEST = Rule()


def even(step: float) -> Rule:
    """Return the midpoint rule in z, whose error is of order e^(-1/step) where phi is analytic."""
    return Rule(1, tuple(step * k for k in range(1, math.ceil(EVEN / step) + 1)), (0.0,))


def sparse(order: int) -> Rule:
    """Return panels that end at few places but the kinks, for what is smooth between them."""
    return Rule(order, (2.0, 4.5, EVEN), (0.0,))


FEWER = (Rule(8), Rule(12))
KINKED = (*(sparse(order) for order in (12, 16, 24)), *FEWER)
SMOOTH = (even(0.3), even(0.2), even(0.1), *FEWER)


def fewer(kinked: bool, epsilon: float) -> tuple[Rule, ...]:
    """Return rules of fewer points than the finest, in the order of trying.

    Between kinks panels are fewer only while the outer of two averages is the smoother one.
    """
    return SMOOTH if not kinked else KINKED if epsilon <= 1 else FEWER


def nodes(
    scale: np.ndarray,
    at: np.ndarray,
    rule: Rule = FINEST,
    dims: float = math.inf,
    reach: float = REACH,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return points z and weights w with $\sum w f(z) = E f(z)$, row by row.

    w includes the density, $e^{-z^2/2}/\sqrt{2\pi}$, or on a sphere that of
    $z = \sqrt{\rm dims}\sin\alpha$, which is $\propto \cos^{{\rm dims}-2}\alpha$ over $\alpha$.

    Args:
        scale: of h = scale·z, shape (rows, 1).
        at: kinks in h, shape (rows, kinks).
        rule: the panels.
        dims: of the sphere of radius sqrt(dims) of which z is a coordinate, 2 or more.
        reach: where to end, in z.

    Returns:
        z and w, each of shape (rows, points).
    """
    if len(rule.around) == 1 and not at.any():  # nothing in h, at any scale
        z, weight = _alike(rule, dims, reach)
        shape = len(at), z.size
        return np.broadcast_to(z, shape), np.broadcast_to(weight, shape)
    return _nodes(scale, at, rule, dims, reach)


@functools.lru_cache(maxsize=256)
def _alike(rule: Rule, dims: float, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the points and weights of a row without kinks, or with one at 0."""
    z, weight = _nodes(np.ones((1, 1)), np.zeros((1, 0)), rule, dims, reach)
    return z[0], weight[0]


def _nodes(
    scale: np.ndarray, at: np.ndarray, rule: Rule, dims: float, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    around = np.asarray(rule.around)
    ends = np.concatenate([-around[:0:-1], around])
    centres = np.concatenate([at, np.zeros((len(at), 1))], axis=1)
    in_h = (centres[:, :, None] + ends).reshape(len(at), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        in_z = np.where(scale > 0, in_h / scale, 0.0)
    within = np.asarray(rule.within + (BEYOND if reach > REACH else ()))
    both = np.concatenate([-within[::-1], [0.0], within])
    edges = np.concatenate([in_z, both + 0 * scale], axis=1)
    edges = np.sort(np.clip(edges, *(min(reach, math.sqrt(dims)) * np.array([-1, 1]))), axis=1)
    edges = edges[:, np.append(True, (np.diff(edges, axis=1) > 0).any(axis=0))]
    if math.isinf(dims):
        z, weight = panels(edges, rule.order)
        return z, weight * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    turned = np.arcsin(np.clip(edges / math.sqrt(dims), -1, 1))
    angle, weight = panels(turned, rule.order, soft=True)
    weight *= np.cos(angle) ** (dims - 2)
    return math.sqrt(dims) * np.sin(angle), weight / weight.sum(axis=1, keepdims=True)


def panels(edges: np.ndarray, order: int, soft: bool = False) -> tuple[np.ndarray, np.ndarray]:
    r"""Return Gauss–Legendre points and weights on the panels between edges, row by row.

    `soft` is for square roots of the distance to an edge: $x = \sin(\pi u/2)$ makes them lines.
    """
    x, w = _legendre(order)
    if soft:
        x, w = np.sin(math.pi / 2 * x), w * math.pi / 2 * np.cos(math.pi / 2 * x)
    width, middle = np.diff(edges, axis=1) / 2, (edges[:, 1:] + edges[:, :-1]) / 2
    points, weights = middle[..., None] + width[..., None] * x, width[..., None] * w
    return points.reshape(len(edges), -1), weights.reshape(len(edges), -1)


@functools.cache
def _legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(order)


def reach(phi: Activation, scale: float) -> float:
    r"""Return how many standard deviations of h = scale·z count: 13, or 37.

    37 if $\max(|\phi|, |\phi'|)^4 e^{-z^2/2}$ beyond z = 13 is more than `UNSEEN` of its largest.
    Such a phi grows as e^h does; what lies beyond 37 is beyond float64 too, and comes out inf.
    """
    if not 0 < scale < math.inf:
        return REACH
    return _reach(phi, octaves(scale))


@functools.lru_cache(maxsize=4096)
def _reach(phi: Activation, octaves: int) -> float:
    """Return `reach` at the scale 2^octaves, which the scales of one octave share."""
    z = np.concatenate([np.linspace(-1, 1, 105) * REACH, BEYOND, -np.asarray(BEYOND)])
    with np.errstate(all="ignore"):
        at = evaluate(phi, 2.0**octaves * z)
        size = 4 * np.log(np.maximum(abs(at.phi), abs(at.slope))) - z * z / 2
        beyond = np.max(size[105:]) - np.max(size[:105])
    return REACH if beyond < math.log(UNSEEN) else FARTHEST


def octaves(x: float) -> int:
    """Return log2 x, rounded up but for the last digits: what numbers of one octave share."""
    return math.ceil(math.log2(min(max(x, 1e-300), 1e300)) - 1e-9)


def leaves(at: np.ndarray, apart: float, middle: float, square: float) -> np.ndarray:
    r"""Return the $\delta = (h_+ - h_-)/2$ at which a kink leaves the sphere: the average bends.

    With $a^2$ = q ε/2, $b^2$ = q - $a^2$ and a kink at k, the ellipse
    $(\delta/a)^2 + ((k \mp \delta)/b)^2$ = dims is met at
    $\delta = \pm k a^2/q \pm ab\sqrt{{\rm dims}\cdot q - k^2}/q$, written with $k^2/q$ inside.
    """
    if math.isinf(square):
        return np.zeros(0)
    whole = math.hypot(apart, middle)
    far = np.sqrt(np.maximum(square - (at / whole) ** 2, 0)) * middle / whole * apart
    near = at * (apart / whole) ** 2
    return np.concatenate([near - far, near + far])
