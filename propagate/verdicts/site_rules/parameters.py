"""The rules for parameters: without a gradient, or all equal."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.site_rules.site_finding import site_finding


def untrained(record: xr.Dataset) -> list[Finding]:
    """Untrained: parameters whose gradient is exactly zero, unless that is intended."""
    if _zero_gates(record) or "log10_gradient_q" not in record:
        return []
    names = record["weight"].values[np.isneginf(record["log10_gradient_q"].values)]
    reason = "its gradient is exactly zero"
    return [
        site_finding(record, None, "backward", Verdict.UNTRAINED, reason, parameter=str(name))
        for name in names
    ]


def _zero_gates(record: xr.Dataset) -> tuple[str, ...]:
    """Return the parameters that are zero at initialisation and learn, as ReZero's scales do.

    Until they have moved no gradient passes them, which is intended.
    """
    if "log10_gradient_q" not in record:
        return ()
    zero = np.isneginf(record["log10_weight_q"].values)
    learns = np.isfinite(record["log10_gradient_q"].values)
    names = [str(name) for name in record["weight"].values]
    bias = np.array([name.endswith(("bias", ".b", "beta", "offset")) for name in names], bool)
    return tuple(names[k] for k in np.flatnonzero(zero & learns & ~bias))


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
            reason = f"all its weights are equal ({law})"
            yield site_finding(
                record, int(at[0]), "forward", Verdict.SYMMETRIC, reason, parameter=str(name)
            )
