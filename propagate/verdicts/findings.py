"""What a judgement consists of: verdicts, findings, and growth with its interval."""

import enum
import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from propagate import registry
from propagate.types import DIRECTIONS, Direction

SUBJECTS: dict[Direction, str] = {"forward": "signal", "backward": "gradient"}
"""What travels in each direction."""

Severity = Literal["fault", "note", "none"]
"""A fault will hinder training; a note is unusual, and harmless as far as can be told."""


class Verdict(enum.Enum):
    """What becomes of a signal; each member carries its cause and the usual remedy."""

    OVERFLOWED = "overflowed", "values left the range of the dtype", "a smaller scale"
    NON_FINITE = (
        "non-finite",
        "a value or a derivative is not finite where its operand is",
        "an operand kept away from the point where it is infinite or undefined",
    )
    SYMMETRIC = "symmetric", "all units of a layer, or of a branch, are the same", "random weights"
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
    UNDERFLOWED = (
        "underflowed",
        "values are below the smallest number of the dtype",
        "a scaled loss, or a dtype of more range",
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


@dataclass(frozen=True)
class Finding:
    """The verdict on one pairing, or one place of a custom model, in one direction, with numbers.

    Attributes:
        init: the initialiser's name; "" for a custom model.
        activation: the activation's name; "" for a custom model.
        direction: `"forward"` or `"backward"`.
        verdict: what becomes of the signal.
        rate: decades per layer, along the direction of travel, of the second moment; where the
            verdict is collapsing, of the share that tells inputs, or positions, apart.
        interval: of the rate, at the level `thresholds.CONFIDENCE`.
        total: decades over the depth, or over the layers until the signal is lost.
        fine_depth: the largest depth at which this rate would still be fine; inf if it is zero.
        layer: the layer at which the signal is lost, or None.
        reason: the evidence, in words.
        site: the name of the site where it shows first, of a custom model.
        parameter: the path of the parameter that is to blame, or of the last one before the site.
        severity: `"fault"`, which hinders training, `"note"`, or `"none"` of what is stable or
            inconclusive.
        remedy: what would help a stack, in words; "" for the verdict's own remedy.
        depth: layers of the stack; 0 for a custom model.
        unseen: what was not measured, without which nothing is recommended; "" if nothing.
        also: the names of further places of a custom model of which the same is to be said.
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
    severity: Severity = "fault"
    remedy: str = ""
    depth: int = 0
    unseen: str = ""
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.severity == "fault" and self.verdict in (Verdict.STABLE, Verdict.INCONCLUSIVE):
            object.__setattr__(self, "severity", "none")

    @property
    def is_fault(self) -> bool:
        """Whether it claims that something will hinder training."""
        return self.severity == "fault"

    @property
    def cause(self) -> str:
        """The verdict's cause, said of the signal forward and of the gradient backward."""
        return self.verdict.cause.replace("signal", SUBJECTS[self.direction])

    def __str__(self) -> str:
        """Return the finding as a sentence."""
        pairing = f"{self.init} + {self.activation}" if self.init or self.activation else ""
        subject = self.parameter or self.site or pairing or "the model"
        return f"{subject}, {self.direction}: {self.verdict.value} ({self.reason})"


class Findings(tuple[Finding, ...]):
    """Findings, two for each pairing; prints as sentences, worst first, with notes counted."""

    @property
    def faults(self) -> "Findings":
        """Those that claim that something will hinder training."""
        return Findings(f for f in self if f.is_fault)

    @property
    def notes(self) -> "Findings":
        """Those on what is unusual, and harmless as far as can be told."""
        return Findings(f for f in self if f.severity == "note")

    def conclusion(self, sites: int) -> str:
        """Return what they amount to, of a custom model with as many sites.

        Example:
            >>> Findings().conclusion(13)
            'healthy: no findings at 13 sites'
        """
        faults = len(self.faults)
        at = f"{sites} site{'s' * (sites != 1)}"
        if faults:
            return f"{faults} fault{'s' * (faults > 1)} at {at}"
        return f"healthy: no {'faults' if self else 'findings'} at {at}"

    def opening(self, sites: int) -> str:
        """Return the conclusion, with a colon where faults follow."""
        return self.conclusion(sites) + (":" if self.faults else "")

    def text(self, notes: bool = False) -> str:
        """Return one line for each finding, the worst first.

        Args:
            notes: whether to write out the notes, too, which are counted otherwise.
        """
        ordered = self.worst_first()
        lines = [str(f) for f in ordered if f.severity != "note"]
        if notes:
            lines += [f"note: {f}" for f in ordered.notes]
        elif self.notes:
            many = "1 note" if len(self.notes) == 1 else f"{len(self.notes)} notes"
            lines.append(f"{many} on what is unusual, but harmless: --notes, or .text(notes=True)")
        return "\n".join(lines)

    def __str__(self) -> str:
        """Return one line for each finding; notes are counted."""
        return self.text()

    def worst_first(self) -> "Findings":
        """Return the faults, then the notes, each in order of verdict, then of growth."""
        order = list(Verdict)
        key = lambda f: (f.severity == "note", order.index(f.verdict), -abs(np.nan_to_num(f.rate)))  # noqa: E731
        return Findings(sorted(self, key=key))

    def suited(self) -> dict[str, list[str]]:
        """Return the initialisers stable in both directions for each activation, best first.

        The mildest growth comes first. Rates that do not differ within their intervals are equal,
        and those initialisers keep the order of the record, so that chance does not reorder them.
        """
        pairs: dict[tuple[str, str], list[Finding]] = {}
        for f in self:
            pairs.setdefault((f.activation, f.init), []).append(f)
        suited: dict[str, dict[str, list[Finding]]] = {f.activation: {} for f in self}
        for (phi, init), own in pairs.items():
            stable = {f.verdict for f in own} == {Verdict.STABLE}
            if stable and len(own) == len(DIRECTIONS) and not any(f.unseen for f in own):
                suited[phi][init] = own
        return {phi: mildest_first(inits) for phi, inits in suited.items()}


def mildest_first(pairs: Mapping[str, Iterable[Finding]]) -> list[str]:
    """Return names in order of their findings' fastest growth; ties keep the order given.

    Two are tied if their fastest rates are no farther apart than their intervals reach.

    Args:
        pairs: the findings of each name.
    """
    worst = {name: max(own, key=_speed) for name, own in pairs.items()}
    left, ordered = list(worst), []
    while left:
        best = min(left, key=lambda name: _speed(worst[name]))
        tied = [name for name in left if name == best or _tied(worst[name], worst[best])]
        ordered += tied
        left = [name for name in left if name not in tied]
    return ordered


def _speed(finding: Finding) -> float:
    return abs(finding.rate) if math.isfinite(finding.rate) else math.inf


def _tied(one: Finding, other: Finding) -> bool:
    """Whether the speeds of two findings do not differ within their intervals."""
    reach = sum((f.interval[1] - f.interval[0]) / 2 for f in (one, other))
    return _speed(one) == _speed(other) or _speed(one) - _speed(other) <= reach


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
