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

from dataclasses import dataclass

from propagate.activations import Activation, ActivationLike
from propagate.checks import check_count, check_keep, check_variances
from propagate.theory import gauss
from propagate.theory.mean_field import half_square_distance, integrable
from propagate.theory.operations import attention_moments
from propagate.theory.operations.attention_moments import Shape
from propagate.theory.operations.signal import SMALL, Operation, Signal, signal
from propagate.theory.operations.softmax_moments import Rows, overlap


@dataclass(frozen=True)
class Linear(Operation):
    r"""$Wx + b$ with $\sigma_w^2$ = fan_in·Var W and $\sigma_b^2$ = Var b.

    Attributes:
        fan_in: inputs of a unit.
        fan_out: units.
        sigma_w2: fan_in·Var W.
        sigma_b2: Var b.

    Example:
        >>> Linear(100, 50, sigma_w2=2.0).forward(Signal(variance=3.0)).variance
        6.0
    """

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
class Nonlinearity(Operation):
    r"""$\phi(x)$ of a Gaussian x, by a name, an `Activation` or any function.

    Attributes:
        phi: the activation.

    Example:
        >>> round(Nonlinearity("relu").backward(Signal()), 6)
        0.5
    """

    phi: ActivationLike

    @property
    def own(self) -> Activation:
        """The activation, as an object."""
        return integrable(self.phi)

    def forward(self, x: Signal) -> Signal:
        r"""$E\phi$, $\operatorname{Var}\phi$, and $E\phi(x)\phi(x')$."""
        at = gauss.moments(self.own, x.variance, x.mean)
        mean, variance = float(at["mean"][0]), float(at["variance"][0])
        apart = half_square_distance(self.own, x.variance, 1 - x.correlation, x.mean)
        return signal(mean, variance + mean**2, variance - apart + mean**2)

    def backward(self, x: Signal) -> float:
        r"""$E\phi'^2$."""
        return float(gauss.moments(self.own, x.variance, x.mean)["slope2"][0])


@dataclass(frozen=True)
class Dropout(Operation):
    """x/keep with probability keep, else 0 (inverted dropout).

    Attributes:
        keep: the share that is kept.

    Example:
        >>> Dropout(0.5).backward(Signal())
        2.0
    """

    keep: float

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def forward(self, x: Signal) -> Signal:
        r"""$Ex^2/\rho$, ρ = keep; the mean, and what two positions share, stay."""
        return signal(x.mean, x.second / self.keep, x.shared)

    def backward(self, x: Signal) -> float:
        r"""$1/\rho$."""
        return 1 / self.keep


@dataclass(frozen=True)
class Softmax(Operation):
    """exp(x)/sum exp(x) over `length` independent Gaussian entries (`softmax_moments.Rows`).

    Attributes:
        length: entries.

    Example:
        >>> round(Softmax(4).forward(Signal()).mean, 6)
        0.25
    """

    length: int

    def __post_init__(self) -> None:
        check_count("length", self.length)

    def forward(self, x: Signal) -> Signal:
        r"""$E y = 1/L$, $E y^2 = E\sum_k y_k^2/L$, $E y y' = E\sum_k y_ky'_k/L$ of two rows y, y'.

        Below a variance of `SMALL` the softmax is a line: $\operatorname{Var}y =
        \operatorname{Var}x\,(1-1/L)/L^2$.
        """
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
class Attention(Operation):
    r"""One head of self-attention without a mask: softmax(QK^T/√head) V W_O.

    Each $\sigma^2$ is fan_in·Var of its weights; `head` is the fan_in of $W_O$. The output's
    correlation is to 1/head.

    Attributes:
        length: positions.
        width: units of the signal.
        head: units of the head.
        sigma_q2: of the weights of queries.
        sigma_k2: of keys.
        sigma_v2: of values.
        sigma_o2: of the output.

    Example:
        >>> round(Attention(length=1, width=64, head=16).forward(Signal()).variance, 3)
        1.0
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

    def _moments(self, x: Signal) -> attention_moments.Head:
        r"""Moments at $\sigma_q^2\sigma_k^2$, $E x^2$ and $\omega = E x^2 - E x x'$."""
        scores, own = self.sigma_q2 * self.sigma_k2, x.second - x.shared
        return attention_moments.head(
            Shape(self.length, self.width, self.head), scores, x.second, own
        )

    def forward(self, x: Signal) -> Signal:
        r"""$\sigma_v^2\sigma_o^2$ times the moments of `attention_moments.head`.

        What positions share passes; what is a position's own is averaged by its attention.
        """
        at, through = self._moments(x), self.sigma_v2 * self.sigma_o2
        return signal(0.0, through * at.second, through * at.covariance)

    def backward(self, x: Signal) -> float:
        r"""$\sigma_v^2\sigma_o^2$ times what comes back through values, queries and keys."""
        return self.sigma_v2 * self.sigma_o2 * self._moments(x).gradient
