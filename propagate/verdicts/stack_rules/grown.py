"""The rule for growth: the rate times the depth against what is fine."""

import math

import numpy as np

from propagate.verdicts.findings import Verdict
from propagate.verdicts.growth import in_words
from propagate.verdicts.stack_rules.case import Answer, Case


def grown(case: Case) -> Answer | None:
    """Vanishing, exploding or inconclusive: the rate times the depth against what is fine."""
    rise, limit = case.growth, case.fine_rate
    numbers = case.in_all() + _range_left(case)
    if rise.high < -limit:
        return Answer(Verdict.VANISHING, None, numbers)
    if rise.low > limit:
        return Answer(Verdict.EXPLODING, None, numbers)
    if -limit <= rise.low and rise.high <= limit:
        return None
    reason = f"{in_words(rise)} does not settle it at ±{limit:.3f}"
    return Answer(Verdict.INCONCLUSIVE, None, reason)


def _range_left(case: Case) -> str:
    """Say where plain arithmetic would have left the dtype's range, if it would have."""
    largest, dtype = case.pairing.values("log10_forward_max"), case.pairing.range
    if case.direction != "forward" or largest is None:
        return ""
    low, high = (math.log10(float(end)) for end in (dtype.tiny, dtype.max))
    out = np.flatnonzero(((largest > high) | (largest < low)).any(axis=0))
    return f"; plain {dtype.dtype} is left at layer {out[0]}" if len(out) else ""
