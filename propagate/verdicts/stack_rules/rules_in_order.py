"""The rules for a stack: from the growth of a second moment to a verdict on one pairing.

A verdict rests on the growth rate in decades per layer along the direction of travel, with a
confidence interval, times the depth; never on an absolute size. The rules are asked in order, and
the first one that finds something decides:

    forward, backward   `lost`
    backward            `untrained`
    forward, backward   `alike`, `grown`
    forward             `collapsed`, `parallel`, `alike_tokens`, `saturated`
    none                stable
"""

import math

import numpy as np

from propagate.record.dataset import second_moment_name
from propagate.types import Direction
from propagate.verdicts import thresholds
from propagate.verdicts.departures import Expectation, written
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import growth
from propagate.verdicts.stack_rules.case import Answer, Case
from propagate.verdicts.stack_rules.collapsed import alike_tokens, collapsed, parallel
from propagate.verdicts.stack_rules.grown import grown
from propagate.verdicts.stack_rules.lost import WEIGHTS, alike, lost, untrained
from propagate.verdicts.stack_rules.saturated import flat_share, saturated
from propagate.verdicts.stack_rules.stack_record import Pairing


def judge_pairing(
    pairing: Pairing, direction: Direction, expected: Expectation | None = None
) -> Finding:
    """Return the verdict on one pairing in one direction.

    Args:
        pairing: one of `pairings_of`, with a second moment in that direction.
        direction: of travel.
        expected: what theory expects, if it is to be asked. Otherwise what the record itself
            says of it is used, if the measurement keeps to it.
    """
    log_q = pairing.values(second_moment_name(direction))
    assert log_q is not None
    measured = rise = growth(log_q, direction, normed_end=pairing.normed_end)
    expected = written(pairing.record, direction) if expected is None else expected
    if expected is not None and expected.kept:
        rise = expected.growth
    case = Case(pairing, direction, log_q, rise)
    verdict, layer, reason, own, remedy = _answer(case)
    if expected is not None:
        reason += f"; {expected.beside(measured, of_another=own is not None)}"
    rise = own or rise
    fine = thresholds.FINE_DECADES / abs(rise.rate) if rise.rate else math.inf
    unseen = _unseen(case)
    return Finding(
        init=pairing.init,
        activation=pairing.activation,
        direction=direction,
        verdict=verdict,
        rate=rise.rate,
        interval=(rise.low, rise.high),
        total=rise.total,
        fine_depth=fine,
        layer=layer,
        reason="; ".join(part for part in (reason, _not_drawn(case), unseen) if part),
        remedy=remedy or _remedy(case, verdict),
        depth=case.layers,
        unseen=unseen,
    )


def _unseen(case: Case) -> str:
    """Say what was not measured without which the pairing cannot be recommended, if anything.

    Where a signal goes through every layer's weights, gradients of weights are zero only where a
    signal is; where it can go past them, it may be fine although no weight is trained.
    """
    pairing = case.pairing
    if case.direction == "forward" or not pairing.bypassed:
        return ""
    names = [WEIGHTS, *([second_moment_name(pairing.zero_scaled)] if pairing.zero_scaled else [])]
    missing = [name for name in names if name not in pairing.record]
    return f"{' and '.join(missing)} not measured: it may be untrained" if missing else ""


def _not_drawn(case: Case) -> str:
    """Say that the interval is not one of chance in the weights, if it is not."""
    seeds = len(case.log_q)
    if case.pairing.fixed:
        return "its weights are the same for every key, so the interval is not that of other draws"
    if seeds > 1 and np.isfinite(case.log_q).all() and not np.ptp(case.log_q, axis=0).any():
        return f"the {seeds} seeds are equal to the last digit, so the interval says nothing"
    return ""


def _remedy(case: Case, verdict: Verdict) -> str:
    """Return what would help, without naming what the pairing does not have."""
    biased = case.pairing.biased
    if verdict is Verdict.VANISHING and flat_share(case) >= thresholds.SATURATED:
        return "smaller biases, or a smaller scale" if biased else "a smaller scale"
    if verdict is Verdict.COLLAPSING and biased is False:
        return "a larger scale"
    return verdict.remedy


def _answer(case: Case) -> Answer:
    """Return what the first rule says that finds something."""
    if case.direction == "forward":
        rules = [lost, alike, grown, collapsed, parallel, alike_tokens, saturated]
    else:
        rules = [lost, untrained, alike, grown]
    for rule in rules:
        found = rule(case)
        if found is not None:
            return found
    return Answer(Verdict.STABLE, None, case.in_all())
