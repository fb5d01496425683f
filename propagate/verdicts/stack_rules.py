"""The rules for a stack: from the growth of a second moment to a verdict on one pairing.

A verdict rests on the growth rate in decades per layer along the direction of travel, with a
confidence interval, times the depth; never on an absolute size. The rules are asked in order, and
the first one that finds something decides:

    forward, backward   `_lost`
    backward            `_untrained`
    forward, backward   `_grown`
    forward             `_collapsed`, `_alike_tokens`, `_saturated`
    none                stable
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from propagate.record.dataset import second_moment_name
from propagate.types import Direction
from propagate.verdicts import thresholds
from propagate.verdicts.departures import Expectation, written
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import Growth, fine_rate, growth, in_words
from propagate.verdicts.stack_record import Pairing

WEIGHTS = second_moment_name("weight_gradient")


@dataclass(frozen=True)
class _Case:
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

    def until_lost(self) -> str:
        rise = self.growth
        return "" if math.isnan(rise.rate) else f"; until then {in_words(rise)}"


class _Answer(NamedTuple):
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
    measured = rise = growth(log_q, direction)
    expected = written(pairing.record, direction) if expected is None else expected
    if expected is not None and expected.kept:
        rise = expected.growth
    case = _Case(pairing, direction, log_q, rise)
    verdict, layer, reason, own, remedy = _answer(case)
    reason = reason if expected is None else f"{reason}; {expected.beside(measured)}"
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


def _unseen(case: _Case) -> str:
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


def _not_drawn(case: _Case) -> str:
    """Say that the interval is not one of chance in the weights, if it is not."""
    seeds = len(case.log_q)
    if case.pairing.fixed:
        return "its weights are the same for every key, so the interval is not that of other draws"
    if seeds > 1 and np.isfinite(case.log_q).all() and not np.ptp(case.log_q, axis=0).any():
        return f"the {seeds} seeds are equal to the last digit, so the interval says nothing"
    return ""


def _remedy(case: _Case, verdict: Verdict) -> str:
    """Return what would help, without naming what the pairing does not have."""
    biased = case.pairing.biased
    if verdict is Verdict.VANISHING and _flat_share(case) >= thresholds.SATURATED:
        return "smaller biases, or a smaller scale" if biased else "a smaller scale"
    if verdict is Verdict.COLLAPSING and biased is False:
        return "a larger scale"
    return verdict.remedy


def _answer(case: _Case) -> _Answer:
    """Return what the first rule says that finds something."""
    if case.direction == "forward":
        rules = [_lost, _grown, _collapsed, _alike_tokens, _saturated]
    else:
        rules = [_lost, _untrained, _grown]
    for rule in rules:
        found = rule(case)
        if found is not None:
            return found
    numbers = f"{in_words(case.growth)}, {case.growth.total:+.2f} decades in all"
    return _Answer(Verdict.STABLE, None, numbers)


def _lost(case: _Case) -> _Answer | None:
    """Symmetric, overflowed or dead: what cannot be read off a growth rate."""
    log_q, forward = case.log_q, case.direction == "forward"
    if _symmetric(case.pairing):
        what = "signals" if forward else "gradients"
        gone = np.isneginf(log_q[:, -1 if forward else 0]).all()
        fate = f"its {what} are exactly zero" if gone else f"its {what} are those of one unit"
        return _Answer(Verdict.SYMMETRIC, 1, f"the units of every layer are identical; {fate}")
    bad = np.flatnonzero(~np.isfinite(log_q).all(axis=0))
    if not len(bad):
        return None
    layer = int(bad[0] if forward else bad[-1])
    values = log_q[:, layer]
    lost = values[~np.isfinite(values)]
    since = f"from layer {layer} on" + _in_seeds(log_q)
    if not np.isneginf(lost).all():
        return _Answer(Verdict.OVERFLOWED, layer, f"not finite {since}{case.until_lost()}")
    if forward and _underflowed(case, layer):
        reason = f"below the dtype's range {since}{case.until_lost()}"
        return _Answer(Verdict.VANISHING, layer, reason)
    return _Answer(Verdict.DEAD, layer, f"exactly zero {since}")


def _in_seeds(log_q: np.ndarray) -> str:
    lost = int((~np.isfinite(log_q)).any(axis=1).sum())
    return "" if lost == len(log_q) else f" in {lost} of {len(log_q)} seeds"


def _symmetric(pairing: Pairing) -> bool:
    """Whether all units of every layer agree although the activations are not zero."""
    twins = pairing.values("forward_symmetric_fraction")
    active = pairing.values(second_moment_name("activation"))
    if twins is None or (active is not None and np.isneginf(active[:, 0]).all()):
        return False
    known = twins[:, 1:][~np.isnan(twins[:, 1:])]  # a layer of one unit has none to compare
    return known.size > 0 and bool((known >= thresholds.SYMMETRIC).all())


def _untrained(case: _Case) -> _Answer | None:
    """Untrained: the gradients of all weights of a layer are exactly zero, in every seed."""
    weights = case.pairing.values(WEIGHTS)
    if weights is None:
        return None
    zero = (np.isneginf(weights[:, 1:]) & _alive(case)).all(axis=0)
    if case.pairing.zero_scaled:  # what a scalar multiplies trains the scalar, and that the weights
        gated = case.pairing.values(second_moment_name(case.pairing.zero_scaled))
        zero &= False if gated is None else np.isneginf(gated[:, 1:]).all(axis=0)
    if not zero.any() or (case.pairing.shared and not zero.all()):
        return None
    first = int(np.flatnonzero(zero)[0]) + 1
    where = "every layer" if zero.all() else f"layer {first}"
    if 1 < zero.sum() < zero.size:
        where = f"{zero.sum()} of {zero.size} layers, from layer {first} on"
    reason = (
        f"the gradients of all weights of {where} are exactly zero: what arrives goes past them, "
        f"{in_words(case.growth)}"
    )
    return _Answer(Verdict.UNTRAINED, first, reason, remedy="weights that are not zero")


def _alive(case: _Case) -> np.ndarray:
    """Return where a signal goes into a layer and a gradient comes out of it, (seed, layer 1 … L).

    Where one of them is lost, the loss is the fault.
    """
    alive = np.isfinite(case.log_q[:, 1:])
    for place in ("forward",) if case.pairing.bypassed else ("forward", "activation"):
        into = case.pairing.values(second_moment_name(place))
        alive = alive if into is None else alive & np.isfinite(into[:, :-1])
    return alive


def _underflowed(case: _Case, layer: int) -> bool:
    """Whether a zero came about by shrinking below the smallest normal number."""
    if not layer:
        return False
    smallest = math.log10(float(case.pairing.range.tiny)) + thresholds.UNDERFLOW_MARGIN
    step = 0.0 if math.isnan(case.growth.rate) else case.growth.rate
    return bool(np.median(case.log_q[:, layer - 1] + step) / 2 < smallest)


def _grown(case: _Case) -> _Answer | None:
    """Vanishing, exploding or inconclusive: the rate times the depth against what is fine."""
    rise, limit = case.growth, case.fine_rate
    numbers = f"{in_words(rise)}, {rise.total:+.2f} decades in all{_range_left(case)}"
    if rise.high < -limit:
        return _Answer(Verdict.VANISHING, None, numbers)
    if rise.low > limit:
        return _Answer(Verdict.EXPLODING, None, numbers)
    if -limit <= rise.low and rise.high <= limit:
        return None
    reason = f"{in_words(rise)} does not settle it at ±{limit:.3f}"
    return _Answer(Verdict.INCONCLUSIVE, None, reason)


def _range_left(case: _Case) -> str:
    """Say where plain arithmetic would have left the dtype's range, if it would have."""
    largest, dtype = case.pairing.values("log10_forward_max"), case.pairing.range
    if case.direction != "forward" or largest is None:
        return ""
    low, high = (math.log10(float(end)) for end in (dtype.tiny, dtype.max))
    out = np.flatnonzero(((largest > high) | (largest < low)).any(axis=0))
    return f"; plain {dtype.dtype} is left at layer {out[0]}" if len(out) else ""


