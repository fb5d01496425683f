"""A finding on a site of a custom model, and what several of them advise."""

import math

import numpy as np
import xarray as xr

from propagate.types import Direction
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Severity, Verdict
from propagate.verdicts.growth import Growth


def site_finding(
    record: xr.Dataset,
    k: int | None,
    direction: Direction,
    verdict: Verdict,
    reason: str,
    *,
    parameter: str | None = None,
    rise: Growth | None = None,
    severity: Severity = "fault",
    total: float = math.nan,
) -> Finding:
    """Return a finding on one site of a custom model, or on one of its parameters.

    Args:
        record: of `diagnose`.
        k: the number of the site, or None.
        direction: of travel.
        verdict: what is wrong.
        reason: the evidence, in words.
        parameter: the path of the parameter to blame; by default the one that makes the site, or
            the last one before it.
        rise: the growth that the verdict rests on, if it is one.
        severity: `"fault"`, or `"note"` for what is harmless as far as can be told.
        total: decades that the finding is about, if there is no growth.
    """
    site = "" if k is None else str(record["name"].values[k])
    if parameter is None:
        own = "" if k is None else str(record["parameter"].values[k])
        parameter = own or ("" if k is None else str(record["after"].values[k]))
    if verdict == Verdict.DEAD and k is not None:
        reason += _of_sample(record, k)
    if rise is None:
        rise = Growth(math.nan, math.nan, math.nan, total, 0)
    return Finding(
        init="",
        activation="",
        direction=direction,
        verdict=verdict,
        rate=rise.rate,
        interval=(rise.low, rise.high),
        total=rise.total,
        fine_depth=thresholds.FINE_DECADES / abs(rise.rate) if rise.rate else math.inf,
        layer=k,
        reason=reason,
        site=site,
        parameter=parameter,
        severity=severity,
    )


def drawn(fan_in: float) -> str:
    """Say with which standard deviation to draw weights that tell nothing apart."""
    return (
        f"draw them with standard deviation sqrt(2/{fan_in:.0f}) = {math.sqrt(2 / fan_in):.3g} in "
        f"front of a ReLU, 1/sqrt({fan_in:.0f}) = {math.sqrt(1 / fan_in):.3g} elsewhere"
    )


def rows_seen(record: xr.Dataset) -> np.ndarray:
    """Return of how many inputs × positions each site was looked at."""
    if "values" not in record:
        return record["rows"].values
    return record["values"].values // np.maximum(record["units"].values, 1)


def _of_sample(record: xr.Dataset, k: int) -> str:
    """Return that what was seen at a site is a sample: more may be alive than it shows."""
    seen, rows = int(rows_seen(record)[k]), int(record["rows"].values[k])
    return f", in a sample of {seen} of {rows}" if seen < rows else ""
