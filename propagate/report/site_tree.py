"""A record of a custom model as a tree, beside the user's own lines, and as flat numbers."""

import copy
import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Column, Table
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from propagate.record.dataset import measured_directions, second_moment
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
from propagate.verdicts.findings import Findings

SMALLEST_GROUP = 3  # a group of fewer rows has none of its own: its name stays in front of theirs
SITE_WIDTH = 30  # characters that columns of `DROPPED` leave to the names of sites
DROPPED = ("law", "branch/skip", "σ_w²", "∇/w", "operation")  # in this order, where width lacks
LEGEND = (
    "→ signal, ← gradient. σ_w² is fan_in·Var(W), ∇/w the rms of the gradient over that of the "
    "parameter, branch/skip the ratio of rms of the two terms of an addition."
)
PART = re.compile(r"^[^./]*|[./]+[^./]*")  # `blocks.3/add` has `blocks`, `.3` and `/add`


def table(record: xr.Dataset, findings: Findings, *, every: bool = False) -> Group:
    """Return the sites as a tree in model order, with rms of signal and gradient, for `rich`.

    Rows that a finding names are red. Elementwise operations are left out, unless `every` is set.
    """
    marks = marks_of(record, findings)
    kinds = enumerate(strings(record, "kind"))
    shown = [k for k, kind in kinds if every or kind in KINDS or k in marks]
    columns = {name: cells for name, cells in _columns(record, marks) if any(cells)}
    title = Text(f"rms at each site of {record.attrs.get('model') or 'the model'}")
    made = _Narrowing(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("site", overflow="fold")
    for name in columns:
        made.add_column(name, justify="left" if name in WORDS else "right", no_wrap=True)
    paths = [PART.findall(name) for name in strings(record, "name")]
    for indent, name, k in _outline([(k, paths[k]) for k in shown]):
        if k is None:
            made.add_row(Text("  " * indent + name, style="bold"))
        else:
            cells = ("  " * indent + name, *(cells[k] for cells in columns.values()))
            made.add_row(*map(Text, cells), style="red" if k in marks else "")
    unopened = json.loads(record.attrs.get("unopened", "[]"))
    footer = ["Not opened:", *unopened] if unopened else []
    return Group(made, Text(LEGEND, style="dim"), *map(Text, footer))


def html(record: xr.Dataset, findings: Findings) -> str:
    """Return the findings and `table` as HTML, for notebooks; names are escaped."""
    console = Console(record=True, width=160, file=io.StringIO(), force_jupyter=False)
    console.print(Text(str(findings) or "no findings"), table(record, findings))
    frame = '<pre><span style="white-space:pre">{code}</span></pre>'  # notebooks wrap `pre`
    return console.export_html(theme=SVG_EXPORT_THEME, code_format=frame, inline_styles=True)


class _Narrowing(Table):
    """A table that leaves out the columns of `DROPPED` for which a narrow terminal has no room."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = copy.copy(self)
        for name in DROPPED:
            if sum(map(_width, shown.columns)) >= options.max_width:
                shown.columns = [column for column in shown.columns if column.header != name]
        yield from Table.__rich_console__(shown, console, options)


def _width(column: Column) -> int:
    longest = max(len(str(cell)) for cell in (column.header, *column.cells))
    return 2 + (min(longest, SITE_WIDTH) if column.header == "site" else longest)


def _outline(
    rows: Sequence[tuple[int, list[str]]], indent: int = 0
) -> Iterator[tuple[int, str, int | None]]:
    """Yield indent, name and site of each row of the tree; the site of a group's row is None."""
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
    if "log10_branch_q" in record and "log10_skip_q" in record:
        with np.errstate(invalid="ignore"):  # 0 / 0
            ratio = record["log10_branch_q"].values - record["log10_skip_q"].values
        at = zip(kinds, ratio / 2, strict=True)
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
