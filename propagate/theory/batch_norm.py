r"""Batch normalisation before an activation, exact at any batch size (Yang et al., 2019).

A unit's values over a batch of B are a Gaussian vector; centred and divided by their standard
deviation they are uniform on the sphere of radius $\sqrt B$ in the B - 1 centred dimensions. One
component $y$ is therefore a coordinate of a sphere of B - 1 dimensions, and two have the cosine
$-1/(B-1)$: every moment is an integral over one or two of them, for any activation. With
$\kappa = E\phi(y_1)^2 - E\phi(y_1)\phi(y_2)$, squared gradients grow in each layer by

$$\frac{(B-1)E\phi'^2 - E(y\phi')^2 + E\phi'_1\phi'_2 + E y_1\phi'_1 y_2\phi'_2}{(B-3)\,\kappa},$$

which is Theorem 8 for a ReLU, $(B-2)/(B-3)$ without an activation, and
$E\phi'^2/\operatorname{Var}\phi$ in large batches; derived here for any other activation. `moments`
are the integrals, `batch_norm_rate` is this factor; `layer_maps` puts the same moments together to
what a layer makes of a signal and its gradient.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from propagate.activations import Activation, ActivationLike
from propagate.checks import check_count
from propagate.theory import gauss, mean_field
from propagate.types import UnusableInput

SMALLEST = 4  # of batches: of three the squared gradient has no mean


class Moments(NamedTuple):
    r"""Expectations over y, one normalised value of a batch, or over two.

    Attributes:
        second: $E\phi^2$; `apart`: $\tfrac12E(\phi_1 - \phi_2)^2$, κ.
        slope2: $E\phi'^2$; `leaning2`: $E(y\phi')^2$.
        slopes: $E\phi'_1\phi'_2$; `leaning`: $E y_1\phi'_1 y_2\phi'_2$.
        rate: the growth of squared gradients per layer.
    """

    second: float
    apart: float
    slope2: float
    leaning2: float
    slopes: float
    leaning: float
    rate: float


@functools.lru_cache(maxsize=256)
def moments(phi: Activation, batch: float) -> tuple[Moments, Moments]:
    r"""Return the moments at a batch size B, and bounds on their errors from a coarser rule.

    $y_1, y_2$ are coordinates of a sphere of B - 1 dimensions, of second moment 1 and cosine
    $-1/(B-1)$.

    Args:
        phi: an activation.
        batch: B, 4 or more; inf for independent Gaussians.
    """
    cosine = 0.0 if math.isinf(batch) else -1 / (batch - 1)

    def at(order: int) -> np.ndarray:
        """Return the moments by panels of so many points, the rate last, shape (7,)."""
        values = gauss.average_pair(phi, _products, 1.0, 1 - cosine, order, batch - 1)
        with np.errstate(all="ignore"):
            return np.append(values, _rate(values, batch))

    value, error = gauss.refined(at)
    return Moments(*map(float, value)), Moments(*map(float, error))


def _products(a: gauss.Values, b: gauss.Values) -> np.ndarray:
    r"""Return what `Moments` averages, stacked in front.

    $\phi^2$, $\tfrac12(\phi_1-\phi_2)^2$, $\phi'^2$, $(y\phi')^2$, where one value is meant the
    mean over both, and $\phi'_1\phi'_2$, $y_1\phi'_1y_2\phi'_2$.
    """
    lean_a, lean_b = a.h * a.slope, b.h * b.slope
    second, slope2 = (a.phi**2 + b.phi**2) / 2, (a.slope**2 + b.slope**2) / 2
    alone = second, mean_field.square_distance(a, b) / 2, slope2, (lean_a**2 + lean_b**2) / 2
    return np.stack([*alone, a.slope * b.slope, lean_a * lean_b])


def _rate(values: np.ndarray, batch: float) -> float:
    r"""Return the factor above, or $E\phi'^2/\operatorname{Var}\phi$ at B = inf."""
    _, apart, slope2, leaning2, slopes, leaning = values
    if math.isinf(batch):
        return slope2 / apart
    return ((batch - 1) * slope2 - leaning2 + slopes + leaning) / (batch - 3) / apart


def batch_norm_rate(phi: ActivationLike, batch: float = math.inf) -> gauss.Estimate:
    r"""Return by how much a squared gradient grows in each layer of a batch-normalised network.

    For layers $h' = W\phi(\mathrm{BN}(h))$ without skips, whatever the variance of the weights.

    Args:
        phi: an activation.
        batch: its size, 4 or more; inf for the limit $E\phi'^2/\operatorname{Var}\phi$.

    Returns:
        The factor, and a bound on its error.

    Raises:
        UnusableInput: a batch below 4, or phi is constant, so that there is nothing to normalise.

    Example:
        >>> round(batch_norm_rate("relu").value, 8), round(batch_norm_rate("relu", 32).value, 8)
        (1.46694221, 1.52195283)

    Reference:
        Yang et al. (2019), Theorems 5 and 8, arXiv:1902.08129.
    """
    value, error = moments(mean_field.integrable(phi), checked(batch))
    if not value.apart > 0 or not math.isfinite(value.rate):
        raise UnusableInput("phi must tell the inputs of a batch apart and have finite moments")
    return gauss.Estimate(value.rate, error.rate)


def checked(batch: float) -> float:
    """Return the size of a batch.

    Raises:
        UnusableInput: it is neither a count of 4 or more nor inf.
    """
    if batch != math.inf:
        check_count("batch", batch, SMALLEST)
    return batch
