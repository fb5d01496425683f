"""The rules for what a dtype of few exponents loses: gradients and signals flushed to zero."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Severity, Verdict
from propagate.verdicts.site_rules.site_finding import site_finding


def flushed(record: xr.Dataset) -> Iterator[Finding]:
    """Underflowed: gradients below the smallest number of their dtype, with the loss's scale."""
    if "backward_flushed_fraction" not in record:
        return
    limit = float(record["log10_smallest"]) + thresholds.FLUSHED_DECADES
    sites = _small(record, "backward_flushed_fraction", "log10_backward_q", limit)
    weights = _small(record, "gradient_flushed_fraction", "log10_gradient_q", limit)
    worst = max([0.0, *sites, *weights])
    if worst < thresholds.FLUSHED_NOTE:
        return
    severity: Severity = "fault" if worst >= thresholds.FLUSHED else "note"
    least = thresholds.FLUSHED if severity == "fault" else thresholds.FLUSHED_NOTE
    at, of = np.flatnonzero(sites >= least), np.flatnonzero(weights >= least)
    site = int(at[-1]) if len(at) else None
    parameter = None if len(at) else str(record["weight"].values[of[0]])
    gone = int((weights >= 1).sum())
    parts = [f"up to {worst:.0%} of its elements are flushed to zero from here back"]
    if len(of):
        parts.append(f"{len(of)} of {len(weights)} parameters lose some, {gone} all of it")
    reason = (
        f"the gradient is below the smallest numbers of {record.attrs.get('narrow', 'its dtype')}: "
        f"{', '.join(parts)}; {_remedy(record)}"
    )
    yield site_finding(
        record,
        site,
        "backward",
        Verdict.UNDERFLOWED,
        reason,
        parameter=parameter,
        severity=severity,
    )


def _small(record: xr.Dataset, share: str, q: str, limit: float) -> np.ndarray:
    """Return shares that are flushed, 0 where the rest is too large for it to matter."""
    if share not in record or q not in record:
        return np.zeros(0)
    near = record[q].values / 2 < limit
    return np.where(near, np.nan_to_num(record[share].values), 0.0)


def _remedy(record: xr.Dataset) -> str:
    """Return the scale of the loss that mends it, in words."""
    least, most = float(record["log2_loss_scale_least"]), float(record["log2_loss_scale_most"])
    if least > most:
        return (
            f"no scale of the loss mends it, since 2^{least:.0f} is needed and gradients overflow "
            f"from 2^{most:.0f} on: compute in bfloat16"
        )
    k = thresholds.LOSS_SCALE if least <= thresholds.LOSS_SCALE <= most else (least + most) // 2
    return (
        f"multiply the loss by about 2^{k:.0f} (2^{least:.0f} to 2^{most:.0f} do), and divide the "
        "gradients by it afterwards"
    )


def flushed_signal(record: xr.Dataset) -> Iterator[Finding]:
    """Underflowed: the first operation whose results its dtype flushes to zero."""
    if "forward_flushed_fraction" not in record:
        return
    limit = float(record["log10_smallest"]) + thresholds.FLUSHED_DECADES
    share = _small(record, "forward_flushed_fraction", "log10_forward_q", limit)
    at = np.flatnonzero(share >= thresholds.FLUSHED)
    if len(at):
        k = int(at[0])
        reason = (
            f"{share[k]:.0%} of the results of {record['flushed_by'].values[k]} are below the "
            f"smallest number of {record.attrs.get('narrow', 'its dtype')}, and flushed to zero; "
            "scale what comes in up, or compute this in bfloat16 or float32"
        )
        yield site_finding(record, k, "forward", Verdict.UNDERFLOWED, reason)
