r"""What one operation does to a signal's moments and to a gradient: the rules, one by one.

`forward(x)` takes a `Signal` to the next; `backward(x)` is the factor on a gradient's second
moment per unit, $E g_{in}^2/E g_{out}^2$, for a gradient that is centred and independent of the
signal, and between units and positions. Weights are independent and centred. Means are over
draws, exact where no approximation is named, at any width, length and variance:

    >>> x = Signal(variance=2.0, correlation=0.5)
    >>> Nonlinearity("relu").forward(x).second, Softmax(64).backward(x)
    (1.0..., 0.000847...)

`tests/benchmarks/theory_error.py` measures each of them.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from propagate import attention, gauss
from propagate.activations import Activation
from propagate.attention import Shape
from propagate.meanfield import Phi, check_keep, check_variances, usable
from propagate.registry import check_count
from propagate.softmax import Rows, overlap
from propagate.types import UnusableInput

SMALL = 1e-5  # variance of a softmax's input at which it is as good as a line
LEAST_UNITS = 4  # of a norm: with fewer, E 1/variance does not exist


class Signal(NamedTuple):
    """Moments of a signal, the same for every unit and position.

    Attributes:
        mean: E x.
        variance: Var x.
        correlation: between the values of a unit at two positions of an input, from -1 to 1.
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


@dataclass(frozen=True)
class Linear:
    r"""$Wx + b$ with $\sigma_w^2$ = fan_in·Var W and $\sigma_b^2$ = Var b."""

    fan_in: int
    fan_out: int
    sigma_w2: float = 1.0
    sigma_b2: float = 0.0

    def __post_init__(self) -> None:
        check_count("fan_in", self.fan_in)
        check_count("fan_out", self.fan_out)
        check_variances(sigma_w2=self.sigma_w2, sigma_b2=self.sigma_b2)

    def forward(self, x: Signal) -> Signal:
        r"""$\sigma_w^2 E x^2 + \sigma_b^2$; two positions share W and b."""
        second, shared = (self.sigma_w2 * m + self.sigma_b2 for m in (x.second, x.shared))
        return signal(0.0, second, shared)

    def backward(self, x: Signal) -> float:
        r"""$\sigma_w^2$ fan_out/fan_in."""
        return self.sigma_w2 * self.fan_out / self.fan_in


@dataclass(frozen=True)
class Nonlinearity:
    r"""$\phi(x)$ of a Gaussian x, by a name, an `Activation` or any function."""

    phi: Phi

    @property
    def own(self) -> Activation:
        """The activation, as an object."""
        return usable(self.phi)

    def forward(self, x: Signal) -> Signal:
        r"""$E\phi$, $\operatorname{Var}\phi$, and $E\phi(x)\phi(x')$."""
        at = gauss.moments(self.own, x.variance, x.mean)
        mean, variance = float(at["mean"][0]), float(at["variance"][0])
        apart = gauss.average_pair(
            self.own,
            lambda a, b: (a.phi - b.phi) ** 2 / 2,
            x.variance,
            1 - x.correlation,
            mean=x.mean,
        )
        return signal(mean, variance + mean**2, variance - float(apart) + mean**2)

    def backward(self, x: Signal) -> float:
        r"""$E\phi'^2$."""
        return float(gauss.moments(self.own, x.variance, x.mean)["slope2"][0])


