"""A record of a custom model as a tree, beside the user's own lines, and as flat numbers."""

import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import xarray as xr
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from propagate.record.dataset import branch_share, measured_directions, second_moment
from propagate.record.provenance import how_it_ran
from propagate.report.cells import (
    ARROWS,
    KINDS,
    LABELLED,
    WORDS,
    Marks,
    is_nan,
    marks_of,
    number,
    strings,
    verdicts_of,
)
from propagate.report.fitted import Fitted, Printed
from propagate.verdicts.findings import Findings

SMALLEST_GROUP = 3  # a group of fewer rows has none of its own: its name stays in front of theirs
DROPPED = ("law", "branch/skip", "σ_w²", "∇/w", "operation")  # in this order, where width lacks
LEGEND = {  # of a column, what it holds
    "σ_w²": "σ_w² is fan_in·Var(W)",
    "law": "law the initialiser that the weights resemble",
    "∇/w": "∇/w the rms of the gradient over that of the parameter",
    "branch/skip": "branch/skip the ratio of rms of the two terms of an addition",
}
PART = re.compile(r"^[^./]*|[./]+[^./]*")  # `blocks.3/add` has `blocks`, `.3` and `/add`


def table(record: xr.Dataset, findings: Findings, *, every: bool = False) -> Printed:
    """Return the sites as a tree in model order, with rms of signal and gradient.

    Rows that a finding names are red. Elementwise operations are left out, unless `every` is set.
    """
    marks = marks_of(record, findings)
    columns = columns_of(record, marks)
    model = f"rms at each site of {record.attrs.get('model') or 'the model'}"
    title = Text(", ".join(filter(None, (model, how_it_ran(record)))))
    made = Fitted(names=("site",), folded=("site",), dropped=DROPPED, title=title)
    made.add_column("site")
    for name in columns:
        made.add_column(name, justify="left" if name in WORDS else "right")
    for indent, name, k in outline(record, marks, every=every):
        if k is None:
            made.add_row(Text("  " * indent + name, style="bold"))
        else:
            cells = ("  " * indent + name, *(cells[k] for cells in columns.values()))
            made.add_row(*map(Text, cells), style="red" if k in marks else "")
    unopened = json.loads(record.attrs.get("unopened", "[]"))
    footer = ["Not opened:", *unopened] if unopened else []
    return Printed(made, Text(legend(columns), style="dim"), *map(Text, footer))


def legend(columns: Iterable[str]) -> str:
    """Return what arrows and columns mean, of those columns that there are."""
    named = ", ".join(words for name, words in LEGEND.items() if name in columns)
    arrows = "→ signal, ← gradient; behind a verdict, which of the two it is about."
    return arrows + (f" {named}." if named else "")


def html(record: xr.Dataset, findings: Findings) -> str:
    """Return the findings and `table` as HTML, for notebooks; names are escaped."""
    console = Console(record=True, width=160, file=io.StringIO(), force_jupyter=False)
    how = how_it_ran(record)
    head = [Text(f"{record.attrs.get('model') or 'the model'}, {how}:")] if how else []
    opening = findings.opening(record.sizes["site"])
    text = Text(f"{opening}\n{findings}".strip())
    console.print(*head, text, table(record, findings), sep="\n")
    frame = '<pre><span style="white-space:pre">{code}</span></pre>'  # notebooks wrap `pre`
    return console.export_html(theme=SVG_EXPORT_THEME, code_format=frame, inline_styles=True)


def outline(
    record: xr.Dataset, marks: Marks, *, every: bool = False
) -> Iterator[tuple[int, str, int | None]]:
    """Yield indent, name and site of each row of the tree; the site of a group's row is None."""
    kinds = enumerate(strings(record, "kind"))
    shown = [k for k, kind in kinds if every or kind in KINDS or k in marks]
    names = strings(record, "name")
    yield from _outline([(k, PART.findall(names[k])) for k in shown])


def columns_of(record: xr.Dataset, marks: Marks) -> dict[str, list[str]]:
    """Return the cells of each column that has any, by its heading; a cell for each site."""
    return {name: cells for name, cells in _columns(record, marks) if any(cells)}


def _outline(
    rows: Sequence[tuple[int, list[str]]], indent: int = 0
) -> Iterator[tuple[int, str, int | None]]:
    """Yield the rows of sites, of which the path is given, in groups of one beginning."""
    for _, members in itertools.groupby(rows, key=lambda row: row[1][0]):
        group = list(members)
        side_by_side = zip(*(path[:-1] for _, path in group), strict=False)
        alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, side_by_side)
        shared = [parts[0] for parts in alike]
        if len(group) < SMALLEST_GROUP or not shared:
            yield from ((indent, "".join(path).lstrip("./"), k) for k, path in group)
        else:
            yield indent, "".join(shared).lstrip("./"), None
            inside = [(k, path[len(shared) :]) for k, path in group]
            yield from _outline(inside, indent + 1)


def _columns(record: xr.Dataset, marks: Marks) -> Iterator[tuple[str, list[str]]]:
    """Yield the heading of each column and its cell at each site."""
    kinds, labels = strings(record, "kind"), strings(record, "label")
    named = zip(kinds, labels, strict=True)
    yield "operation", [label if kind in LABELLED else kind for kind, label in named]
    for direction in measured_directions(record):
        rms = second_moment(record, direction).values / 2
        cells = zip(rms, is_nan(record, direction), strict=True)
        yield f"{ARROWS[direction]} rms", [number(decades, bool(known)) for decades, known in cells]
    yield "σ_w²", _of_weights(record, "log10_weight_sigma2")
    yield "law", _of_weights(record, "weight_law")
    yield "∇/w", _of_weights(record, "log10_gradient_to_weight")
    if "log10_branch_q" in record:
        at = zip(kinds, branch_share(record) / 2, strict=True)
        yield "branch/skip", [number(r) if kind == "add" else "" for kind, r in at]
    yield "verdict", [verdicts_of(marks.get(k, ())) for k in range(len(kinds))]


def _of_weights(record: xr.Dataset, name: str) -> list[str]:
    """Return a cell at each site, about the parameter that makes it."""
    if name not in record:
        return []
    values = record[name].values
    nan = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    measured = "log10_gradient_q" in record and record.attrs.get("backward") != "not measured"
    if name == "log10_gradient_to_weight" and measured:
        nan &= np.isnan(record["log10_gradient_q"].values)  # and not 0 / 0
    else:
        nan[:] = False
    numbers = zip(values, nan, strict=True)
    cells = [number(v, bool(k)) if values.dtype.kind == "f" else str(v) for v, k in numbers]
    by_path = dict(zip(strings(record, "weight"), cells, strict=True))
    return [by_path.get(path, "") for path in strings(record, "parameter")]
