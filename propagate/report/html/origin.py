"""Where a page comes from: the user's lines, the provenance of the record, and the command."""

import contextlib
import datetime
import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import xarray as xr

from propagate.report import source_lines
from propagate.report.html.elements import Child, el, section
from propagate.report.html.words import is_custom
from propagate.verdicts.findings import Findings

LONG = 80  # characters of a value beyond which it is folded away


def lines(record: xr.Dataset, findings: Findings) -> Element | None:
    """Return the user's lines with the rms of signal and gradient beside them; None of a stack."""
    if not is_custom(record):
        return None
    found = source_lines.files(record, findings)
    parts: Child = [_file(file, rows, record.attrs.get("date")) for file, rows in found.items()]
    about = "rms of what each line makes: → signal, ← gradient."
    none = "No file of the model's source can be read."
    return section("lines", "Your lines", el("p", about if found else none), parts)


def _file(file: str, rows: list[source_lines.Line], date: str | None) -> list[Element]:
    late = el("p", "This file was changed after the measurement.", class_="note")
    body = [
        el(
            "tr",
            el("th", str(row.number or ""), scope="row"),
            el("td", el("code", row.code)),
            el("td", row.note, class_="words"),
            class_="fault" if row.found else None,
        )
        for row in rows
    ]
    grid = el("table", el("tbody", body), class_="code")
    pane = el("div", grid, class_="pane", tabindex="0", role="region", aria_label=file)
    return [el("h3", file), *([late] if _is_newer(file, date) else []), pane]


def _is_newer(file: str, date: str | None) -> bool:
    """Whether a file was changed after a date."""
    path = Path(file)
    if date is None or not path.is_file():
        return False
    return path.stat().st_mtime > datetime.datetime.fromisoformat(date).timestamp() + 1


def provenance(record: xr.Dataset) -> Element:
    """Return what the record knows of its making, and the command that makes it again."""
    known = {k: v for k, v in record.attrs.items() if k not in ("command", "unopened")}
    rows = [[el("dt", name), el("dd", _value(value))] for name, value in known.items()]
    command = record.attrs.get("command")
    again = el("pre", el("code", command)) if command else el("p", "It was recorded from Python.")
    return section(
        "provenance", "Where it comes from", el("h3", "To run it again"), again, el("dl", rows)
    )


def _value(value: Any) -> Child:
    """Return a value as it is, or folded away if it is long."""
    text = str(value)
    if len(text) <= LONG:
        return el("code", text)
    with contextlib.suppress(ValueError):  # it is words, and not JSON
        text = json.dumps(json.loads(text), indent=1)
    return el("details", el("summary", f"{str(value)[:LONG]}…"), el("pre", el("code", text)))
