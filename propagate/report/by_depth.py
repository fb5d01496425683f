"""Which initialisers are still fine in the first layers of a sweep: depth by depth, measured.

The first d layers of a stack whose layers do not depend on its depth are a stack of depth d; the
gradient that comes out of layer d + 1 stands for the one that would start there. So the rules are
asked about a prefix of the record, and need no sweep of its own.
"""

from collections.abc import Mapping
from dataclasses import replace

import xarray as xr

from propagate.record.dataset import measured_directions
from propagate.record.provenance import about_parameters
from propagate.verdicts.findings import Finding, Findings, Verdict
from propagate.verdicts.stack_rules.rules_in_order import judge_pairing
from propagate.verdicts.stack_rules.stack_record import Pairing, pairings_of

DEPTHS = (5, 10, 20, 50)
"""Depths that are asked about, as far as the stack goes; then the stack's own."""

ByDepth = Mapping[str, Mapping[int, Mapping[str, list[str]]]]
"""Activation → depth → what is `"fine"`, best first, and what the seeds leave `"unsettled"`."""


def by_depth(findings: Findings, record: xr.Dataset) -> ByDepth:
    """Return which initialisers are fine, for each activation, at 5, 10, 20 and 50 layers.

    Empty if the record does not say that its layers are the same at every depth: those of Fixup or
    DeepNorm depend on it, and recurrent ones share their weights.

    Args:
        findings: on the record, for its own depth.
        record: of a sweep.
    """
    known = about_parameters(record)
    depth = record.sizes["layer"] - 1
    shallower = [d for d in DEPTHS if d < depth]
    if not shallower or known.get("shared") or known.get("depth_scaled", True):
        return {}
    pairs = list(pairings_of(record))
    each = {d: Findings(f for p in pairs for f in _of_prefix(p, d)) for d in shallower}
    each[depth] = findings
    found: dict[str, dict[int, dict[str, list[str]]]] = {p.activation: {} for p in pairs}
    for d, own in each.items():
        suited, unsettled = own.suited(), _unsettled(own, d)
        for phi in found:
            found[phi][d] = {"fine": suited.get(phi, []), "unsettled": unsettled.get(phi, [])}
    return found


def _of_prefix(pairing: Pairing, depth: int) -> list[Finding]:
    first = replace(pairing, record=pairing.record.isel(layer=slice(0, depth + 1)))
    directions = measured_directions(first.record)
    return [judge_pairing(first, d) for d in directions if first.measured(d)]


def _unsettled(findings: Findings, depth: int) -> dict[str, list[str]]:
    """Return pairings that are neither fine nor unfit.

    An interval reaches over the limit, or the gradient was lost behind the prefix.
    """
    pairs: dict[tuple[str, str], list[Finding]] = {}
    for f in findings:
        pairs.setdefault((f.activation, f.init), []).append(f)
    found: dict[str, list[str]] = {}
    for (phi, init), own in pairs.items():
        open_ones = [f.verdict is Verdict.INCONCLUSIVE or _lost_behind(f, depth) for f in own]
        unfit = any(f.is_fault and not is_open for f, is_open in zip(own, open_ones, strict=True))
        if any(open_ones) and not unfit:
            found.setdefault(phi, []).append(init)
    return found


def _lost_behind(finding: Finding, depth: int) -> bool:
    return finding.direction == "backward" and finding.is_fault and finding.layer == depth


def in_words(fine: ByDepth) -> str:
    """Return a line for each activation: to which depth initialisers are fine, the best first.

    Example:
        >>> none, he = {"fine": [], "unsettled": []}, {"fine": ["he_normal"], "unsettled": []}
        >>> print(in_words({"gelu": {5: he, 10: none}, "softplus": {5: none, 10: none}}))
        gelu: to 5 layers he_normal; to 10 none.
        softplus: none, not even at 5 layers.
    """
    return "\n".join(f"{phi}: {_of_activation(own)}" for phi, own in fine.items())


def _of_activation(own: Mapping[int, Mapping[str, list[str]]]) -> str:
    reach = {d: [init for init in at["fine"] if _deepest(init, own) == d] for d, at in own.items()}
    least, most = min(own), max(own)
    if not any(reach.values()):
        return f"none, not even at {least} layers{_also_unsettled(own)}."
    parts = [f"to {d} layers {', '.join(names)}" for d, names in reversed(reach.items()) if names]
    if not reach[most]:
        parts.append(f"to {most} none")
    return f"{'; '.join(parts)}{_also_unsettled(own)}."


def _deepest(init: str, own: Mapping[int, Mapping[str, list[str]]]) -> int:
    """Return the largest depth at which an initialiser is fine and unfit at none before; or 0."""
    deepest = 0
    for d, at in own.items():
        if init in at["fine"]:
            deepest = d
        elif init not in at["unsettled"]:
            break
    return deepest


def _also_unsettled(own: Mapping[int, Mapping[str, list[str]]]) -> str:
    parts = [f"{', '.join(at['unsettled'])} at {d}" for d, at in own.items() if at["unsettled"]]
    return f" (not settled by these seeds: {'; '.join(parts)})" if parts else ""
