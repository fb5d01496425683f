"""The moments of a signal, and the contract of an operation on them.

Every rule of `rules` and `norms` is an `Operation` from `Signal` to `Signal`; `signal` makes one
from raw moments. `sampled` and `mean_square` are of finitely many units.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np

SMALL = 1e-5  # variance of a softmax's input at which it is as good as a line


class Signal(NamedTuple):
    """Moments of a signal, the same for every unit and position.

    Attributes:
        mean: E x.
        variance: Var x.
        correlation: between the values of a unit at two positions of an input, from -1 to 1.

    Example:
        >>> Signal(mean=1.0)
        Signal(mean=1.0, variance=1.0, correlation=0.0)
    """

    mean: float = 0.0
    variance: float = 1.0
    correlation: float = 0.0

    @property
    def second(self) -> float:
        """E x^2."""
        return self.variance + self.mean**2

    @property
    def shared(self) -> float:
        """E x x' at two positions."""
        return self.correlation * self.variance + self.mean**2

    @property
    def cosine(self) -> float:
        """E x x'/E x^2, the mean cosine between two positions of many units."""
        return self.shared / self.second if self.second else 0.0


def signal(mean: float, second: float, shared: float) -> Signal:
    """Return the signal with this E x, E x^2 and E x x': Var x = E x^2 - (E x)^2, and so on."""
    variance = max(second - mean**2, 0.0)
    together = min(max(shared - mean**2, -variance), variance)
    return Signal(mean, variance, together / variance if variance else 0.0)


class Operation(Protocol):
    """The contract of every rule."""

    def forward(self, x: Signal) -> Signal:
        """Return the moments after the operation."""
        ...

    def backward(self, x: Signal) -> float:
        """Return the factor on a gradient's second moment per unit; x is what comes in."""
        ...


def sampled(correlation: float, units: int) -> float:
    r"""Return $r(1 - (1-r^2)/2n)$, the expected sample correlation of n pairs, to 1/n.

    Args:
        correlation: r, of the pairs.
        units: n.
    """
    return correlation * (1 - (1 - correlation**2) / (2 * units))


def mean_square(units: float, step: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    r"""Return values and weights of the mean of z^2 over n units, $s = \chi^2_n/n$.

    u = ln s has the smooth density $\propto e^{n(u - e^u)/2}$, over which sums converge at once.

    Args:
        units: n, above 2; it need not be whole.
        step: between values, in standard deviations of the logarithm.
    """
    sd = math.sqrt(2 / units)
    u = np.arange(-8 * sd - 80 / (units - 2), 8 * sd, step * sd)
    log = units / 2 * (u - np.exp(u))
    weight = np.exp(log - log.max())
    return np.exp(u), weight / weight.sum()
