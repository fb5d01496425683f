"""The rules for where training starts: inputs all alike or on a wild scale, and the first loss."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from propagate.record.spine import LAYERS, spine
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Severity, Verdict
from propagate.verdicts.growth import amount
from propagate.verdicts.site_rules.site_finding import site_finding


def alike_inputs(record: xr.Dataset) -> Iterator[Finding]:
    """Dead or collapsing: inputs that are all zero, or rows of them that are all equal."""
    are = record.attrs.get("inputs_are")
    if are is None:
        return
    verdict, what = Verdict.COLLAPSING, "the rows of its inputs are all equal"
    if are == "zero":
        verdict, what = Verdict.DEAD, "all its inputs are zero"
    reason = f"{what}, so that nothing is seen of what tells inputs apart: pass real or random data"
    severity: Severity = "fault" if record.attrs["outputs_are"] == "equal" else "note"
    yield site_finding(record, None, "forward", verdict, reason, severity=severity)


def wild_inputs(record: xr.Dataset) -> Iterator[Finding]:
    """Exploding, vanishing or collapsing: inputs of a scale that no initialiser is made for."""
    if "input_mean" not in record:
        return
    seen: set[int] = set()
    for k in map(int, np.flatnonzero(np.isfinite(record["input_mean"].values))):
        number, verdict = int(record["input_number"].values[k]), of_inputs(record, k)
        if verdict is None or number in seen:
            continue
        seen.add(number)
        mean, spread = _mean_and_sd(record, k)
        reason = (
            f"{_subject(record, k)} mean {mean:.3g} and standard deviation {spread:.3g}: "
            f"{_cost(record, k, verdict)}. Standardise them: subtract {mean:.3g}, divide by "
            f"{spread:.3g}"
        )
        severity: Severity = "note" if _normalised(record, k) else "fault"
        yield site_finding(record, k, "forward", verdict, reason, severity=severity)


def of_inputs(record: xr.Dataset, k: int) -> Verdict | None:
    """Return what is wrong with the scale or mean of the inputs that site k takes; None if nothing.

    Of an input that others are joined to only a large scale is: what else comes in differs.
    """
    mean, spread = _mean_and_sd(record, k)
    rms = math.hypot(mean, spread)
    if not spread > 0:
        return None
    if rms > thresholds.LARGE_INPUT:
        return Verdict.EXPLODING
    if not _alone(record, k):
        return None
    if rms < thresholds.SMALL_INPUT:
        return Verdict.VANISHING
    return Verdict.COLLAPSING if abs(mean) > thresholds.FAR_INPUT * spread else None


def _mean_and_sd(record: xr.Dataset, k: int) -> tuple[float, float]:
    if "input_mean" not in record:
        return math.nan, math.nan
    return float(record["input_mean"].values[k]), float(record["input_sd"].values[k])


def _subject(record: xr.Dataset, k: int) -> str:
    """Return which inputs a layer takes, up to the verb."""
    layer, several = str(record["name"].values[k]), "the inputs"
    name = str(record["input_name"].values[k]) if "input_name" in record.coords else several
    if name == several:
        return f"the inputs that reach {layer} have"
    return f"the values of {name}, which reach {layer}, have"


def _cost(record: xr.Dataset, k: int, verdict: Verdict) -> str:
    rms = amount(math.hypot(*_mean_and_sd(record, k)))
    if verdict is Verdict.COLLAPSING:
        return "they hardly differ from one another"
    if not _alone(record, k):
        return f"with an rms of {rms} they drown what is joined to them"
    return f"its output and the gradient of its weights are {rms} times what rms 1 gives"


def _alone(record: xr.Dataset, k: int) -> bool:
    """Whether a layer takes nothing beside an input."""
    return "input_alone" not in record or bool(record["input_alone"].values[k])


def without_consequences(
    found: Sequence[Finding], record: xr.Dataset, wild: Sequence[Finding]
) -> list[Finding]:
    """Leave out steps of the signal that a wild input makes, where it joins what others make.

    Along the spine such an input is in some sites and not in others, so that the signal is larger
    by as many decades in the first. Behind a first layer that all the signal passes, every level is
    higher, and steps between them have another cause.

    Args:
        found: on the signal's size, not on that of weights.
        record: of `diagnose`.
        wild: faults of inputs.
    """
    left = list(found)
    for one in wild:
        if one.layer is None or one.verdict is not Verdict.EXPLODING or "inputs" not in record:
            continue
        number = str(int(record["input_number"].values[one.layer]))
        holds = [number in str(inputs).split() for inputs in spine(record)["inputs"].values]
        rms = math.hypot(*_mean_and_sd(record, one.layer))
        decades = 2 * math.log10(rms) + thresholds.STEP
        if not all(holds):
            left = [f for f in left if f.direction != "forward" or not abs(f.total) <= decades]
    return left


def _normalised(record: xr.Dataset, k: int) -> bool:
    """Whether a norm follows a layer, so that the scale of what comes in does not matter."""
    kind, depth, after = (record[name].values for name in ("kind", "depth", "after"))
    own = str(record["parameter"].values[k])
    follows = (np.arange(len(kind)) > k) & (depth == depth[k]) & (after == own)
    bent = np.flatnonzero(follows & (kind == "activation"))
    norms = np.flatnonzero(follows & (kind == "norm"))
    return bool(len(norms)) and (not len(bent) or norms[0] < bent[0])


def first_loss(record: xr.Dataset, causes: Sequence[Finding] = ()) -> Iterator[Finding]:
    """Saturated: a classifier that is sure of its first guesses, so that its loss is above ln K.

    Args:
        record: of `diagnose`.
        causes: faults of its inputs, and of the signal's size, which may be why.
    """
    names = ("loss", "loss_by_chance", "logit_sd", "largest_probability", "classes")
    if any(name not in record.attrs for name in names):
        return
    loss, chance, spread, largest, classes = (float(record.attrs[name]) for name in names)
    if not loss > chance + thresholds.SURE_NATS:
        return
    made = np.isin(record["kind"].values, LAYERS) & (record["parameter"].values != "")
    last = made & (record["units"].values == classes) if (made.any()) else made
    at = np.flatnonzero(last if last.any() else made)
    k = int(at[-1]) if len(at) else None
    of = "2" if chance < math.log(2) * thresholds.SAME_CHANCE else f"{classes:.0f}"
    scaled = "the logits" if k is None else f"the weights of {record['parameter'].values[k]}"
    shift, mean = offset(record), ""
    remedy = f"Scale {scaled} by 1/{spread:.3g}"
    if shift:
        mean = f"mean {-shift:.3g} and "
        after = f", and divide them by {spread:.3g} after that"
        remedy = f"Add {shift:.3g} to the logits' bias{after * (spread > thresholds.SURE_SD)}"
    own = "" if k is None else str(record["parameter"].values[k])
    if any("Standardise" in f.reason for f in causes):
        remedy = "The scale of the inputs comes first"
    elif any(f.parameter == own for f in causes):
        remedy = f"What makes the signal at {own} too large comes first"
    reason = (
        f"the first loss is {amount(loss)} per label, where equal probabilities give ln {of} = "
        f"{chance:.3g}: the logits have {mean}standard deviation {spread:.3g}, and the largest "
        f"probability is {largest:.2f} on average. {remedy}"
    )
    surplus = loss - chance
    severity: Severity = "fault" if surplus > thresholds.SURE_FAULT_NATS else "note"
    yield site_finding(record, k, "forward", Verdict.SATURATED, reason, severity=severity)


def offset(record: xr.Dataset) -> float:
    """Return what to add to the logits of labels by themselves, whose mean is beyond chance; or 0.

    Logits of a softmax may all be moved by one number without a change.
    """
    mean, spread = (float(record.attrs.get(f"logit_{name}", 0.0)) for name in ("mean", "sd"))
    return -mean if abs(mean) > max(spread, thresholds.SURE_SD) else 0.0