def _collapsed(case: _Case) -> _Answer | None:
    """Collapsing: the variance over inputs vanishes while the second moment does not."""
    variance = case.pairing.values("log10_forward_variance")
    if variance is None:
        return None
    share = variance - case.log_q
    if np.isneginf(share[:, 0]).all():
        return None  # one input, or the same one many times
    floor = 2 * math.log10(float(case.pairing.range.eps)) + thresholds.COLLAPSE_MARGIN
    lost = np.flatnonzero(~(share > floor).all(axis=0))
    followed = share[:, : lost[0]] if len(lost) else share
    fall = growth(followed, "forward")
    if not len(lost) and not fall.high < -case.fine_rate:
        return None
    layer = int(lost[0]) if len(lost) else None
    reason = (
        f"the share of the second moment that tells inputs apart goes {in_words(fall)}, "
        f"while q stays at 10^{np.median(case.log_q[:, -1]):.2f}"
    )
    return _Answer(Verdict.COLLAPSING, layer, reason, fall)


def _alike_tokens(case: _Case) -> _Answer | None:
    """Collapsing: the positions of an input become alike, and stay so."""
    cosine = case.pairing.values("forward_token_correlation")
    if cosine is None:
        return None
    apart = np.flatnonzero((cosine < thresholds.ALIKE).any(axis=0))
    if not len(apart) or apart[-1] == cosine.shape[1] - 1:
        return None
    layer = int(apart[-1]) + 1
    seen = f"{cosine[:, layer].mean():.3f} at layer {layer}"
    reason = f"the mean cosine between positions of an input is {seen}, and stays so"
    remedy = "a skip connection past attention, or a smaller share of it"
    return _Answer(Verdict.COLLAPSING, layer, reason, remedy=remedy)


def _saturated(case: _Case) -> _Answer | None:
    """Saturated: most units sit where the activation is flat."""
    share = _flat_share(case)
    if share < thresholds.SATURATED:
        return None
    return _Answer(Verdict.SATURATED, None, f"{share:.0%} of the units have almost no slope")


def _flat_share(case: _Case) -> float:
    """Return the share of units with almost no slope; 0 if it was not measured."""
    flat = case.pairing.values("activation_saturated_fraction")
    if flat is None or np.isnan(flat[:, 1:-1]).all():
        return 0.0
    return float(np.nanmean(flat[:, 1:-1]))
