"""Findings on a sweep in words: the table of verdicts, and the advice below it."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from rich.text import Text

from propagate.record.provenance import about_parameters
from propagate.report.by_depth import ByDepth, by_depth, in_words
from propagate.report.fitted import Fitted, Printed
from propagate.theory.criticality import critical_at_unit
from propagate.types import DIRECTIONS
from propagate.verdicts.findings import Finding, Findings, Verdict, mildest_first
from propagate.verdicts.growth import counted
from propagate.verdicts.thresholds import FINE_DECADES

CRITICAL = ("critical", "critical_orthogonal")  # the initialisers that follow the activation
LOST = {  # beyond any rate
    *(Verdict.OVERFLOWED, Verdict.NON_FINITE, Verdict.SYMMETRIC, Verdict.DEAD, Verdict.UNTRAINED)
}
STYLES = {Verdict.STABLE: "green", Verdict.INCONCLUSIVE: "yellow"}


def verdict_table(findings: Findings) -> Printed:
    """Return the table of verdicts, one row per pairing, worst first."""
    title = "Verdict and growth in decades per layer, by verdict, then rate, the worst first"
    made = Fitted(names=("initialiser", "activation"), title=Text(title))
    for heading in ("initialiser", "activation", "forward", "backward"):
        made.add_column(heading)
    made.add_column("fine to", justify="right")
    longest = max((len(f.verdict.value) for f in findings if not math.isnan(f.rate)), default=0)
    for (init, phi), pair in _by_pairing(findings).items():
        cells = (_cell(pair.get(direction), longest) for direction in DIRECTIONS)
        made.add_row(Text(init), Text(phi), *cells, _depth(_fine(pair)))
    return Printed(made)


def rows(findings: Findings) -> Iterator[tuple[str, str, tuple[str, ...], bool]]:
    """Yield each pairing, worst first: its names, its cells, and whether it is stable.

    The cells are verdict and rate forward, verdict and rate backward, and the depth it is fine to.
    """
    for (init, phi), pair in _by_pairing(findings).items():
        cells = [
            word
            for direction in DIRECTIONS
            for word in (_word(pair.get(direction)), _rate(pair.get(direction)))
        ]
        stable = {f.verdict for f in pair.values()} == {Verdict.STABLE}
        yield init, phi, (*cells, _depth(_fine(pair))), stable


def _word(finding: Finding | None) -> str:
    return "not measured" if finding is None else finding.verdict.value


def _rate(finding: Finding | None) -> str:
    return "" if finding is None or math.isnan(finding.rate) else f"{finding.rate:+.3f}"


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


def advice(findings: Findings, record: xr.Dataset | None = None) -> str:
    """Return, for each activation, which initialisers suit it, or what the closest one lacks.

    Args:
        findings: on a sweep.
        record: of that sweep; with it theory says which scale it would take.
    """
    known = {} if record is None else about_parameters(record)
    pairs, closest = _by_pairing(findings), best(findings)
    lines = []
    for phi, inits in findings.suited().items():
        suited = [f"{init} ({_depth(_fine(pairs[init, phi]))})" for init in inits]
        keep = "keeps" if len(inits) == 1 else "keep"
        says = f"{_listed(suited)} {keep} signals and gradients in range (fine to that depth)."
        if not inits:
            says = _lacking(pairs[closest[phi], phi])
            if phi in known.get("named", ()):
                says = _with_theory(says, phi, measured=("critical", phi) in pairs)
        lines.append(f"{phi}: {says}")
    return "\n".join(lines)


def _with_theory(says: str, phi: str, *, measured: bool) -> str:
    """Add at which scale an activation of the table is critical, unless that was measured."""
    point = critical_at_unit(phi)
    if point.kind == "none":
        says = says.replace(", near criticality", "")
    elif measured:
        return says
    numbers = f"sigma_w² = {point.sigma_w2:.4g} and sigma_b² = {point.sigma_b2:.4g}"
    if point.kind == "none":
        why, closest = _none(point.reason)
        return (
            f"{says} By theory {why}. The closest, the initialiser critical ({numbers}), {closest}."
        )
    return f"{says} By theory the initialiser critical would suit: {numbers} ({point.reason})."


def _none(reason: str) -> tuple[str, str]:
    """Return why there is no critical point, and what the closest one does."""
    why, _, closest = reason.partition("; this ")
    return f"there is {why}", closest


def _lacking(pair: dict[str, Finding]) -> str:
    """Say what the closest initialiser lacks: the first direction that is not stable, the worse."""
    ordered = [pair[d] for d in DIRECTIONS if d in pair]
    unsound = [f for f in ordered if f.verdict is not Verdict.STABLE]
    if not unsound:
        unseen = next((f.unseen for f in ordered if f.unseen), "the other direction not measured")
        return (
            f"none is known to suit. {ordered[0].init} keeps what was measured in range; {unseen}."
        )
    worst = min(unsound, key=lambda f: np.nan_to_num(f.fine_depth))
    rate = "no rate" if math.isnan(worst.rate) else f"{worst.rate:+.3f} decades per layer"
    return (
        f"none of these. The closest, {worst.init}, is {worst.verdict.value} {worst.direction}: "
        f"{worst.cause} ({rate}, fine to depth "
        f"{_depth(worst.fine_depth)}). It needs {worst.remedy or worst.verdict.remedy}."
    )


def best(findings: Findings) -> dict[str, str]:
    """Return the initialiser with the mildest verdict for each activation, the first of ties."""
    found = {}
    for phi in dict.fromkeys(f.activation for f in findings):
        own: dict[str, list[Finding]] = {}
        for f in findings:
            if f.activation == phi:
                own.setdefault(f.init, []).append(f)
        mildest = min(map(_badness, own.values()))
        alike = {init: pair for init, pair in own.items() if _badness(pair) == mildest}
        found[phi] = mildest_first(alike)[0]
    return found


def _badness(pair: list[Finding]) -> tuple[bool, bool]:
    """Return whether a pairing is not stable, and whether it is lost beyond any rate."""
    found = {f.verdict for f in pair}
    return found != {Verdict.STABLE}, bool(found & LOST)


def recipes(findings: Findings, record: xr.Dataset) -> str:
    """Return the critical variances of each activation with what becomes of them, and code.

    Empty if the record has no critical initialiser.

    Args:
        findings: on the record.
        record: of a sweep.
    """
    pairs, lines = _by_pairing(findings), []
    for phi, point in json.loads(record.attrs.get("critical", "{}")).items():
        found = [_found(name, pairs[name, phi]) for name in CRITICAL if (name, phi) in pairs]
        if found:
            numbers = f"sigma_w² = {point['sigma_w2']:.4g}, sigma_b² = {point['sigma_b2']:.4g}"
            says = f"{numbers} ({point['reason']})"
            if point["kind"] == "none":
                why, closest = _none(point["reason"])
                says = f"{why}. The closest, {numbers}, {closest}"
            lines.append(f"{phi}: {says}. Found: {'; '.join(found)}. {_code(**point)}")
    return "\n".join(lines)


def _found(init: str, pair: dict[str, Finding]) -> str:
    """Say what becomes of a pairing in each direction, and to which depth it is fine."""
    says = []
    for d in (d for d in DIRECTIONS if d in pair):
        whose = "by theory" if "by theory" in pair[d].reason else ""
        says.append(" ".join(filter(None, (d, pair[d].verdict.value, _rate(pair[d]), whose))))
    return f"{init} {', '.join(says)}, fine to depth {_depth(_fine(pair))}"


def _code(sigma_w2: float, sigma_b2: float, **_: Any) -> str:
    """Return the variances as the initialisers of JAX and of PyTorch."""
    std = math.sqrt(sigma_b2)
    biases = f"biases of std {std:.4g}" if std else "biases of 0"
    torch = f"nn.init.normal_(b, std={std:.4g})" if std else "nn.init.zeros_(b)"
    return (
        f"In JAX: variance_scaling({sigma_w2:.4g}, 'fan_in', 'normal') with {biases}; in PyTorch: "
        f"nn.init.normal_(w, std=({sigma_w2:.4g} / fan_in) ** 0.5), {torch}."
    )


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


def how_it_ran(record: xr.Dataset) -> str:
    """Return sizes, dtype and device of a sweep, as far as its record has them."""
    known = json.loads(record.attrs.get("network", "{}")) | record.attrs
    words = [f"{name} {known[name]}" for name in ("depth", "width", "batch") if name in known]
    seeds = [counted(record.sizes["seed"], "seed")] if "seed" in record.sizes else []
    place = [f"{known['dtype']} on {known['device']}"] if "device" in known else []
    return ", ".join([*words, *seeds, *place, f"jax {known.get('jax')}"])


def report(
    findings: Findings, record: xr.Dataset, fine: ByDepth | None = None, changes: str = ""
) -> Printed:
    """Return the whole report.

    Args:
        findings: on the record.
        record: of a sweep.
        fine: of `by_depth`, if it is known already.
        changes: what would help activations for which nothing is fine, in words.
    """
    legend = (
        "Decades are factors of 10 of a second moment: forward that of h, backward that of its "
        "gradient. For a collapsing pairing they are of the share that tells inputs apart. "
        f"Fine to: the depth at which it will have changed by {FINE_DECADES:.1f} decades."
    )
    words = Text("\nWhich initialiser suits which activation?", style="bold")
    parts = [
        verdict_table(findings),
        Text(how_it_ran(record)),
        Text(legend),
        words,
        Text(advice(findings, record)),
    ]
    shallow = in_words(by_depth(findings, record) if fine is None else fine)
    if shallow:
        title = (
            "\nDepth by depth, of the first layers alone (what is not named is not fine even there)"
        )
        parts += [Text(title, style="bold"), Text(shallow)]
    numbers = recipes(findings, record)
    if numbers:
        title = "\nCritical by theory of plain layers, for inputs of unit second moment"
        parts += [Text(title, style="bold"), Text(numbers)]
    if changes:
        title = "\nWhat would help where nothing is fine?"
        parts += [Text(title, style="bold"), Text(changes)]
    return Printed(*parts)
