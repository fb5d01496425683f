"""The moments of a signal, and the contract of an operation on them."""

from typing import NamedTuple, Protocol

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
    """Return the signal with this E x, E x^2 and E x x'."""
    variance = max(second - mean**2, 0.0)
    together = min(max(shared - mean**2, -variance), variance)
    return Signal(mean, variance, together / variance if variance else 0.0)


class Operation(Protocol):
    """What every rule has."""

    def forward(self, x: Signal) -> Signal:
        """Return the moments after the operation."""
        ...

    def backward(self, x: Signal) -> float:
        """Return the factor on a gradient's second moment; x is what comes in."""
        ...


def sampled(correlation: float, units: int) -> float:
    """Return the expected sample correlation of n pairs."""
    return correlation * (1 - (1 - correlation**2) / (2 * units))
