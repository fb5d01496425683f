"""What a page says first: the verdict, what would help, and what was not looked at."""

import json
from collections.abc import Mapping
from xml.etree.ElementTree import Element

import xarray as xr

from propagate.record.provenance import how_it_ran
from propagate.report import sweep_table
from propagate.report.html.elements import Child, el, section
from propagate.report.html.tables import site_key, stable_pairings
from propagate.verdicts.findings import Finding, Findings

OPEN = "Every call within the model was looked into."
CLOSED = "What is within these calls was not looked at: each is one site, or none."
CRITICAL = "Critical by theory of plain layers, for inputs of unit second moment."


def is_custom(record: xr.Dataset) -> bool:
    """Whether it is of a custom model, with sites."""
    return "site" in record.dims


def headline(record: xr.Dataset, findings: Findings) -> str:
    """Return the verdict in a few words."""
    if is_custom(record):
        words = findings.conclusion(record.sizes["site"])
        return words[0].upper() + words[1:]
    stable, pairings = stable_pairings(findings)
    if pairings > 1:
        return f"{stable} of {pairings} pairings keep signals and gradients in range"
    said = ", ".join(f"{f.verdict.value} {f.direction}" for f in sorted(findings, key=_direction))
    return ": ".join(filter(None, (f"{findings[0].init} + {findings[0].activation}", said)))


def _direction(finding: Finding) -> bool:
    return finding.direction == "backward"


def verdict(record: xr.Dataset, findings: Findings) -> Element:
    """Return the first part of the page: the verdict, how it ran, and what it rests on."""
    if is_custom(record):
        mode = how_it_ran(record)
        how: Child = [el("code", record.attrs.get("model") or "the model"), mode and f", {mode}"]
        said = [_finding(finding) for finding in findings]
    else:
        how = sweep_table.how_it_ran(record)
        one = stable_pairings(findings)[1] == 1
        said = [*map(_finding, findings)] if one else _lines(sweep_table.advice(findings, record))
    source = record.attrs.get("theory")
    theory = f", by theory ({source}): nothing was measured" if source else None
    title = el("h1", headline(record, findings))
    return el(
        "section", title, el("p", how, theory), el("ul", said) if said else None, id="verdict"
    )


def _finding(finding: Finding) -> Element:
    """Return a finding as a sentence, with a link to the row of its site."""
    subject = finding.parameter or finding.site
    name: Child = el("code", subject) if subject else f"{finding.init} + {finding.activation}"
    if finding.site and finding.layer is not None:
        name = el("a", name, href=f"#{site_key(finding.layer)}")
    look = "fault" if finding.is_fault else "note" if finding.severity == "note" else "fine"
    word = el("strong", finding.verdict.value, class_=look)
    about = " (note)" if look == "note" else ""
    return el("li", word, about, " ", name, f", {finding.direction}: {finding.reason}")


def _lines(text: str) -> list[Element]:
    """Return the lines of a text as items, each with its subject, up to the colon, in bold."""
    items = []
    for line in text.splitlines():
        subject, colon, rest = line.partition(": ")
        items.append(el("li", el("strong", subject), colon + rest) if colon else el("li", line))
    return items


def recipe(record: xr.Dataset, findings: Findings) -> Element | None:
    """Return what would help: initialisers and code of a sweep, remedies of a model's faults."""
    if is_custom(record):
        items: list[Element] = [_remedy(*one) for one in _remedies(findings).items()]
        about = None
    else:
        alone = stable_pairings(findings)[1] == 1
        lacking = sweep_table.advice(findings, record) if alone and findings.faults else ""
        text = sweep_table.recipes(findings, record)
        items = [*_lines(lacking), *_lines(text)]
        about = el("p", CRITICAL) if text else None
    return section("recipe", "What to do", about, el("ul", items)) if items else None


def _remedies(findings: Findings) -> Mapping[tuple[str, str, str], list[Finding]]:
    """Return the faults of each verdict, cause and remedy."""
    found: dict[tuple[str, str, str], list[Finding]] = {}
    for f in findings.faults:
        found.setdefault((f.verdict.value, f.cause, f.remedy or f.verdict.remedy), []).append(f)
    return found


def _remedy(what: tuple[str, str, str], faults: list[Finding]) -> Element:
    """Return a remedy and where it is needed; the findings above have the numbers."""
    word, cause, remedy = what
    places = dict.fromkeys(f.parameter or f.site or "the model" for f in faults)
    named = [[", " if k else "", el("code", name)] for k, name in enumerate(places)]
    return el("li", el("strong", word), " at ", named, f": {cause}. It needs {remedy}.")


def further(title: str, text: str) -> Element:
    """Return a part with the lines of a text, such as the advice of a verb."""
    return section(title.lower().replace(" ", "-"), title, el("ul", _lines(text)))


def unopened(record: xr.Dataset) -> Element | None:
    """Return what was not looked into, each with the reason; None of a stack."""
    if not is_custom(record):
        return None
    found = json.loads(record.attrs.get("unopened", "[]"))
    items = el("ul", [el("li", str(one)) for one in found])
    return section("unopened", "Not opened", el("p", CLOSED if found else OPEN), found and items)
