"""The rate at which a second moment grows along depth, and its confidence interval."""

import math
from typing import NamedTuple

import numpy as np

from propagate.types import Direction
from propagate.verdicts import thresholds


class Growth(NamedTuple):
    """How a second moment changes in the direction of travel.

    Attributes:
        rate: decades per layer, once settled.
        low: lower end of the rate's interval.
        high: upper end.
        total: decades over the layers that could be followed.
        layers: how many layers these were.
        by_theory: whether it is what theory expects, whose interval has no width.
    """

    rate: float
    low: float
    high: float
    total: float
    layers: int
    by_theory: bool = False


def growth(log_q: np.ndarray, direction: Direction, *, normed_end: bool = False) -> Growth:
    r"""Return how log10 q, of shape (seed, layer 0 … L), grows per layer in order of travel.

    Per seed the rate is the difference between the ends of the settled layers, L/4 … L, over
    their number; its mean over seeds has a Student-t interval. The first quarter is left out in
    both directions: the gradient's factor there is that of a forward signal that has not settled.
    If the signal is lost at a layer, only the layers until then count. With a `normed_end` the
    last layer does not: its output is normalised, and says nothing of how the signal grew. NaN
    where fewer than two layers can be followed.
    """
    onward = 1 if direction == "forward" else -1
    ends = log_q.shape[1] - (normed_end and log_q.shape[1] > 2)
    travelled = log_q[:, :ends][:, ::onward]
    lost = np.flatnonzero(~np.isfinite(travelled).all(axis=0))
    count = int(lost[0]) if lost.size else travelled.shape[1]
    if count < 2:
        return Growth(math.nan, math.nan, math.nan, math.nan, max(count - 1, 0))
    followed = travelled[:, :count]
    rates, samples = _samples(followed, direction)
    rate, half = float(rates.mean()), float(_half_width(samples))
    total = float((followed[:, -1] - followed[:, 0]).mean())
    return Growth(rate, rate - half, rate + half, total, count - 1)


def of_steps(steps: np.ndarray) -> Growth:
    """Return the growth that consists of these steps, in order of travel: all of them count.

    Example:
        >>> of_steps(np.array([-1.0, 1.0, -1.0])).total, of_steps(np.array([2.0])).rate
        (-1.0, 2.0)
    """
    total, count = float(np.sum(steps)), len(steps)
    if not count:
        return Growth(math.nan, math.nan, math.nan, math.nan, 0)
    half = float(_half_width(steps)) if count > 1 else 0.0
    rate = total / count
    return Growth(rate, rate - half, rate + half, total, count)


def _samples(followed: np.ndarray, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
    """Return the rate of each seed, (..., seed), and what its interval is of, (..., samples).

    Args:
        followed: (..., seed, layers in order of travel), two or more layers.
        direction: of travel.
    """
    layers = followed.shape[-1] - 1
    skipped = min(math.ceil(thresholds.SETTLED_FROM * layers), layers - 1)
    settled = (
        followed[..., skipped:] if direction == "forward" else followed[..., : layers + 1 - skipped]
    )
    rates = (settled[..., -1] - settled[..., 0]) / (settled.shape[-1] - 1)
    if rates.shape[-1] >= thresholds.ENOUGH_SEEDS:
        return rates, rates
    steps = np.diff(settled)
    return rates, steps.reshape(*steps.shape[:-2], -1)


def _half_width(samples: np.ndarray) -> np.ndarray:
    """Return half of the interval of the mean of samples, shape (..., n)."""
    count = samples.shape[-1]
    if count < 2:
        return np.full(samples.shape[:-1], math.inf)
    return student(count - 1) * samples.std(axis=-1, ddof=1) / math.sqrt(count)


def student(freedom: int) -> float:
    """Return how many standard errors Student's t reaches at the level `CONFIDENCE`."""
    from scipy.special import stdtrit  # a tenth of the time of `import propagate`

    return float(stdtrit(freedom, (1 + thresholds.CONFIDENCE) / 2))


def fine_rate(layers: int) -> float:
    """Return the fastest growth, in decades per layer, that is fine over so many layers."""
    return thresholds.FINE_DECADES / max(layers, 1)


def settles(log_q: np.ndarray, direction: Direction) -> np.ndarray:
    """Return whether a measurement says by itself if its growth is fine.

    It does not where the interval of its rate reaches over the fastest fine rate. Where a signal is
    lost, its growth does not matter.

    Args:
        log_q: log10 of second moments, shape (..., seed, layer 0 … L).
        direction: of travel.

    Returns:
        Shape (...).
    """
    layers = log_q.shape[-1] - 1
    limit, lost = fine_rate(layers), np.asarray(~np.isfinite(log_q).all(axis=(-1, -2)))
    if not layers:
        return np.ones_like(lost)
    followed = np.where(lost[..., None, None], 0.0, log_q)
    rates, samples = _samples(
        followed if direction == "forward" else followed[..., ::-1], direction
    )
    rate, half = rates.mean(axis=-1), _half_width(samples)
    low, high = rate - half, rate + half
    return lost | (high < -limit) | (low > limit) | ((-limit <= low) & (high <= limit))


PLAIN = 1e-4, 1e6  # factors that are written without an exponent
AMOUNT_DIGITS = 3
TRANSIENT = 0.2  # decades of the first layers that are told from rate times depth


def times(factor: float, digits: int = 2) -> str:
    """Return a factor in words, without an exponent where people would write none.

    Example:
        >>> times(238.4), times(0.0312), times(15_000.0), times(3.2e-7)
        ('240', '0.031', '15,000', '3.2e-07')
    """
    short = float(f"{factor:.{digits}g}")
    plain = not short or PLAIN[0] <= abs(short) < PLAIN[1]
    return f"{short:,.10g}" if plain else f"{short:.{digits}g}"


def amount(value: float) -> str:
    """Return a measured quantity in words, with a digit more than a factor.

    Example:
        >>> amount(0.31249)
        '0.312'
    """
    return times(value, AMOUNT_DIGITS)


def counted(number: int, what: str) -> str:
    """Return so many of something in words.

    Example:
        >>> counted(1, "seed"), counted(4, "seed")
        ('1 seed', '4 seeds')
    """
    return f"{number} {what}{'s' * (number != 1)}"


def in_words(rise: Growth) -> str:
    """Return the rate and half of its interval, or that theory expects it."""
    if rise.by_theory:
        return f"{rise.rate:+.3f} decades per layer by theory"
    half = (rise.high - rise.low) / 2
    return f"{rise.rate:+.3f} ± {half:.3f} decades per layer"


def with_total(rise: Growth, where: str = "in all") -> str:
    """Return the rate and what it comes to; the layers before it settled count in that, too.

    Example:
        >>> with_total(Growth(0.125, 0.125, 0.125, 3.13, 20))
        '+0.125 ± 0.000 decades per layer once settled, +3.13 decades in all'
        >>> with_total(Growth(0.125, 0.125, 0.125, 2.51, 20))
        '+0.125 ± 0.000 decades per layer, +2.51 decades in all'
    """
    apart = abs(rise.total - rise.rate * rise.layers) > TRANSIENT
    once = " once settled" if apart else ""
    return f"{in_words(rise)}{once}, {rise.total:+.2f} decades {where}"
