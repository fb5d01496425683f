"""The rule for activations most of whose inputs lie where they are flat."""

from collections.abc import Collection, Iterator

import numpy as np
import xarray as xr

from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import amount, times
from propagate.verdicts.pre_activation import Into, flat_share, into
from propagate.verdicts.site_rules.site_finding import site_finding


def saturated(record: xr.Dataset, blamed: Collection[str] = ()) -> Iterator[Finding]:
    """Saturated: an activation most of whose inputs lie where it is flat.

    Args:
        record: of `diagnose`.
        blamed: parameters of which it has been said how large they should be.
    """
    if "activation_saturated_fraction" not in record:
        return
    share = record["activation_saturated_fraction"].values
    bounded = np.isin(record["label"].values, thresholds.BOUNDED)
    for k in np.flatnonzero(bounded & (share >= thresholds.SATURATED)):
        least = f"{thresholds.SATURATED_SLOPE:.0%}"
        reason = (
            f"{share[k]:.0%} of the inputs of {record['label'].values[k]} have almost no slope, "
            f"less than {least} of the largest, and pass back as little of the gradient"
            f"{_moved(str(record['label'].values[k]), into(record, int(k)), blamed)}"
        )
        yield site_finding(record, int(k), "forward", Verdict.SATURATED, reason)


def _moved(label: str, comes: Into | None, blamed: Collection[str]) -> str:
    """Say how to bring what comes in to where there is a slope."""
    if comes is None or comes.layer in blamed:
        return ""
    weights = f"the weights of {comes.layer}" if comes.layer else "them"
    if abs(comes.mean) > comes.sd:
        wide = flat_share(label, comes.sd) > thresholds.SATURATED_CENTRED
        scaled = f", then scale it and {weights} by {times(1 / comes.sd)}" if wide else ""
        return (
            f". They have mean {amount(comes.mean)} and standard deviation {amount(comes.sd)}: "
            f"add {amount(-comes.mean)} to the bias{scaled}"
        )
    return f". They have rms {amount(comes.rms)}: scale {weights} by {times(1 / comes.rms)}"
