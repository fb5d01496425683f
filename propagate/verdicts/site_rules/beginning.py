"""The rules for where training starts: inputs all alike or on a wild scale, and the first loss."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from propagate.record.spine import LAYERS
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
    means, spreads = record["input_mean"].values, record["input_sd"].values
    seen: set[int] = set()
    for k in np.flatnonzero(np.isfinite(means)):
        number, mean, spread = int(record["input_number"].values[k]), means[k], spreads[k]
        rms = math.hypot(mean, spread)
        verdict = _of_scale(float(mean), float(spread))
        if verdict is None or number in seen or not spread:
            continue
        seen.add(number)
        layer = str(record["name"].values[k])
        cost = (
            f"its output and the gradient of its weights are {amount(rms)} times what rms 1 gives"
        )
        if verdict is Verdict.COLLAPSING:
            cost = "they hardly differ from one another"
        reason = (
            f"the inputs that reach {layer} have mean {mean:.3g} and standard deviation "
            f"{spread:.3g}: {cost}. Standardise them: subtract {mean:.3g}, divide by {spread:.3g}"
        )
        severity: Severity = "note" if _normalised(record, int(k)) else "fault"
        yield site_finding(record, int(k), "forward", verdict, reason, severity=severity)


def _of_scale(mean: float, spread: float) -> Verdict | None:
    rms = math.hypot(mean, spread)
    if rms > thresholds.LARGE_INPUT:
        return Verdict.EXPLODING
    if rms < thresholds.SMALL_INPUT:
        return Verdict.VANISHING
    return Verdict.COLLAPSING if abs(mean) > thresholds.FAR_INPUT * spread else None


def _normalised(record: xr.Dataset, k: int) -> bool:
    """Whether a norm follows a layer, so that the scale of what comes in does not matter."""
    kind, depth, after = (record[name].values for name in ("kind", "depth", "after"))
    own = str(record["parameter"].values[k])
    follows = (np.arange(len(kind)) > k) & (depth == depth[k]) & (after == own)
    bent = np.flatnonzero(follows & (kind == "activation"))
    norms = np.flatnonzero(follows & (kind == "norm"))
    return bool(len(norms)) and (not len(bent) or norms[0] < bent[0])


def first_loss(record: xr.Dataset, wild: Sequence[Finding] = ()) -> Iterator[Finding]:
    """Saturated: a classifier that is sure of its first guesses, so that its loss is above ln K.

    Args:
        record: of `diagnose`.
        wild: the faults of its inputs, which may be why.
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
    remedy = "The scale of the inputs comes first" if wild else f"Scale {scaled} by 1/{spread:.3g}"
    reason = (
        f"the first loss is {amount(loss)} per label, where equal probabilities give ln {of} = "
        f"{chance:.3g}: the logits have standard deviation {spread:.3g}, and the largest "
        f"probability is {largest:.2f} on average. {remedy}"
    )
    surplus = loss - chance
    severity: Severity = "fault" if surplus > thresholds.SURE_FAULT_NATS else "note"
    yield site_finding(record, k, "forward", Verdict.SATURATED, reason, severity=severity)
