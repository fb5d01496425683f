"""What a rule for stacks is asked about, and what it answers."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from propagate.types import Direction
from propagate.verdicts.findings import Verdict
from propagate.verdicts.growth import Growth, fine_rate, in_words, with_total
from propagate.verdicts.stack_rules.stack_record import Pairing


@dataclass(frozen=True)
class Case:
    """One pairing in one direction: what a rule is asked about.

    Attributes:
        pairing: what was measured.
        direction: of travel.
        log_q: log10 of the second moment, (seed, layer 0 … L).
        growth: of it; theory's, where the measurement keeps to its band.
    """

    pairing: Pairing
    direction: Direction
    log_q: np.ndarray
    growth: Growth

    @property
    def fine_rate(self) -> float:
        """The fastest growth, in decades per layer, that is fine over this depth."""
        return fine_rate(self.layers)

    @property
    def layers(self) -> int:
        """The depth of the stack."""
        return self.log_q.shape[1] - 1

    def in_all(self) -> str:
        """Say how the second moment grew: the rate, and over which layers by how much."""
        where = "up to the last norm" if self.pairing.normed_end else "in all"
        return with_total(self.growth, where)

    def until_lost(self) -> str:
        """Say how the signal grew before it was lost."""
        rise = self.growth
        return "" if math.isnan(rise.rate) else f"; until then {in_words(rise)}"


class Answer(NamedTuple):
    """What a rule has found.

    Attributes:
        verdict: its verdict.
        layer: at which the signal is lost, or None.
        reason: the evidence, in words.
        growth: of what the verdict rests on, if that is not the second moment.
        remedy: what would help this pairing, if that is not the verdict's own remedy.
    """

    verdict: Verdict
    layer: int | None
    reason: str
    growth: Growth | None = None
    remedy: str = ""
