"""The rules for parameters: without a gradient, or all equal."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from propagate.verdicts.findings import Finding, Severity, Verdict
from propagate.verdicts.site_rules.site_finding import drawn, site_finding

CAUSES = {
    "stopped": "{cut} cuts it off; take that out of the path, or leave the parameter out of those "
    "that are trained",
    "discrete": "{cut} makes integers or truth values, which have no gradient; use softmax in its "
    "place, or pass the gradient around it, soft + stop_gradient(hard - soft)",
    "flat": "{cut} has slope zero there; pass the gradient around it, x + stop_gradient(f(x) - x)",
    "kink": "{cut} has slope zero at 0, which the parameter is; start it off that",
    "saturated": "{cut} is flat at each of its inputs{moved}",
    "dead": "{cut} is flat at each of its inputs{moved}",
    "zero": "{cut} multiplies it by {by}, which is exactly zero and stays so; make that nonzero",
    "masked": "{cut} leaves out everything that depends on it",
    "chosen": "{cut} chooses nothing that depends on it for this batch",
    "single": "{cut} normalises over a single element, whatever that is; normalise over another "
    "axis, or leave the normalisation out",
    "one input": "{cut} normalises over the inputs, and there is one; pass two or more",
    "product": "{cut} underflows: its products are below the smallest number of {by}, and zero; "
    "sum their logarithms in its place",
    "exponential": "{cut} underflows to zero in {by} at each of its inputs{moved}, or go on with "
    "them in place of their exponentials, as logsumexp does",
    "cancelled": "its gradients cancel at {cut}: the result does not depend on it",
    "unread": "{cut} lets only values through that do not depend on it",
    "own rule": "the derivative rule of {cut} returns zero",
    "branch": "it stands in a branch that was not taken",
    "unused": "no result is computed from it; use it, or take it out of the parameters",
}
"""What the causes of `models.causes.cuts` are in words, with what to do."""
SILENT = ("gate", "underflow")  # meant; told with the dtype's other losses
HARMLESS = ("chosen", "cancelled", "branch")  # with other data, or with any, it does not matter
OF_GATES = ("saturated", "zero", "dead")  # which follow from a gate that is shut
OWN = ("stopped", "discrete", "flat", "single", "one input")  # from no signal that is lost


def product_underflows(record: xr.Dataset) -> bool:
    """Return whether a product cuts gradients off by being zero: then so large a loss follows."""
    return "gradient_cause" in record and "product" in record["gradient_cause"].values


def untrained(
    record: xr.Dataset,
    lost: Sequence[Finding],
    flat: Sequence[Finding] = (),
    *,
    shut: bool = False,
) -> Iterator[Finding]:
    """Untrained: parameters whose gradient is exactly zero, unless that is intended.

    Args:
        record: of `diagnose`.
        lost: the findings on signals that are lost, of which a zero gradient may follow.
        flat: those on activations that are saturated, of which one behind them follows.
        shut: whether a gate is shut, of which one may follow, too.
    """
    if "log10_gradient_q" not in record:
        return
    zero = np.isneginf(record["log10_gradient_q"].values)
    at = [f.layer for f in flat]
    for k in np.flatnonzero(zero):
        cause, reason, severity = _told(record, int(k))
        if cause in SILENT or (lost and cause not in OWN) or (shut and cause in OF_GATES):
            continue
        if "gradient_cut_site" in record and record["gradient_cut_site"].values[k] in at:
            continue
        name = str(record["weight"].values[k])
        yield site_finding(
            record,
            None,
            "backward",
            Verdict.UNTRAINED,
            reason,
            parameter=name,
            severity=severity,
        )


def _told(record: xr.Dataset, k: int) -> tuple[str, str, Severity]:
    """Return the cause, the reason and the severity of a gradient of zero."""
    reason = "its gradient is exactly zero"
    if "gradient_cause" not in record:  # it was traced in a step, where no second look was taken
        return "", reason, "note" if _a_zero_learns(record) else "fault"
    cause, cut, by = (
        str(record[name].values[k])
        for name in ("gradient_cause", "gradient_cut", "gradient_cut_by")
    )
    words = CAUSES.get(cause, "").format(cut=cut, by=by, moved=moved(record, k))
    harmless = cause in HARMLESS or (cause == "unused" and _of_a_layer_in_use(record, k))
    harmless |= cause == "zero" and by == "an input"
    harmless &= not np.isneginf(record["log10_gradient_q"].values).all()
    severity: Severity = "note" if harmless else "fault"
    return cause, f"{reason}: {words}" if words else reason, severity


def flat_at(record: xr.Dataset) -> set[int]:
    """Return the numbers of the sites at or behind which an operation is flat at all its inputs."""
    if "gradient_cut_site" not in record:
        return set()
    sites = record["gradient_cut_site"].values
    return {int(k) for k in sites[np.isfinite(sites)] if k >= 0}


def moved(record: xr.Dataset, k: int) -> str:
    """Say what comes in where a gradient is cut off, and what would bring it to a slope."""
    names = [f"gradient_cut_{n}" for n in ("mean", "sd", "shift", "scale")]
    known = names[0] in record
    mean, sd, shift, scale = (float(record[n].values[k]) if known else math.nan for n in names)
    if math.isnan(mean):
        return "; bring them to where it has a slope"
    add, by = f"add {shift:.3g} to them", f"multiply them by {scale:.3g}"
    steps = [add] * (shift != 0) + [by] * (scale != 1)
    remedy = "bring them to where it has a slope" if math.isnan(scale) else ", then ".join(steps)
    return f", of mean {mean:.3g} and standard deviation {sd:.3g}; {remedy}"


def _of_a_layer_in_use(record: xr.Dataset, k: int) -> bool:
    """Return whether another parameter beside it learns: then a layer is used in part, by design.

    Language models without their head keep its weights beside their embeddings.
    """
    owners = [str(name).rpartition(".")[0] for name in record["weight"].values]
    beside = np.array([own == owners[k] and own != "" for own in owners], bool)
    return bool((beside & np.isfinite(record["log10_gradient_q"].values)).any())


def _a_zero_learns(record: xr.Dataset) -> bool:
    """Return whether a parameter is zero and has a gradient, which may close the way of others."""
    zero = np.isneginf(record["log10_weight_q"].values)
    return bool((zero & np.isfinite(record["log10_gradient_q"].values)).any())


def constant(record: xr.Dataset) -> Iterator[Finding]:
    """Symmetric: a matrix of equal weights, whose units will stay the same."""
    if "weight_law" not in record:
        return
    fan_in = record["weight_fan_in"].values
    for name, law, fan in zip(
        record["weight"].values, record["weight_law"].values, fan_in, strict=True
    ):
        if fan > 1 and (str(law).startswith("constant") or law == "ones"):
            at = np.flatnonzero(record["parameter"].values == name)
            reason = (
                f"all its weights are equal ({law}), so that its units are the same and stay so: "
                f"{drawn(fan)}"
            )
            yield site_finding(
                record, int(at[0]), "forward", Verdict.SYMMETRIC, reason, parameter=str(name)
            )
