"""Why a fault stays: what no factor of a weight changes."""

from propagate.cure.factors.search import Found
from propagate.types import DIRECTIONS
from propagate.verdicts.findings import Finding, Findings, Verdict

SCALES = (
    Verdict.OVERFLOWED,
    Verdict.EXPLODING,
    Verdict.VANISHING,
    Verdict.DEPARTING,
    Verdict.SATURATED,
)
"""Verdicts that a factor may change."""
WHY = {
    Verdict.DEAD: "a bias or the operation itself holds it at zero, whatever its weights are",
    Verdict.UNTRAINED: "a gradient that is cut off stays zero, whatever the weights are",
    Verdict.NON_FINITE: "a derivative that is infinite stays so, whatever the weights are",
    Verdict.UNDERFLOWED: "that asks for a scaled loss or a wider dtype",
    Verdict.COLLAPSING: "it is the architecture that makes inputs alike, or the biases",
    Verdict.SYMMETRIC: "equal weights stay equal in any multiple",
    Verdict.SATURATED: "it stays so at any scale of its weights: see its biases and inputs",
    Verdict.OVERFLOWED: "it stays out of range at any scale that was tried",
}


def reasons(findings: Findings, found: Found | None) -> tuple[str, ...]:
    """Return a sentence for each fault that is left.

    Args:
        findings: that are left.
        found: of the search, if there was one.
    """
    return tuple(f"{_what(fault)}: {_why(fault, found)}" for fault in findings.faults)


def _what(fault: Finding) -> str:
    return f"{fault.parameter or fault.site}, {fault.direction}: {fault.verdict.value}"


def _why(fault: Finding, found: Found | None) -> str:
    if fault.verdict in WHY:
        return WHY[fault.verdict]
    if found and found.unmoved:
        names = ", ".join(found.unmoved)
        return f"no weight changes what is measured at {names}, where a norm or a bias decides"
    return "no factor of a weight was found that makes it better"


def floor(found: Found, goal: float) -> str:
    """Return what keeps growth above the goal, in words; empty if nothing does."""
    if found.worst <= goal:
        return ""
    forward, backward = (found.reading.growth[d] for d in DIRECTIONS)
    return (
        f"growth stays {forward:+.3f} forward and {backward:+.3f} backward, in decades per layer: "
        "factors change both alike, and leave what the two differ by"
    )
