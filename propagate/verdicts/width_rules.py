r"""Powers of width: fits to the record of a coordinate check, and what a parametrisation asks.

$\text{rms} \propto \text{width}^p$: a level for each seed and one slope are fitted by least squares
to log10 rms against log10 width. The interval of the slope is Student's t, from what is left over:
the scatter of the seeds and any bend.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from propagate.types import UnusableInput
from propagate.verdicts.growth import student
from propagate.verdicts.thresholds import WIDTH_EXPONENT

Parametrisation = Literal["standard", "mup"]
Quantity = Literal["size", "change", "signal gradient", "gradient", "update"]
Outcome = Literal[
    "not finite", "grows", "shrinks", "inconclusive", "zero", "steady", "allowed", "not judged"
]
OFF: tuple[Outcome, ...] = ("not finite", "grows", "shrinks")
SHOWN = 5  # exponents in words
PRODUCTS = ("matmul", "conv", "tag")  # judged though they may have no parameter
VARIABLES: dict[Quantity, str] = {
    "size": "log10_forward_q",
    "change": "log10_change_q",
    "signal gradient": "log10_backward_q",
    "gradient": "log10_gradient_q",
    "update": "log10_update_q",
}


class Exponent(NamedTuple):
    """The power of width in one rms.

    Attributes:
        name: of the site, or of the parameter.
        quantity: `"size"` of a signal, its `"change"` since initialisation, its `"signal
            gradient"`; `"gradient"` and `"update"` of a parameter.
        step: after how many updates.
        value: the power, by least squares.
        low: lower end of its interval.
        high: upper end.
        outcome: `"steady"` within ±`thresholds.WIDTH_EXPONENT`, `"allowed"` to shrink, `"zero"`
            at every width, `"not judged"`, or what is wrong.
    """

    name: str
    quantity: Quantity
    step: int
    value: float
    low: float
    high: float
    outcome: Outcome

    def __str__(self) -> str:
        """Return it as a sentence."""
        plural = "s" if self.step > 1 else ""
        when = f"after {self.step} update{plural}" if self.step else "at initialisation"
        half = (self.high - self.low) / 2
        power = f"width^({self.value:+.2f} ± {half:.2f})"
        return f"{self.name}, {self.quantity} {when}: {self.outcome} ({power})"


class Exponents(tuple[Exponent, ...]):
    """All of them; prints as a verdict and those that are off, worst first."""

    @property
    def passed(self) -> bool | None:
        """True if all that are judged are as they should be; None if that is not settled."""
        outcomes = {one.outcome for one in self}
        if not outcomes.isdisjoint(OFF):
            return False
        return None if "inconclusive" in outcomes or "steady" not in outcomes else True

    def judged(self) -> "Exponents":
        """Return those with an outcome, what is off first, then the largest."""
        order = (*OFF, "inconclusive", "steady", "allowed", "zero")
        key = lambda one: (order.index(one.outcome), -abs(np.nan_to_num(one.value)))  # noqa: E731
        return Exponents(sorted((one for one in self if one.outcome in order), key=key))

    def __str__(self) -> str:
        """Return the verdict, and the exponents that it rests on."""
        own = self.judged()
        if not own:
            return f"nothing judged of {len(self)} exponents"
        off = [one for one in own if one.outcome in OFF]
        unsettled = [one for one in own if one.outcome == "inconclusive"]
        word = {True: "passed", False: "failed", None: "not settled"}[self.passed]
        count = f"{len(off)} of {len(own)} exponents beyond ±{WIDTH_EXPONENT}"
        count += f", {len(unsettled)} inconclusive" if unsettled else ""
        shown = (off or unsettled or own[:1])[:SHOWN]
        rest = len(off or unsettled or shown) - len(shown)
        more = [f"and {rest} more"] if rest else []
        return "\n".join([f"{word}, {count}", *map(str, shown), *more])


def exponents(record: xr.Dataset, parametrisation: Parametrisation | None) -> Exponents:
    """Fit every rms of a record against width.

    Args:
        record: what `coordinate_check` measured.
        parametrisation: what to judge by, or None.

    Raises:
        UnusableInput: not a record with two widths.
    """
    if record.sizes.get("width", 0) < 2:
        raise UnusableInput("a record of coordinate_check with two widths is required")
    found = []
    for quantity, variable in VARIABLES.items():
        steps = record["step"].values
        for step in steps[1:] if quantity == "change" else steps[:1]:
            along = "site" if "site" in record[variable].dims else "weight"
            values = record[variable].sel(step=step).transpose("width", "seed", along) / 2
            names = record["name" if along == "site" else "weight"].values
            for k, name in enumerate(names):
                fit = power(record["width"].values, values.values[:, :, k])
                asked = _asked(record, k, quantity, parametrisation) if along == "site" else None
                outcome = _outcome(values.values[:, :, k], *fit[1:], asked)
                found.append(Exponent(str(name), quantity, int(step), *fit, outcome))
    return Exponents(found)


def power(widths: np.ndarray, log10_rms: np.ndarray) -> tuple[float, float, float]:
    """Return the power of width in a rms, and the ends of its interval.

    Args:
        widths: increasing.
        log10_rms: (width, seed).

    Example:
        >>> widths = np.array([64, 128, 256])
        >>> found = power(widths, np.log10(np.stack([widths**0.5, 3 * widths**0.5], axis=1)))
        >>> [round(p, 6) for p in found]
        [0.5, 0.5, 0.5]
    """
    if not np.isfinite(log10_rms).all():
        return math.nan, math.nan, math.nan
    x = np.log10(widths) - np.log10(widths).mean()
    y = log10_rms - log10_rms.mean(axis=0)
    spread = float(x @ x) * y.shape[1]
    slope = float((x @ y).sum()) / spread
    free = y.size - y.shape[1] - 1
    left = float(np.square(y - slope * x[:, None]).sum())
    half = student(free) * math.sqrt(left / free / spread) if free else math.inf
    return slope, slope - half, slope + half


def judged_sites(record: xr.Dataset) -> np.ndarray:
    """Return which sites are judged, as a mask.

    These have as many coordinates as the width, or a parameter, or they are products of two signals
    such as attention logits. Parts of the loss and statistics of normalisations are left out.
    """
    product = np.isin(record["kind"].values, PRODUCTS)
    return record["wide"].values | (record["parameter"].values != "") | product


def _asked(
    record: xr.Dataset, k: int, quantity: Quantity, parametrisation: Parametrisation | None
) -> Literal["steady", "no growth"] | None:
    """Return what a site's exponent must be; None if that is not asked."""
    asked = parametrisation is not None and quantity in ("size", "change")
    if not asked or not judged_sites(record)[k]:
        return None
    wide, made = bool(record["wide"].values[k]), bool(record["parameter"].values[k])
    if quantity == "size":
        return "steady" if wide or parametrisation == "standard" else "no growth"
    return "steady" if (wide or made) and parametrisation == "mup" else "no growth"


def _outcome(
    log10_rms: np.ndarray, low: float, high: float, asked: Literal["steady", "no growth"] | None
) -> Outcome:
    if asked is None:
        return "not judged"
    if np.isneginf(log10_rms).all():
        return "zero"
    if not np.isfinite(low):
        lost = np.isnan(log10_rms) | np.isposinf(log10_rms)
        return "not finite" if lost.any() else "inconclusive"
    if low > WIDTH_EXPONENT:
        return "grows"
    if asked == "no growth" and high <= WIDTH_EXPONENT:
        return "steady" if low >= -WIDTH_EXPONENT else "allowed"
    if high < -WIDTH_EXPONENT:
        return "shrinks"
    settled = low >= -WIDTH_EXPONENT and high <= WIDTH_EXPONENT
    return "steady" if settled else "inconclusive"
