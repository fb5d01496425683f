"""What a judgement consists of: verdicts, findings, and growth with its interval."""

import enum
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np

from propagate import registry, thresholds
from propagate.types import Direction


class Verdict(enum.Enum):
    """What becomes of a signal; each member carries its cause and the usual remedy."""

    OVERFLOWED = "overflowed", "values left the range of the dtype", "a smaller scale"
    SYMMETRIC = "symmetric", "all units of a layer are the same", "random weights"
    DEAD = (
        "dead",
        "the signal is exactly zero",
        "a larger scale, or an activation without a flat side",
    )
    EXPLODING = "exploding", "each layer multiplies the signal", "a smaller scale, near criticality"
    VANISHING = "vanishing", "each layer shrinks the signal", "a larger scale, near criticality"
    COLLAPSING = "collapsing", "inputs become indistinguishable", "a larger scale, smaller biases"
    SATURATED = "saturated", "most units sit where the activation is flat", "a smaller scale"
    DEPARTING = (
        "departing",
        "one layer is out of line with its peers",
        "the scale or activation that its peers have",
    )
    UNTRAINED = (
        "untrained",
        "no gradient reaches the parameter",
        "a path from it to the loss",
    )
    INCONCLUSIVE = "inconclusive", "the interval of the rate is too wide", "more seeds or width"
    STABLE = "stable", "the signal keeps its size", "none needed"

    def __new__(cls, value: str, cause: str, remedy: str) -> "Verdict":
        """Make a member whose value is its word."""
        member = object.__new__(cls)
        member._value_ = value
        return member

    def __init__(self, value: str, cause: str, remedy: str) -> None:
        self.cause = cause
        self.remedy = remedy


class Growth(NamedTuple):
    """How a second moment changes along its way.

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


@dataclass(frozen=True)
class Finding:
    """The verdict on one pairing, or one place of a custom model, in one direction, with numbers.

    Attributes:
        init: the initialiser's name; "" for a custom model.
        activation: the activation's name; "" for a custom model.
        direction: `"forward"` or `"backward"`.
        verdict: what becomes of the signal.
        rate: decades per layer, along the direction of travel, of the second moment; where the
            verdict is collapsing, of the share of it that is variance over inputs.
        interval: of the rate, at the level `thresholds.CONFIDENCE`.
        total: decades over the depth, or over the layers until the signal is lost.
        fine_depth: the largest depth at which this rate would still be fine; inf if it is zero.
        layer: the layer at which the signal is lost, or None.
        reason: the evidence, in words.
        site: the name of the site where it shows first, of a custom model.
        parameter: the path of the parameter that is to blame, or of the last one before the site.
    """

    init: str
    activation: str
    direction: Direction
    verdict: Verdict
    rate: float
    interval: tuple[float, float]
    total: float
    fine_depth: float
    layer: int | None
    reason: str
    site: str = ""
    parameter: str = ""

    def __str__(self) -> str:
        """Return the finding as a sentence."""
        pairing = f"{self.init} + {self.activation}" if self.init or self.activation else ""
        subject = self.parameter or self.site or pairing or "the model"
        return f"{subject}, {self.direction}: {self.verdict.value} ({self.reason})"


class Findings(tuple[Finding, ...]):
    """Findings, two for each pairing; prints as sentences, worst first."""

    def __str__(self) -> str:
        """Return one line for each finding."""
        return "\n".join(map(str, self.worst_first()))

    def worst_first(self) -> "Findings":
        """Return the findings in order of verdict, then of growth."""
        order = list(Verdict)
        key = lambda f: (order.index(f.verdict), -abs(np.nan_to_num(f.rate)))  # noqa: E731
        return Findings(sorted(self, key=key))

    def suited(self) -> dict[str, list[str]]:
        """Return the initialisers stable in both directions for each activation, best first."""
        pairs: dict[tuple[str, str], list[Finding]] = {}
        for f in self:
            pairs.setdefault((f.activation, f.init), []).append(f)
        suited: dict[str, list[tuple[float, str]]] = {f.activation: [] for f in self}
        for (phi, init), own in pairs.items():
            stable = {f.verdict for f in own} == {Verdict.STABLE}
            if stable and len(own) == len(get_args(Direction)):
                suited[phi].append((max(abs(f.rate) for f in own), init))
        return {
            phi: [i for _, i in sorted(inits, key=lambda x: x[0])] for phi, inits in suited.items()
        }


def growth(log_q: np.ndarray, direction: Direction) -> Growth:
    r"""Return how log10 q, of shape (seed, layer 0 … L), grows per layer in order of travel.

    Per seed the rate is the difference between the ends of the settled layers, L/4 … L, over
    their number; its mean over seeds has a Student-t interval. The first quarter is left out in
    both directions: the gradient's factor there is that of a forward signal still in transit.
    If the signal is lost on the way, only the layers until then count. NaN where fewer than two
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


def verdicts(words: Iterable[str | Verdict]) -> frozenset[Verdict]:
    """Return the verdicts that the words name; one word may hold several, with commas between.

    Raises:
        UnusableInput: a word that is no verdict.

    Example:
        >>> sorted(v.value for v in verdicts(["dead,exploding", "dead"]))
        ['dead', 'exploding']
    """
    table = {v.value: functools.partial(_same, v) for v in Verdict}
    each = (part for word in words for part in _text(word).split(",") if part.strip())
    return frozenset(registry.build("verdict", table, part) for part in each)


def _same(verdict: Verdict) -> Verdict:
    return verdict


def _text(word: str | Verdict) -> str:
    return word.value if isinstance(word, Verdict) else word
