"""The rules for what cannot be read off a growth rate: signals and gradients that are lost."""

import math

import numpy as np

from propagate.record.dataset import second_moment_name
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Verdict
from propagate.verdicts.growth import Growth, in_words
from propagate.verdicts.stack_rules.case import Answer, Case
from propagate.verdicts.stack_rules.stack_record import Pairing

WEIGHTS = second_moment_name("weight_gradient")
UNDEFINED = (
    "the activation of a finite signal is NaN: it has no value at some h, as sqrt and log have "
    "none below 0"
)
DEFINED = "an activation that has a value at every h"
NO_GROWTH = Growth(math.nan, math.nan, math.nan, math.nan, 0)


def lost(case: Case) -> Answer | None:
    """Symmetric, overflowed, not finite or dead: what cannot be read off a growth rate."""
    log_q, forward = case.log_q, case.direction == "forward"
    if _symmetric(case.pairing):
        what = "signals" if forward else "gradients"
        gone = np.isneginf(log_q[:, -1 if forward else 0]).all()
        fate = f"its {what} are exactly zero" if gone else f"its {what} are those of one unit"
        return Answer(Verdict.SYMMETRIC, 1, f"the units of every layer are identical; {fate}")
    bad = np.flatnonzero(~np.isfinite(log_q).all(axis=0))
    if not len(bad):
        return None
    layer = int(bad[0] if forward else bad[-1])
    values = log_q[:, layer]
    lost = values[~np.isfinite(values)]
    since = f"from layer {layer} on" + _in_seeds(log_q)
    if not np.isneginf(lost).all():
        if _undefined(case.pairing):
            return Answer(Verdict.NON_FINITE, layer, f"NaN {since}; {UNDEFINED}", remedy=DEFINED)
        return Answer(Verdict.OVERFLOWED, layer, f"not finite {since}{case.until_lost()}")
    if forward and _underflowed(case, layer):
        reason = f"below the dtype's range {since}{case.until_lost()}"
        return Answer(Verdict.VANISHING, layer, reason)
    return Answer(Verdict.DEAD, layer, f"exactly zero {since}")


def _undefined(pairing: Pairing) -> bool:
    """Whether an activation is NaN of a signal that is finite; one that overflows is infinite."""
    into, out = (pairing.values(second_moment_name(p)) for p in ("forward", "activation"))
    if into is None or out is None:
        return False
    bad = np.isnan(out[:, :-1])  # the output has no activation
    first = np.argmax(bad, axis=1)
    return bool((bad.any(axis=1) & np.isfinite(into[np.arange(len(into)), first])).any())


def _in_seeds(log_q: np.ndarray) -> str:
    lost = int((~np.isfinite(log_q)).any(axis=1).sum())
    return "" if lost == len(log_q) else f" in {lost} of {len(log_q)} seeds"


def alike(case: Case) -> Answer | None:
    """Symmetric: the units within each branch are one unit; what goes past them differs."""
    if not case.pairing.alike:
        return None
    reason = (
        "the units within every branch have the same weights, so they get the same gradients and "
        f"stay one unit; what arrives goes past them, {in_words(case.growth)}"
    )
    return Answer(Verdict.SYMMETRIC, 1, reason, NO_GROWTH)


def _symmetric(pairing: Pairing) -> bool:
    """Whether all units of every layer agree although the activations are not zero."""
    twins = pairing.values("forward_symmetric_fraction")
    active = pairing.values(second_moment_name("activation"))
    if twins is None or (active is not None and np.isneginf(active[:, 0]).all()):
        return False
    known = twins[:, 1:][~np.isnan(twins[:, 1:])]  # a layer of one unit has none to compare
    return known.size > 0 and bool((known >= thresholds.SYMMETRIC).all())


def _underflowed(case: Case, layer: int) -> bool:
    """Whether a zero came about by shrinking below the smallest normal number."""
    if not layer:
        return False
    smallest = math.log10(float(case.pairing.range.tiny)) + thresholds.UNDERFLOW_MARGIN
    step = 0.0 if math.isnan(case.growth.rate) else case.growth.rate
    return bool(np.median(case.log_q[:, layer - 1] + step) / 2 < smallest)


def untrained(case: Case) -> Answer | None:
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
    return Answer(Verdict.UNTRAINED, first, reason, remedy="weights that are not zero")


def _alive(case: Case) -> np.ndarray:
    """Return where a signal goes into a layer and a gradient comes out of it, (seed, layer 1 … L).

    Where one of them is lost, the loss is the fault.
    """
    alive = np.isfinite(case.log_q[:, 1:])
    for place in ("forward",) if case.pairing.bypassed else ("forward", "activation"):
        into = case.pairing.values(second_moment_name(place))
        alive = alive if into is None else alive & np.isfinite(into[:, :-1])
    return alive
