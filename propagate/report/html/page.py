"""The page: one HTML file of a record, which asks nothing of a network."""

import base64
import hashlib
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from xml.etree.ElementTree import Element

import xarray as xr

from propagate.record.storage import write_whole
from propagate.report.html import origin, pictures, tables, words
from propagate.report.html.elements import el, section, written
from propagate.types import UnusableInput
from propagate.verdicts.findings import Findings
from propagate.verdicts.judge import judge
from propagate.verdicts.outcomes import beginning, is_training, outcomes


def write(
    record: xr.Dataset,
    path: str | os.PathLike,
    findings: Findings | None = None,
    *,
    more: Mapping[str, str] | None = None,
) -> Path:
    """Write the page of a record whole, or not at all; return its path.

    Args:
        record: of `sweep`, `measure`, `predict`, `train` or `diagnose`.
        path: of the file.
        findings: on it; by default those of `judge`.
        more: parts after the verdict, by their titles: lines of text, such as advice.

    Raises:
        UnusableInput: a record without layers or named sites.
        PropagateError: the folder cannot be written to.
    """
    text = page(record, findings, more=more)
    write_whole(Path(path), lambda part: part.write_text(text, "utf-8", errors="replace"))
    return Path(path)


def page(
    record: xr.Dataset, findings: Findings | None = None, *, more: Mapping[str, str] | None = None
) -> str:
    """Return the page as text: verdict first, then what to do, pictures, tables, source, origin."""
    if not ({"layer", "site"} & set(record.dims)) or "width" in record.dims:
        dims = ", ".join(map(str, record.dims))
        raise UnusableInput(
            "a report needs a record of sweep, measure, predict, train or diagnose, got dims "
            f"{dims}"
        )
    found = judge(record) if findings is None else findings
    if words.is_custom(record):
        found = found.worst_first()  # those of a sweep keep its order
    drawn = pictures.figures(record, found)
    if is_training(record):
        more = {"Outcomes": "\n".join(map(str, outcomes(record))), **(more or {})}
        record = beginning(record)  # of what is judged; pictures show both
        drawn += pictures.figures(record, found)
    parts = [
        words.verdict(record, found),
        words.recipe(record, found),
        *(words.further(*one) for one in (more or {}).items()),
        section("pictures", "Pictures", drawn),
        *_tables(record, found),
        origin.lines(record, found),
        words.unopened(record),
        origin.provenance(record),
    ]
    return _filled(words.headline(record, found), [part for part in parts if part is not None])


def _tables(record: xr.Dataset, findings: Findings) -> list[Element]:
    if words.is_custom(record):
        return [section("sites", "Sites", tables.sites(record, findings))]
    verdicts = section("pairings", "Pairings", tables.pairings(findings))
    layers = section("layers", "Layers", tables.layers(record))
    return [verdicts, layers] if words.stable_pairings(findings)[1] > 1 else [layers]


def _filled(title: str, parts: list[Element]) -> str:
    """Return the template with the parts of the page in it, and links to them."""
    links = [
        el("a", heading.text or "", href=f"#{part.get('id')}")
        for part in parts
        if (heading := part.find("h2")) is not None
    ]
    style, script = _file("page.css"), _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_file("page.html")).substitute(
        title=written(el("title", f"propagate: {title}")),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
        style=style,
        script=script,
        links=written(el("nav", links, aria_label="Parts of this page")),
        parts="\n".join(map(written, parts)),
    )


def _file(name: str) -> str:
    return resources.files("propagate.report.html").joinpath(name).read_text("utf-8")