@dataclass(frozen=True)
class _Norm:
    units: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_count("units", self.units)
        if self.units < LEAST_UNITS:
            raise UnusableInput(
                f"a norm over {self.units} units has a gradient of infinite second moment; "
                f"{LEAST_UNITS} or more are required"
            )
        check_variances(eps=self.eps)

    def _sizes(self, x: Signal) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of what is divided by, without eps, and their weights."""
        raise NotImplementedError

    @property
    def _free(self) -> int:
        """Directions in which a gradient is not taken away."""
        raise NotImplementedError

    def _second(self, x: Signal) -> float:
        size, weight = self._sizes(x)
        return float(weight @ (size / (size + self.eps)))

    def backward(self, x: Signal) -> float:
        r"""$E(f - 2\rho + \rho^2)/(n s^2)$.

        $s^2$ = size + eps, $\rho$ = size/$s^2$; f directions are left of n. For a LayerNorm without
        eps it is $(n-2)/((n-3)\operatorname{Var} x)$.
        """
        size, weight = self._sizes(x)
        share = size / (size + self.eps)
        left = self._free - 2 * share + share**2
        return float(weight @ (left / (size + self.eps))) / self.units


class LayerNorm(_Norm):
    """Units less their mean, over their standard deviation; without scale and shift."""

    @property
    def _free(self) -> int:
        return self.units - 1

    def _sizes(self, x: Signal) -> tuple[np.ndarray, np.ndarray]:
        values, weight = gauss.mean_square(self.units - 1)
        return x.variance * (1 - 1 / self.units) * values, weight

    def forward(self, x: Signal) -> Signal:
        """Unit variance; the correlation that a sample of n units is expected to have."""
        second = self._second(x)
        return signal(0.0, second, second * _sampled(x.correlation, self.units - 1))


class RMSNorm(_Norm):
    """Units over their root mean square; without scale. Of a mean that is not 0, to 1/units."""

    @property
    def _free(self) -> int:
        return self.units

    def _sizes(self, x: Signal) -> tuple[np.ndarray, np.ndarray]:
        spread = x.variance**2 + 2 * x.mean**2 * x.variance  # half the variance of x^2
        units = self.units * x.second**2 / spread if spread else math.inf
        if units > 1e6:
            return np.array([x.second]), np.ones(1)
        values, weight = gauss.mean_square(units)
        return x.second * values, weight

    def forward(self, x: Signal) -> Signal:
        """Unit second moment; mean and correlation go with it."""
        second = self._second(x)
        mean = x.mean * math.sqrt(second / x.second) if x.second else 0.0
        return signal(mean, second, second * _sampled(x.cosine, self.units))


def _sampled(correlation: float, units: int) -> float:
    """Return the expected sample correlation of n pairs."""
    return correlation * (1 - (1 - correlation**2) / (2 * units))


@dataclass(frozen=True)
class Dropout:
    """x/keep with probability keep, else 0 (inverted dropout)."""

    keep: float

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def forward(self, x: Signal) -> Signal:
        """E x^2/keep; the mean, and what two positions share, stay."""
        return signal(x.mean, x.second / self.keep, x.shared)

    def backward(self, x: Signal) -> float:
        """1/keep."""
        return 1 / self.keep


@dataclass(frozen=True)
class Softmax:
    """exp(x)/sum exp(x) over `length` entries, independent and Gaussian (`softmax.Rows`)."""

    length: int

    def __post_init__(self) -> None:
        check_count("length", self.length)

    def forward(self, x: Signal) -> Signal:
        """Mean 1/L; at two positions are two rows."""
        if x.variance < SMALL:
            even = 1 / self.length
            return Signal(even, x.variance * even**2 * (1 - even), x.correlation)
        second = Rows(x.variance, self.length).expect((2, 0))
        shared = overlap(x.variance, self.length, x.correlation)
        return signal(1 / self.length, second / self.length, shared / self.length)

    def backward(self, x: Signal) -> float:
        r"""$(1/L)\,E[\sum y^2 - 2\sum y^3 + (\sum y^2)^2]$."""
        expect = Rows(x.variance, self.length).expect
        bent = expect((2, 0)) - 2 * expect((3, 0)) + expect((2, 0), (2, 0))
        return bent / self.length


@dataclass(frozen=True)
class Attention:
    r"""One head of self-attention without a mask: softmax(QK^T/√head) V W_O.

    Each $\sigma^2$ is fan_in·Var of its weights; `head` is the fan_in of $W_O$. The output's
    correlation is to 1/head.
    """

    length: int
    width: int
    head: int
    sigma_q2: float = 1.0
    sigma_k2: float = 1.0
    sigma_v2: float = 1.0
    sigma_o2: float = 1.0

    def __post_init__(self) -> None:
        for name in ("length", "width", "head"):
            check_count(name, getattr(self, name))
        check_variances(**{f"sigma_{w}2": getattr(self, f"sigma_{w}2") for w in "qkvo"})

    def _moments(self, x: Signal) -> attention.Head:
        scores, own = self.sigma_q2 * self.sigma_k2, x.second - x.shared
        return attention.head(Shape(self.length, self.width, self.head), scores, x.second, own)

    def forward(self, x: Signal) -> Signal:
        """What positions share passes; what is a position's own is averaged by its attention."""
        at, through = self._moments(x), self.sigma_v2 * self.sigma_o2
        return signal(0.0, through * at.second, through * at.covariance)

    def backward(self, x: Signal) -> float:
        """Through values, queries and keys."""
        return self.sigma_v2 * self.sigma_o2 * self._moments(x).gradient
