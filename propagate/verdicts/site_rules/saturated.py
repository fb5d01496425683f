"""The rule for activations most of whose inputs lie where they are flat."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.site_rules.site_finding import site_finding


def saturated(record: xr.Dataset) -> Iterator[Finding]:
    """Saturated: an activation most of whose inputs lie where it is flat."""
    if "activation_saturated_fraction" not in record:
        return
    share = record["activation_saturated_fraction"].values
    bounded = np.isin(record["label"].values, thresholds.BOUNDED)
    for k in np.flatnonzero(bounded & (share >= thresholds.SATURATED)):
        reason = f"{share[k]:.0%} of the inputs of {record['label'].values[k]} have almost no slope"
        yield site_finding(record, int(k), "forward", Verdict.SATURATED, reason)
