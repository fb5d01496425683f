"""Findings on a sweep in words: the table of verdicts, and the advice below it."""

import json
import math

import numpy as np
import xarray as xr
from rich.text import Text

from propagate.report.fitted import Fitted, Printed
from propagate.types import DIRECTIONS
from propagate.verdicts.findings import Finding, Findings, Verdict
from propagate.verdicts.thresholds import FINE_DECADES

STYLES = {Verdict.STABLE: "green", Verdict.INCONCLUSIVE: "yellow"}


def verdict_table(findings: Findings) -> Printed:
    """Return the table of verdicts, one row per pairing, worst first."""
    title = "Verdict and growth in decades per layer, worst first"
    made = Fitted(names=("initialiser", "activation"), title=Text(title))
    for heading in ("initialiser", "activation", "forward", "backward"):
        made.add_column(heading)
    made.add_column("fine to", justify="right")
    longest = max((len(f.verdict.value) for f in findings if not math.isnan(f.rate)), default=0)
    for (init, phi), pair in _by_pairing(findings).items():
        cells = (_cell(pair.get(direction), longest) for direction in DIRECTIONS)
        made.add_row(Text(init), Text(phi), *cells, _depth(_fine(pair)))
    return Printed(made)


def _cell(finding: Finding | None, pad: int) -> Text:
    if finding is None:
        return Text("not measured", style="dim")
    style, word = STYLES.get(finding.verdict, "red"), finding.verdict.value
    if math.isnan(finding.rate):
        return Text(word, style=style)
    return Text(word.ljust(pad), style=style).append(f" {finding.rate:+.3f}", "default")


def _depth(depth: float) -> str:
    if math.isnan(depth):
        return "none"
    return f"{depth:.0f}" if depth < 10_000 else "> 10000"


def advice(findings: Findings) -> str:
    """Return, for each activation, which initialisers suit it, or what the closest one lacks."""
    pairs, closest = _by_pairing(findings), best(findings)
    lines = []
    for phi, inits in findings.suited().items():
        suited = [f"{init} ({_depth(_fine(pairs[init, phi]))})" for init in inits]
        keep = "keeps" if len(inits) == 1 else "keep"
        says = f"{_listed(suited)} {keep} signals and gradients in range (fine to that depth)."
        lines.append(f"{phi}: {says if inits else _lacking(pairs[closest[phi], phi])}")
    return "\n".join(lines)


def _lacking(pair: dict[str, Finding]) -> str:
    worst = min(pair.values(), key=lambda f: np.nan_to_num(f.fine_depth))
    return (
        f"none of these. The closest, {worst.init}, is {worst.verdict.value} {worst.direction}: "
        f"{worst.verdict.cause} ({worst.rate:+.3f} decades per layer, fine to depth "
        f"{_depth(worst.fine_depth)}). It needs {worst.verdict.remedy}."
    )


def best(findings: Findings) -> dict[str, str]:
    """Return the initialiser with the mildest verdict for each activation."""
    pairs = _by_pairing(findings)
    return {
        phi: min((i for i, own in pairs if own == phi), key=lambda i: _badness(pairs[i, phi]))
        for phi in dict.fromkeys(f.activation for f in findings)
    }


def _badness(pair: dict[str, Finding]) -> tuple[bool, bool, float]:
    lost = {Verdict.OVERFLOWED, Verdict.SYMMETRIC, Verdict.DEAD}
    rates = [abs(f.rate) if math.isfinite(f.rate) else math.inf for f in pair.values()]
    unstable = any(f.verdict is not Verdict.STABLE for f in pair.values())
    return unstable, any(f.verdict in lost for f in pair.values()), max(rates)


def _fine(pair: dict[str, Finding]) -> float:
    return float(np.min([f.fine_depth for f in pair.values()]))  # NaN if one is


def _by_pairing(findings: Findings) -> dict[tuple[str, str], dict[str, Finding]]:
    """Group findings by pairing, the pairing with the worst finding first."""
    pairs: dict[tuple[str, str], dict[str, Finding]] = {}
    for finding in findings.worst_first():
        pairs.setdefault((finding.init, finding.activation), {})[finding.direction] = finding
    return pairs


def _listed(names: list[str]) -> str:
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"


def report(findings: Findings, record: xr.Dataset) -> Printed:
    """Return the whole report."""
    spec = json.loads(record.attrs.get("network", "{}"))
    ran = (
        f"depth {spec.get('depth')}, width {spec.get('width')}, batch {record.attrs.get('batch')}, "
        f"{record.sizes.get('seed', 1)} seeds, {record.attrs.get('dtype')} on "
        f"{record.attrs.get('device')}, jax {record.attrs.get('jax')}"
    )
    legend = (
        "Decades are factors of 10 of a second moment: forward that of h, backward that of its "
        "gradient. For a collapsing pairing they are of the share that tells inputs apart. "
        f"Fine to: the depth at which it will have changed by {FINE_DECADES:.1f} decades."
    )
    words = Text("\nWhich initialiser suits which activation?", style="bold")
    return Printed(verdict_table(findings), Text(ran), Text(legend), words, Text(advice(findings)))
