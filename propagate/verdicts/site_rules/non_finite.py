"""The rule for gradients that stop being finite behind finite values."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.site_rules.site_finding import site_finding

REMEDIES = {
    "sqrt": "add a small number under the root, sqrt(x + 1e-12)",
    "rsqrt": "add a small number under the root, rsqrt(x + 1e-12)",
    "cbrt": "add a small number under the root",
    "log": "add a small number in front of the logarithm, log(x + 1e-12)",
    "log1p": "keep x above -1",
    "div": "add a small number to the denominator",
    "atan2": "keep both operands from being 0 at once",
    "pow": "add a small number to the base",
    "asin": "clip x to [-1 + 1e-6, 1 - 1e-6]",
    "acos": "clip x to [-1 + 1e-6, 1 - 1e-6]",
    "atanh": "clip x to [-1 + 1e-6, 1 - 1e-6]",
    "acosh": "keep x above 1",
    "exp": "subtract the largest value first, as jax.nn.softmax and logsumexp do",
    "eigh": "keep eigenvalues apart, or leave its gradient out",
    "svd": "keep singular values apart, or leave its gradient out",
}
ELSE = "keep its operand away from there"


def not_finite_behind(record: xr.Dataset) -> Iterator[Finding]:
    """Non-finite: where, on its way back, the gradient stops being finite; or overflowed."""
    if "origin" not in record.dims:
        yield from _unlocated(record)
        return
    for k in range(record.sizes["origin"]):
        one = {name: record[f"origin_{name}"].values[k] for name in NAMES}
        overflow = str(one["how"]) == "overflow"
        verdict = Verdict.OVERFLOWED if overflow else Verdict.NON_FINITE
        site = int(one["site"]) if int(one["site"]) >= 0 else None
        reason = _overflow(record, one) if overflow else _singular(one) + _reached(record)
        yield site_finding(record, site, "backward", verdict, reason)


NAMES = ("site", "operation", "primitive", "operand", "share", "how", "masked", "dtype")


def _singular(one: dict[str, np.ndarray]) -> str:
    operation, primitive = str(one["operation"]), str(one["primitive"])
    operand = float(one["operand"])
    where = f", whose operand is {operand:.3g}" if math.isfinite(operand) else ""
    itself = "the value of" if str(one["how"]) == "forward" else "the derivative of"
    remedy = REMEDIES.get(primitive, ELSE)
    if bool(one["masked"]):
        remedy = (
            "a where behind it passes on 0 · inf; put a second where in front of it, "
            f"{primitive}(where(fine, x, 1)), or {remedy}"
        )
    return (
        f"{itself} {operation}{where}, is not finite: {float(one['share']):.0%} of the gradient "
        f"behind it are NaN or infinite; {remedy}"
    )


def _reached(record: xr.Dataset) -> str:
    """Return how many parameters get a gradient that is not finite."""
    q = record["log10_gradient_q"].values if "log10_gradient_q" in record else np.array([])
    lost = int((np.isnan(q) | (q == math.inf)).sum())
    return f" ({lost} of {q.size} parameters get a gradient that is not finite)" if lost else ""


def _overflow(record: xr.Dataset, one: dict[str, np.ndarray]) -> str:
    reason = f"the gradient leaves the range of {one['dtype']} in {one['operation']}"
    if "log2_loss_scale_most" not in record:
        return f"{reason}; a smaller loss, or smaller scales of the layers behind it"
    k = float(record["log2_loss_scale_most"])
    return f"{reason}; multiply the loss by about 2^{k:.0f}"


def _unlocated(record: xr.Dataset) -> Iterator[Finding]:
    """Tell a gradient that is not finite of which no second look was taken."""
    if "log10_backward_q" not in record or "log10_gradient_q" not in record:
        return
    q = record["log10_backward_q"].values
    bad = np.flatnonzero(record["taken"].values & (np.isnan(q) | (q == math.inf)))
    if len(bad):
        k = int(bad[-1])
        reason = f"the gradient is not finite at {record['name'].values[k]}, and from there back"
        yield site_finding(record, k, "backward", Verdict.NON_FINITE, reason)
