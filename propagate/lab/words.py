"""What is said of a setting: the verdict, and the recipe; in Markdown."""

import functools
import math

import propagate as pp
from propagate.lab.look import Point

SUBJECTS = {"forward": "Signal", "backward": "Gradient"}


def verdict(findings: pp.Findings) -> str:
    """Return what becomes of signal and gradient, a line each, with cause and remedy of faults."""
    return "\n\n".join(map(_sentence, findings))


def _sentence(finding: pp.Finding) -> str:
    says = f"**{SUBJECTS[finding.direction]}: {finding.verdict.value}.** {finding.reason}."
    if not finding.is_fault:
        return says
    remedy = finding.remedy or finding.verdict.remedy
    return f"{says} Cause: {finding.cause}. Remedy: {remedy}."


def recipe(phi: pp.Activation, point: Point | None) -> str:
    """Return at which scale gradients keep their size beside biases like these, with code.

    Args:
        phi: the activation.
        point: where the stack is; None if theory of plain stacks does not hold for it.
    """
    if point is None:
        return "The critical scale is known of plain stacks of independent, centred weights."
    found, reason = _critical(phi, point.sigma_b2)
    here, sigma_b = math.sqrt(point.sigma_w2), math.sqrt(point.sigma_b2)
    if not found:
        return f"No scale keeps the gradient: {reason}."
    points = [at for at in found if at.q]
    if not points:  # at q = 0 gradients stay in the limit alone, which no signal comes to in time
        return (
            f"With sigma_b = {sigma_b:.3g}, gradients keep their size only in the limit of signals "
            "of 0. A sigma_b above 0 has a scale that keeps both, as that of `critical`."
        )
    best = min(points, key=lambda p: abs(p.sigma_w2 - point.sigma_w2))
    bias = f"biases of std {sigma_b:.3g}" if sigma_b else "biases of 0"
    return (
        f"With sigma_b = {sigma_b:.3g}, gradients keep their size at **sigma_w = "
        f"{math.sqrt(best.sigma_w2):.4g}** (here: {here:.4g}), where q = {best.q:.3g}. In JAX: "
        f"`variance_scaling({best.sigma_w2:.4g}, 'fan_in', 'normal')` with {bias}."
    )


@functools.lru_cache(maxsize=256)
def _critical(phi: pp.Activation, sigma_b2: float) -> tuple[tuple[pp.CriticalPoint, ...], str]:
    try:
        points = pp.critical(phi, sigma_b2)
    except pp.UnusableInput as error:
        return (), str(error)
    return tuple(points), points.reason
