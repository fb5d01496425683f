"""The rule for gradients that stop being finite behind finite values."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.verdicts import thresholds
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
    "exp": "bound what comes in; a softmax subtracts the largest value first",
    "eigh": "keep eigenvalues apart, or leave its gradient out",
    "svd": "keep singular values apart, or leave its gradient out",
}
ELSE = "keep its operand away from there"
POSITIVE = ("sqrt", "rsqrt", "log", "pow")
"""Operations of which a small number that is added does not help where the operand is negative."""
MADE_POSITIVE = "its operand is negative: make it positive first, by softplus, exp, square or abs"
ROUNDED = "its operand is negative by rounding: maximum(x, 0) + 1e-12 is not"
DEGENERATE = {"eigh": "two eigenvalues are equal", "svd": "two singular values are equal"}
"""Where the derivative of a decomposition is infinite, whatever its operand is otherwise."""
SUBTRACTED = "subtract the largest value first, as jax.nn.softmax and logsumexp do"
BOUNDED = "bound what comes in, as 3 tanh(x / 3) does, or make it smaller"
STARTS = {
    "parameter": (
        "{operand:.0f} of its {size} values {are} {operation}, the first at {at}",
        "draw or load it anew",
    ),
    "index": (
        "{operation} reads row {operand:.0f} of {by}, which has {size}",
        "indices go from 0 to {last}",
    ),
    "empty row": (
        "{operation} has rows of scores that are -inf everywhere, {by}",
        "let each row see one position at least, or mask with a large finite number, -1e9 (-1e4 "
        "in float16)",
    ),
}
"""What `models.causes.overflow` finds, in words, with what to do; else an operation is named."""


def remedy(primitive: str, operand: float, otherwise: str = ELSE) -> str:
    """Return what keeps an operation finite.

    Args:
        primitive: its name, such as `"log"`.
        operand: a value of the operand at which it is not.
        otherwise: for an operation that has no remedy of its own.
    """
    if operand < 0 and primitive in POSITIVE:
        return ROUNDED if operand > -thresholds.ROUNDED else MADE_POSITIVE
    return REMEDIES.get(primitive, otherwise)


def began(record: xr.Dataset) -> tuple[str, str]:
    """Return what made the first value that is not finite, and what to do; empty if unknown."""
    got = {name: record.attrs.get(f"overflow_{name}", "") for name in PARTS}
    cause, operation = str(got["cause"]), str(got["operation"])
    if not cause:
        return "", ""
    operand = float(got["operand"])
    if cause in STARTS:
        got["by"] = got["by"] or "an array"
        words = got | {"last": int(got["size"]) - 1, "are": "is" if operand == 1 else "are"}
        what, todo = STARTS[cause]
        return what.format(**words), todo.format(**words)
    of = "" if math.isnan(operand) else f" of {operand:.3g}"
    primitive = operation.split()[0]
    if primitive in ("exp", "exp2"):
        return operation + of, SUBTRACTED if cause == "summed" else BOUNDED
    return operation + of, remedy(primitive, operand, "a smaller scale of what comes in")


PARTS = ("cause", "operation", "by", "operand", "size", "at")


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
    where = f", where {DEGENERATE[primitive]}" if primitive in DEGENERATE else where
    itself = "the value of" if str(one["how"]) == "forward" else "the derivative of"
    todo = remedy(primitive, operand)
    if bool(one["masked"]):
        todo = (
            "a where behind it passes on 0 · inf; put a second where in front of it, "
            f"{primitive}(where(fine, x, 1)), or {todo}"
        )
    return (
        f"{itself} {operation}{where}, is not finite: {float(one['share']):.0%} of the gradient "
        f"behind it are NaN or infinite; {todo}"
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
