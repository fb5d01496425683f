"""Tables of the page: sites as a tree, pairings, and layers. Its script sorts and filters them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
import xarray as xr

from propagate.report import site_tree, sweep_table
from propagate.report.cells import Marks, marks_of, strings
from propagate.report.html.elements import el
from propagate.types import DIRECTIONS
from propagate.verdicts.findings import Findings
from propagate.verdicts.stack_rules.stack_record import Pairing, pairings_of

IN_WORDS = ("operation", "law", "verdict", "activation", *DIRECTIONS)  # columns; others are numbers
OF_LAYERS = {
    "→ second moment": "log10_forward_q",
    "→ variance over inputs": "log10_forward_variance",
    "→ share saturated": "activation_saturated_fraction",
    "← second moment": "log10_backward_q",
    "← of the weights": "log10_weight_gradient_q",
}
LEGEND = {
    "→ share saturated": "share saturated: of units whose activation has almost no slope",
    "← of the weights": "← of the weights: of the gradient of a layer's weights",
}
MOST_ROWS = 1000  # of layers, over all pairings


@dataclass(frozen=True)
class Row:
    """A row of a table, or the heading of a group of rows, which has no cells.

    Attributes:
        name: what stands in its first column.
        cells: in the order of the columns.
        indent: how deep it lies in the tree.
        full: its name where the tree is taken apart.
        look: `"fault"`, `"note"` or nothing.
        key: what links lead to.
    """

    name: str
    cells: Sequence[str] = ()
    indent: int = 0
    full: str = ""
    look: str = ""
    key: str | None = None


def table(caption: str, headings: Sequence[str], rows: Iterable[Row], legend: str = "") -> Element:
    """Return a table; the first heading is of the names of rows, the legend of the others."""
    head = [el("th", heading, scope="col", class_=_class(heading)) for heading in headings]
    body = [_row(row, headings) for row in rows]
    made = el(
        "table",
        el("caption", caption, legend and f". {legend}"),
        el("thead", el("tr", head)),
        el("tbody", body),
    )
    return el("div", made, class_="pane", tabindex="0", role="region", aria_label=caption)


def _row(row: Row, headings: Sequence[str]) -> Element:
    indent = f"--in:{row.indent}" if row.indent else None
    if not row.cells:
        name = el("th", row.name, scope="rowgroup", colspan=str(len(headings)), style=indent)
        return el("tr", name, class_="group", data_in=str(row.indent))
    full = row.full if row.full != row.name else None
    name = el("th", row.name, scope="row", style=indent, data_full=full)
    named = zip(headings[1:], row.cells, strict=True)
    cells = [el("td", cell, class_=_class(heading)) for heading, cell in named]
    look = {"class_": row.look or None, "id": row.key}
    return el("tr", name, cells, data_in=str(row.indent), **look)


def _class(heading: str) -> str | None:
    return "words" if heading in IN_WORDS else None


def site_key(k: int) -> str:
    """Return what links to a site lead to."""
    return f"site-{k}"


def sites(record: xr.Dataset, findings: Findings) -> Element:
    """Return the sites of a custom model as a tree, in the order of the model."""
    marks = marks_of(record, findings)
    columns = site_tree.columns_of(record, marks)
    rows = _sites(record, marks, list(columns.values()))
    legend = site_tree.legend(columns)
    return table("Sites in the order of the model", ("site", *columns), rows, legend)


def _sites(record: xr.Dataset, marks: Marks, columns: list[list[str]]) -> Iterator[Row]:
    names = strings(record, "name")
    for indent, name, k in site_tree.outline(record, marks):
        if k is None:
            yield Row(name, indent=indent)
            continue
        faulty = any(finding.is_fault for finding in marks.get(k, ()))
        look = "fault" if faulty else "note" if k in marks else ""
        cells = [column[k] for column in columns]
        yield Row(name, cells, indent, names[k], look, site_key(k))


def pairings(findings: Findings) -> Element:
    """Return the verdicts on a sweep, a row for each pairing, worst first."""
    headings = ("initialiser", "activation", "forward", "→ rate", "backward", "← rate", "fine to")
    rows = [
        Row(init, (phi, *cells), look="" if sound else "fault")
        for init, phi, cells, sound in sweep_table.rows(findings)
    ]
    return table("Verdict and growth in decades per layer, worst first", headings, rows)


def layers(record: xr.Dataset) -> Element:
    """Return scales layer by layer, a group for each pairing: the median over seeds."""
    columns = {heading: name for heading, name in OF_LAYERS.items() if name in record}
    found = list(pairings_of(record))
    most = max(MOST_ROWS // max(len(found), 1), 2)
    size = record.sizes["layer"]
    shown = np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int))
    rows = [row for pairing in found for row in _layers(pairing, columns.values(), shown)]
    caption = "Layers: log10 of second moments, median over seeds"
    caption += "" if len(shown) == size else f", {len(shown)} of {size} layers"
    legend = "; ".join(words for heading, words in LEGEND.items() if heading in columns)
    return table(caption, ("layer", *columns), rows, legend and f"{legend}.")


def _layers(pairing: Pairing, names: Iterable[str], shown: np.ndarray) -> Iterator[Row]:
    title = " + ".join(filter(None, (pairing.init, pairing.activation))) or "the network"
    yield Row(title)
    ranked = [np.sort(values, axis=0) for n in names if (values := pairing.values(n)) is not None]
    middle = [values[(len(values) - 1) // 2] for values in ranked]
    for number, k in zip(pairing.record["layer"].values[shown], shown, strict=True):
        cells = [_decimal(values[k]) for values in middle]
        yield Row(str(number), cells, 1, f"{title}, layer {number}")


def _decimal(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:z.2f}".replace("inf", "∞")


def stable_pairings(findings: Findings) -> tuple[int, int]:
    """Return how many pairings are stable in all that was measured, and how many there are."""
    found = [sound for *_, sound in sweep_table.rows(findings)]
    return sum(found), len(found)
