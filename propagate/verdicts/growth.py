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
    """

    rate: float
    low: float
    high: float
    total: float
    layers: int


def growth(log_q: np.ndarray, direction: Direction) -> Growth:
    r"""Return how log10 q, of shape (seed, layer 0 … L), grows per layer in order of travel.

    Per seed the rate is the difference between the ends of the settled layers, L/4 … L, over
    their number; its mean over seeds has a Student-t interval. The first quarter is left out in
    both directions: the gradient's factor there is that of a forward signal that has not settled.
    If the signal is lost at a layer, only the layers until then count. NaN where fewer than two
    layers can be followed.
    """
    onward = 1 if direction == "forward" else -1
    travelled = log_q[:, ::onward]
    lost = np.flatnonzero(~np.isfinite(travelled).all(axis=0))
    count = int(lost[0]) if lost.size else travelled.shape[1]
    if count < 2:
        return Growth(math.nan, math.nan, math.nan, math.nan, max(count - 1, 0))
    followed = travelled[:, :count]
    skipped = min(math.ceil(thresholds.SETTLED_FROM * (count - 1)), count - 2)
    settled = followed[:, skipped:] if direction == "forward" else followed[:, : count - skipped]
    samples = (settled[:, -1] - settled[:, 0]) / (settled.shape[1] - 1)
    rate = float(samples.mean())
    if len(samples) < thresholds.ENOUGH_SEEDS:
        samples = np.diff(settled).ravel()
    half = _half_width(samples)
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
    half = _half_width(steps) if count > 1 else 0.0
    rate = total / count
    return Growth(rate, rate - half, rate + half, total, count)


def _half_width(samples: np.ndarray) -> float:
    if len(samples) < 2:
        return math.inf
    return student(len(samples) - 1) * float(samples.std(ddof=1)) / math.sqrt(len(samples))


def student(freedom: int) -> float:
    """Return how many standard errors Student's t reaches at the level `CONFIDENCE`."""
    from scipy.special import stdtrit  # a tenth of the time of `import propagate`

    return float(stdtrit(freedom, (1 + thresholds.CONFIDENCE) / 2))


def in_words(rise: Growth) -> str:
    """Return the rate and half of its interval."""
    half = (rise.high - rise.low) / 2
    return f"{rise.rate:+.3f} ± {half:.3f} decades per layer"
