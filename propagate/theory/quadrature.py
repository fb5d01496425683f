r"""Points and weights of Gaussian averages of functions with kinks.

`nodes` are Gauss–Legendre points on `panels` that end at the kinks, where Gauss–Hermite would
converge slowly. Panels grow geometrically from each kink, so that a feature of size 1 in h is seen
at every scale of h = scale·z, up to the `reach` in z beyond which nothing counts.
"""

import functools
import math

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


def nodes(
    scale: np.ndarray,
    at: np.ndarray,
    order: int = ORDER,
    dims: float = math.inf,
    reach: float = REACH,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return points z and weights w with $\sum w f(z) = E f(z)$, row by row.

    w includes the density, $e^{-z^2/2}/\sqrt{2\pi}$, or on a sphere that of
    $z = \sqrt{\rm dims}\sin\alpha$, which is $\propto \cos^{{\rm dims}-2}\alpha$ over $\alpha$.

    Args:
        scale: of h = scale·z, shape (rows, 1).
        at: kinks in h, shape (rows, kinks).
        order: points in a panel.
        dims: of the sphere of radius sqrt(dims) of which z is a coordinate, 2 or more.
        reach: where to end, in z.

    Returns:
        z and w, each of shape (rows, points).
    """
    around = np.asarray(AROUND)
    ends = np.concatenate([-around[:0:-1], around])
    centres = np.concatenate([at, np.zeros((len(at), 1))], axis=1)
    in_h = (centres[:, :, None] + ends).reshape(len(at), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        in_z = np.where(scale > 0, in_h / scale, 0.0)
    within = np.asarray(WITHIN + (BEYOND if reach > REACH else ()))
    both = np.concatenate([-within[::-1], [0.0], within])
    edges = np.concatenate([in_z, both + 0 * scale], axis=1)
    edges = np.sort(np.clip(edges, *(min(reach, math.sqrt(dims)) * np.array([-1, 1]))), axis=1)
    edges = edges[:, np.append(True, (np.diff(edges, axis=1) > 0).any(axis=0))]
    if math.isinf(dims):
        z, weight = panels(edges, order)
        return z, weight * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    angle, weight = panels(np.arcsin(np.clip(edges / math.sqrt(dims), -1, 1)), order, soft=True)
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
    return _reach(phi, eighths(scale))


@functools.lru_cache(maxsize=4096)
def _reach(phi: Activation, eighths: int) -> float:
    """Return `reach` at the scale 2^(eighths/8), which nearly equal scales share."""
    z = np.concatenate([np.linspace(-1, 1, 105) * REACH, BEYOND, -np.asarray(BEYOND)])
    with np.errstate(all="ignore"):
        at = evaluate(phi, 2 ** (eighths / 8) * z)
        size = 4 * np.log(np.maximum(abs(at.phi), abs(at.slope))) - z * z / 2
        beyond = np.max(size[105:]) - np.max(size[:105])
    return REACH if beyond < math.log(UNSEEN) else FARTHEST


def eighths(x: float) -> int:
    """Return 8 log2 x, rounded up: what nearly equal numbers share."""
    return math.ceil(8 * math.log2(max(x, 1e-300)))
