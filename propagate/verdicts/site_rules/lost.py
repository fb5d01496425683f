"""The rules for signals that are lost: values that are not finite, or all zero."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.dataset import not_finite
from propagate.record.spine import LAYERS
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.site_rules.site_finding import rows_seen, site_finding


def overflowed(record: xr.Dataset) -> Iterator[Finding]:
    """Overflowed: the first site, in the direction of travel, whose values are not finite."""
    bad = np.flatnonzero(not_finite(record))
    if len(bad):
        reason = f"values are not finite from {record['name'].values[bad[0]]} on"
        if "overflow_operand" in record:
            operand = float(record["overflow_operand"])
            of = "" if math.isnan(operand) else f" of {operand:.3g}"
            reason += f": {record.attrs['overflow_operation']}{of}"
        yield site_finding(record, int(bad[0]), "forward", Verdict.OVERFLOWED, reason)


def dead(record: xr.Dataset) -> Iterator[Finding]:
    """Dead: an activation nearly all of whose channels are zero, though its input is not."""
    if "activation_dead_fraction" not in record:
        return
    share = record["activation_dead_fraction"].values
    enough = rows_seen(record) >= thresholds.DEAD_ROWS
    found = np.flatnonzero((share >= thresholds.DEAD) & enough)
    q, depth = record["log10_forward_q"].values, record["depth"].values
    for k in found:
        made = np.flatnonzero(depth[:k] == depth[k])
        if any(np.isneginf(q[j]) for j in made):
            continue  # what came into it was zero already
        phi = record["label"].values[k]
        reason = f"{share[k]:.0%} of the channels of {phi} are zero for every input"
        yield site_finding(record, int(k), "forward", Verdict.DEAD, reason)


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
            )
            yield site_finding(record, int(k), "forward", Verdict.DEAD, reason)
            return
