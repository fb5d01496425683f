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
from propagate.verdicts.site_rules.non_finite import REMEDIES
from propagate.verdicts.site_rules.site_finding import drawn, rows_seen, site_finding


def overflowed(record: xr.Dataset) -> Iterator[Finding]:
    """Overflowed: the first site, in the direction of travel, whose values are not finite."""
    bad = np.flatnonzero(not_finite(record))
    if len(bad):
        reason = f"values are not finite from {record['name'].values[bad[0]]} on"
        if "overflow_operand" in record:
            operand = float(record["overflow_operand"])
            of = "" if math.isnan(operand) else f" of {operand:.3g}"
            operation = str(record.attrs["overflow_operation"])
            remedy = REMEDIES.get(operation.split()[0], "a smaller scale of what comes in")
            reason += f": {operation}{of}; {remedy}"
        yield site_finding(record, int(bad[0]), "forward", Verdict.OVERFLOWED, reason)


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


def silent(record: xr.Dataset) -> Iterator[Finding]:
    """Dead: the first layer whose output is all zero, with another layer behind it."""
    q, depth = record["log10_forward_q"].values, record["depth"].values
    kind, taken = record["kind"].values, record["taken"].values
    main = taken & (np.isin(kind, (*LAYERS, "embedding", "activation", "norm", "add")))
    made = np.isin(kind, LAYERS) & (record["parameter"].values != "") & taken
    for k in np.flatnonzero(made & np.isneginf(q)):
        beside, after = main & (depth == depth[k]), made & (depth == depth[k] + 1)
        if after.any() and np.isneginf(q[beside]).all():
            reason = (
                f"its output is exactly zero: nothing reaches {record['name'].values[after][0]}"
                f"{_starved(record)}{_drawn(record, int(k))}"
            )
            yield site_finding(record, int(k), "forward", Verdict.DEAD, reason)
            return


def _starved(record: xr.Dataset) -> str:
    """Say how many parameters have no gradient."""
    if "log10_gradient_q" not in record:
        return ""
    none = np.isneginf(record["log10_gradient_q"].values)
    return f", and {none.sum()} of {none.size} parameters get no gradient" if none.any() else ""


def _drawn(record: xr.Dataset, k: int) -> str:
    """Say how to draw a weight that is zero."""
    at = np.flatnonzero(record["weight"].values == record["parameter"].values[k])
    if not len(at) or not np.isneginf(record["log10_weight_q"].values[at[0]]):
        return ""
    return f". Its weights are all zero: {drawn(float(record['weight_fan_in'].values[at[0]]))}"
