r"""Layer normalisation and RMS normalisation of finitely many units.

Both divide n units by $\sqrt{s^2}$, $s^2$ = size + eps. `_Norm` has what they share, an average
over the size, a mean of squares that varies from sample to sample; each class says how the size is
distributed, how many directions of a gradient are left, and what becomes of the signal.
"""

import math
from dataclasses import dataclass

import numpy as np

from propagate.checks import check_count, check_variances
from propagate.theory.operations.signal import Operation, Signal, mean_square, sampled, signal
from propagate.types import UnusableInput

LEAST_UNITS = 4  # of a norm: with fewer, E 1/variance does not exist


@dataclass(frozen=True)
class _Norm(Operation):
    """What both norms share: units over the root of their size and eps."""

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
        r"""$E[{\rm size}/({\rm size} + {\rm eps})]$, of the normalised units."""
        size, weight = self._sizes(x)
        return float(weight @ (size / (size + self.eps)))

    def backward(self, x: Signal) -> float:
        r"""$E[(f - 2\rho + \rho^2)/(n s^2)]$.

        Derived here: $s^2$ = size + eps, $\rho$ = size/$s^2$; f directions are left of n. For a
        LayerNorm without eps it is $(n-2)/((n-3)\operatorname{Var} x)$.
        """
        size, weight = self._sizes(x)
        share = size / (size + self.eps)
        left = self._free - 2 * share + share**2
        return float(weight @ (left / (size + self.eps))) / self.units


class LayerNorm(_Norm):
    """Units less their mean, over their standard deviation; without scale and shift.

    Attributes:
        units: n.
        eps: added to the variance.

    Example:
        >>> round(LayerNorm(256).forward(Signal(variance=9.0)).variance, 3)
        1.0
    """

    @property
    def _free(self) -> int:
        """f = n - 1: but for the mean."""
        return self.units - 1

    def _sizes(self, x: Signal) -> tuple[np.ndarray, np.ndarray]:
        r"""$\operatorname{Var}x\,\chi^2_{n-1}/n$."""
        values, weight = mean_square(self.units - 1)
        return x.variance * (1 - 1 / self.units) * values, weight

    def forward(self, x: Signal) -> Signal:
        r"""$E[{\rm size}/s^2]$, 1 without eps; the correlation is that of n - 1 samples."""
        second = self._second(x)
        return signal(0.0, second, second * sampled(x.correlation, self.units - 1))


class RMSNorm(_Norm):
    """Units over their root mean square; without scale. Of a mean that is not 0, to 1/units.

    Attributes:
        units: n.
        eps: added to the mean square.

    Example:
        >>> round(RMSNorm(256).forward(Signal(variance=9.0)).variance, 3)
        1.0
    """

    @property
    def _free(self) -> int:
        """f = n."""
        return self.units

    def _sizes(self, x: Signal) -> tuple[np.ndarray, np.ndarray]:
        r"""$Ex^2\,\chi^2_m/m$, with the m that gives $x^2$ its own variance, n if the mean is 0."""
        spread = x.variance**2 + 2 * x.mean**2 * x.variance  # half the variance of x^2
        units = self.units * x.second**2 / spread if spread else math.inf
        if units > 1e6:
            return np.array([x.second]), np.ones(1)
        values, weight = mean_square(units)
        return x.second * values, weight

    def forward(self, x: Signal) -> Signal:
        r"""$E[{\rm size}/s^2]$, 1 without eps; the mean and the cosine go with it."""
        second = self._second(x)
        mean = x.mean * math.sqrt(second / x.second) if x.second else 0.0
        return signal(mean, second, second * sampled(x.cosine, self.units))
