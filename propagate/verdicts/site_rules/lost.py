"""The rules for signals that are lost: values that are not finite, or all zero."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.dataset import not_finite
from propagate.record.spine import LAYERS
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import amount, times
from propagate.verdicts.pre_activation import into
from propagate.verdicts.site_rules.non_finite import began
from propagate.verdicts.site_rules.parameters import CAUSES
from propagate.verdicts.site_rules.site_finding import drawn, rows_seen, site_finding


def overflowed(record: xr.Dataset) -> Iterator[Finding]:
    """Overflowed: the first site, in the direction of travel, whose values are not finite."""
    bad = np.flatnonzero(not_finite(record))
    if len(bad):
        name = record["name"].values[bad[0]]
        cause, by = (str(record.attrs.get(f"overflow_{one}", "")) for one in ("cause", "by"))
        start, remedy = began(record)
        reason = (
            f"values are not finite from {name} on{start and ': '}{start}{remedy and '; '}{remedy}"
        )
        blamed = by if cause == "parameter" else None
        yield site_finding(
            record, int(bad[0]), "forward", Verdict.OVERFLOWED, reason, parameter=blamed
        )


def dead(record: xr.Dataset) -> Iterator[Finding]:
    """Dead: an activation nearly all of whose channels are zero, though its input is not."""
    if "activation_dead_fraction" not in record:
        return
    share = record["activation_dead_fraction"].values
    enough = rows_seen(record) >= thresholds.DEAD_ROWS
    found = np.flatnonzero((share >= thresholds.DEAD) & enough)
    q, depth = record["log10_forward_q"].values, record["depth"].values
    for k in map(int, found):
        made = np.flatnonzero(depth[:k] == depth[k])
        if any(np.isneginf(q[j]) for j in made):
            continue  # what came into it was zero already
        phi, units = record["label"].values[k], int(record["units"].values[k])
        gone = round(share[k] * units)
        reason = (
            f"{share[k]:.0%} of the channels of {phi} are zero for every input: {gone} of {units} "
            f"pass nothing on, and the weights that make them get no gradient{_revived(record, k)}"
        )
        yield site_finding(record, k, "forward", Verdict.DEAD, reason)


def _revived(record: xr.Dataset, k: int) -> str:
    """Say by how much to move what comes in, where it lies on the flat side."""
    comes = into(record, k)
    if comes is None or comes.mean >= 0:
        return ""
    reach = f", {times(-comes.mean / comes.sd)} deviations below zero" if comes.sd > 0 else ""
    return (
        f". What comes in has mean {amount(comes.mean)} and standard deviation "
        f"{amount(comes.sd)}{reach}: biases higher by {amount(-comes.mean)} would centre it, "
        "and half of the channels be on"
    )


def silent_layer(record: xr.Dataset) -> int | None:
    """Return the first layer whose output is the same for every input, as is all behind it.

    Of one input, or of equal ones, nothing tells that but zeros. None without any, or if no other
    layer is behind it.
    """
    q, depth = record["log10_forward_q"].values, record["depth"].values
    kind, taken = record["kind"].values, record["taken"].values
    main = taken & (np.isin(kind, (*LAYERS, "embedding", "activation", "norm", "add")))
    made = np.isin(kind, LAYERS) & (record["parameter"].values != "") & taken
    same = np.isneginf(q)
    if "log10_forward_variance" in record:
        variance = record["log10_forward_variance"].values
        same |= np.isneginf(variance) & np.isfinite(variance[made]).any()
    for k in np.flatnonzero(made & same):
        beside, after = main & (depth == depth[k]), made & (depth == depth[k] + 1)
        if after.any() and same[beside | after].all():
            return int(k)
    return None


def silent(record: xr.Dataset) -> Iterator[Finding]:
    """Dead: the first layer whose output is the same for every input, with others behind it."""
    k = silent_layer(record)
    if k is None:
        return
    own, depth = str(record["parameter"].values[k]), record["depth"].values
    zero, redrawn = np.isneginf(record["log10_forward_q"].values[k]), _drawn(record, own)
    cause, operation, by, after = (str(record.attrs.get(f"silence_{n}", "")) for n in SILENCE)
    behind = np.flatnonzero((depth == depth[k] + 1) & (record["parameter"].values != ""))
    reached = k if cause and by != own else behind[0]
    lost = f"nothing reaches {record['name'].values[reached]}{_starved(record)}"
    output = f"its output is {'exactly zero' if zero else 'the same for every input'}"
    blamed, reason = None, f"{output}: {lost}{redrawn}"
    if cause == "factor" and by != own:
        remedy = _drawn(record, by) or ". Its values are all zero: set them to 1"
        blamed, reason = by, f"{operation} multiplies by it: {lost}{remedy}"
    elif zero and cause in CAUSES:
        blamed, reason = after, f"behind it {CAUSES[cause].format(cut=operation, by=by)}: {lost}"
    elif zero and cause == "made":
        reason = f"{output}, as {operation} makes zero of what comes in: {lost}"
    elif not (zero or redrawn):
        return
    yield site_finding(record, k, "forward", Verdict.DEAD, reason, parameter=blamed)


SILENCE = ("cause", "operation", "by", "after")
"""What `models.causes.zeros` finds of it, in the record's attributes."""


def _starved(record: xr.Dataset) -> str:
    """Say how many parameters have no gradient."""
    if "log10_gradient_q" not in record:
        return ""
    none = np.isneginf(record["log10_gradient_q"].values)
    return f", and {none.sum()} of {none.size} parameters get no gradient" if none.any() else ""


def _drawn(record: xr.Dataset, name: str) -> str:
    """Say how to draw a weight that is zero; "" of any other parameter."""
    at = np.flatnonzero(record["weight"].values == name) if "log10_weight_q" in record else []
    if not len(at) or not np.isneginf(record["log10_weight_q"].values[at[0]]):
        return ""
    fan_in = float(record["weight_fan_in"].values[at[0]])
    return f". Its weights are all zero: {drawn(fan_in)}" if math.isfinite(fan_in) else ""
