"""What a change is, and what advice consists of: the answer to a finding, with its effect."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from propagate.network import Network
from propagate.types import Direction
from propagate.verdicts.findings import Finding, Findings, Verdict

MILDER = 2.0
"""How many times as deep a stack must be fine, or one direction of it, for a change to help."""

Effect = Literal["cures", "helps", "hurts", "none"]


@dataclass(frozen=True)
class Change:
    """One change that answers a finding.

    Attributes:
        finding: what it answers; of a stack, the worse of both directions.
        remedy: its name in the table of remedies.
        what: what to do, in words and numbers.
        reason: why that helps.
        source: where it was published.
        predicted: what it will do, by theory or by arithmetic on the record; "" if it was measured.
        factors: of a custom model, what to multiply parameters by, as pairs of path and factor.
        net: of a stack, the changed network.
        before: the findings on the stack as it was.
        after: those on the changed one, measured with the same draws.

    Example:
        >>> nan = float("nan")
        >>> one = Finding("", "", "forward", Verdict.DEAD, nan, (nan, nan), nan, nan, None, "zero")
        >>> print(Change(one, "activation", "leaky_relu", "it has no flat side", "Maas et al. 2013",
        ...              predicted="a gradient everywhere"))
        leaky_relu: predicted: a gradient everywhere (Maas et al. 2013)
    """

    finding: Finding
    remedy: str
    what: str
    reason: str
    source: str
    predicted: str = ""
    factors: tuple[tuple[str, float], ...] = ()
    net: Network | None = field(default=None, repr=False)
    before: Findings = field(default=Findings(), repr=False)
    after: Findings = field(default=Findings(), repr=False)

    @property
    def effects(self) -> dict[Direction, Effect]:
        """What it was measured to do, in each direction; empty of a custom model."""
        was = {f.direction: f for f in self.before}
        return {f.direction: effect(was[f.direction], f) for f in self.after if f.direction in was}

    @property
    def cures(self) -> bool:
        """Whether the changed stack was measured to be stable in both directions."""
        return bool(self.after) and all(f.verdict is Verdict.STABLE for f in self.after)

    @property
    def helps(self) -> bool:
        """Whether the changed stack was measured to be better in at least one direction."""
        return not {"cures", "helps"}.isdisjoint(self.effects.values())

    @property
    def hurts(self) -> tuple[Direction, ...]:
        """The directions in which the changed stack was measured to be worse."""
        return tuple(d for d, how in self.effects.items() if how == "hurts")

    def __str__(self) -> str:
        """Return what to do, what comes of it, and the source, in a line."""
        said = f"predicted: {self.predicted}" if self.predicted else self._measured()
        return f"{self.what}: {said} ({self.source})"

    def _measured(self) -> str:
        was = {f.direction: f for f in self.before}
        said = [
            f"{f.direction} {_brief(was[f.direction])} → {_brief(f)}{self._no_better(f)}"
            for f in self.after
        ]
        return f"measured: {'; '.join(said)}"

    def _no_better(self, after: Finding) -> str:
        """Say of a direction that is still at fault that it is worse, or no better."""
        how = self.effects[after.direction]
        if how == "hurts":
            return ", which is worse"
        return ", which is no better" if how == "none" and after.is_fault else ""

    def plain(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        names = ("remedy", "what", "reason", "source", "predicted")
        of = {name: getattr(self.finding, name) for name in ("init", "activation", "direction")}
        place = {name: getattr(self.finding, name) for name in ("site", "parameter")}
        after = {
            f.direction: {"verdict": f.verdict.value, "rate": _number(f.rate)} for f in self.after
        }
        return {
            "finding": of | place | {"verdict": self.finding.verdict.value},
            **{name: getattr(self, name) for name in names},
            "factors": {path: _number(factor) for path, factor in self.factors},
            "network": self.net.describe() if self.net else None,
            "after": after,
            "effects": self.effects,
        }


def _brief(finding: Finding) -> str:
    rate = "" if math.isnan(finding.rate) else f" {finding.rate:+.3f}"
    of = " of what tells inputs apart" if finding.verdict is Verdict.COLLAPSING and rate else ""
    return finding.verdict.value + rate + of


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


LOST = (Verdict.OVERFLOWED, Verdict.NON_FINITE, Verdict.SYMMETRIC, Verdict.DEAD, Verdict.UNTRAINED)


def effect(before: Finding, after: Finding) -> Effect:
    """Return what a change did to one direction.

    It helps if growth that was not fine is fine at least to twice the depth, beyond what the
    intervals leave open; it hurts if the same holds the other way, or what was stable is a fault.
    """
    if after.verdict is Verdict.STABLE:
        return "none" if before.verdict is Verdict.STABLE else "cures"
    if before.verdict in (Verdict.STABLE, Verdict.INCONCLUSIVE):
        return "hurts" if after.is_fault else "none"
    if _milder(after, before):
        return "helps"
    return "hurts" if _milder(before, after) else "none"


def _milder(one: Finding, other: Finding) -> bool:
    """Whether one growth is slower than half of another's, with both intervals against it."""
    if one.verdict in LOST or math.isnan(one.rate):
        return False
    if other.verdict in LOST or math.isnan(other.rate):
        return True
    return max(map(abs, one.interval)) * MILDER <= min(map(abs, other.interval))


class Advice(tuple[Change, ...]):
    """Changes, the best first for each finding; prints as a line each.

    Example:
        >>> Advice().plain(), str(Advice()), len(Advice().first())
        ([], '', 0)
    """

    def of(self, finding: Finding) -> "Advice":
        """Return the changes that answer one finding."""
        return Advice(c for c in self if c.finding == finding)

    def first(self) -> "Advice":
        """Return the best change for each finding."""
        grouped = itertools.groupby(self, key=lambda c: _subject(c.finding))
        return Advice(next(own) for _, own in grouped)

    def lines(self, notes: bool = True) -> list[str]:
        """Return a line for each change, behind what it answers; those of notes if asked for."""
        kept = (c for c in self if notes or c.finding.severity != "note")
        return [f"{_subject(c.finding)}: {c}" for c in kept]

    def part(self, notes: bool = False) -> dict[str, str]:
        """Return the best changes as a part of a report, by its title; empty if there are none."""
        lines = self.first().lines(notes)
        return {"What would help most": "\n".join(lines)} if lines else {}

    def __str__(self) -> str:
        """Return a line for each change, behind what it answers."""
        return "\n".join(self.lines())

    def plain(self) -> list[dict[str, Any]]:
        """Return the changes as plain values for JSON."""
        return [change.plain() for change in self]


def _subject(finding: Finding) -> str:
    pairing = f"{finding.init} + {finding.activation}" if finding.init else ""
    place = finding.parameter or finding.site or pairing or "the model"
    return f"{place}, {finding.verdict.value} {finding.direction}"
