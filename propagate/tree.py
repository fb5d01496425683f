"""A record of a custom model as a tree, beside the user's own lines, and as flat numbers."""

import copy
import io
import itertools
import json
import linecache
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Column, Table
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from propagate.findings import Finding, Findings
from propagate.labels import is_library

KINDS = ("matmul", "conv", "embedding", "activation", "norm", "add", "tag", "custom")
LABELLED = ("activation", "elementwise", "op", "custom")  # kinds of which the label says all
ARROWS = {"forward": "→", "backward": "←"}
SMALLEST_GROUP = 3  # a group of fewer rows has none of its own: its name stays in front of theirs
LONGEST_GAP = 8  # lines without numbers that `source` still shows between lines with numbers
MOST_LINES = 200  # of a file
WORDS = ("operation", "law", "verdict")  # columns of them; the others are of numbers
SITE_WIDTH = 30  # characters that columns of `DROPPED` leave to the names of sites
DROPPED = ("law", "branch/skip", "σ_w²", "∇/w", "operation")  # in this order, where width lacks
LARGEST = 308  # decades of a float
KEY = (
    "→ signal, ← gradient. σ_w² is fan_in·Var(W), ∇/w the rms of the gradient over that of the "
    "parameter, branch/skip the ratio of rms of the two terms of an addition."
)
PART = re.compile(r"^[^./]*|[./]+[^./]*")  # `blocks.3/add` has `blocks`, `.3` and `/add`
Marks = dict[int, list[Finding]]  # by the number of the site


def table(record: xr.Dataset, findings: Findings, *, every: bool = False) -> Group:
    """Return the sites as a tree in model order, with rms of signal and gradient, for `rich`.

    Rows that a finding names are red. Elementwise operations are left out, unless `every` is set.
    """
    marks = _marks(record, findings)
    kinds = enumerate(_words(record, "kind"))
    shown = [k for k, kind in kinds if every or kind in KINDS or k in marks]
    columns = {name: cells for name, cells in _columns(record, marks) if any(cells)}
    title = Text(f"rms at each site of {record.attrs.get('model') or 'the model'}")
    made = _Narrowing(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("site", overflow="fold")
    for name in columns:
        made.add_column(name, justify="left" if name in WORDS else "right", no_wrap=True)
    paths = [PART.findall(name) for name in _words(record, "name")]
    for indent, name, k in _outline([(k, paths[k]) for k in shown]):
        if k is None:
            made.add_row(Text("  " * indent + name, style="bold"))
        else:
            cells = ("  " * indent + name, *(cells[k] for cells in columns.values()))
            made.add_row(*map(Text, cells), style="red" if k in marks else "")
    unopened = json.loads(record.attrs.get("unopened", "[]"))
    footer = ["Not opened:", *unopened] if unopened else []
    return Group(made, Text(KEY, style="dim"), *map(Text, footer))


def html(record: xr.Dataset, findings: Findings) -> str:
    """Return the findings and `table` as HTML, for notebooks; names are escaped."""
    console = Console(record=True, width=160, file=io.StringIO(), force_jupyter=False)
    console.print(Text(str(findings) or "no findings"), table(record, findings))
    frame = '<pre><span style="white-space:pre">{code}</span></pre>'  # notebooks wrap `pre`
    return console.export_html(theme=SVG_EXPORT_THEME, code_format=frame, inline_styles=True)


def source(record: xr.Dataset, findings: Findings) -> RenderableType:
    """Return the user's lines, each with the rms of what it makes: (→ signal, ← gradient).

    A line of several sites has their range; one with a finding is red. Files of libraries are
    shown if there are no others. Cells of a running notebook can be read like files.
    """
    marks = _marks(record, findings)
    files = [file for file in dict.fromkeys(_words(record, "file")) if linecache.getlines(file)]
    own = [file for file in files if not is_library(file)]
    shown = [lines for file in own or files for lines in _lines(record, marks, file)]
    return Group(*shown) if shown else Text("No file of the model's source can be read.")


def scalars(record: xr.Dataset, prefix: str = "") -> dict[str, float]:
    """Return `prefix/name/forward_rms` and the like, for TensorBoard or W&B, where finite.

    Example:
        >>> q = xr.Dataset({"log10_forward_q": ("site", [0.0, -2.0])})
        >>> scalars(q.assign_coords(name=("site", ["w.0", "w.1"])), "train")
        {'train/w.0/forward_rms': 1.0, 'train/w.1/forward_rms': 0.1}
    """
    found: dict[str, float] = {}
    start = f"{prefix}/" if prefix else ""
    for dim, name, ending, power in (
        ("name", "log10_forward_q", "forward_rms", 0.5),
        ("name", "log10_backward_q", "backward_rms", 0.5),
        ("weight", "log10_gradient_to_weight", "gradient_to_weight", 1.0),
    ):
        values = record[name].values.tolist() if name in record else []
        for owner, decades in zip(_words(record, dim) if values else (), values, strict=True):
            if decades * power < LARGEST:  # not so for NaN
                found[f"{start}{owner}/{ending}"] = 10.0 ** (decades * power)
    return found


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


def _words(record: xr.Dataset, name: str) -> list[str]:
    return [str(word) for word in record[name].values]


def _marks(record: xr.Dataset, findings: Findings) -> Marks:
    """Return the findings that name each site, or the parameter that makes it."""
    marks: Marks = {}
    named = list(zip(_words(record, "name"), _words(record, "parameter"), strict=True))
    for finding in findings:
        for k, (site, parameter) in enumerate(named):
            if site == finding.site or (parameter and parameter == finding.parameter):
                marks.setdefault(k, []).append(finding)
    return marks


def _verdicts(found: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(f"{f.verdict.value} {ARROWS[f.direction]}" for f in found))


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
    kinds, labels = _words(record, "kind"), _words(record, "label")
    named = zip(kinds, labels, strict=True)
    yield "operation", [label if kind in LABELLED else kind for kind, label in named]
    for direction, arrow in ARROWS.items():
        if f"log10_{direction}_q" in record:
            yield f"{arrow} rms", [_number(q / 2) for q in record[f"log10_{direction}_q"].values]
    yield "σ_w²", _of_weights(record, "log10_weight_sigma2")
    yield "law", _of_weights(record, "weight_law")
    yield "∇/w", _of_weights(record, "log10_gradient_to_weight")
    if "log10_branch_q" in record and "log10_skip_q" in record:
        with np.errstate(invalid="ignore"):  # 0 / 0
            ratio = record["log10_branch_q"].values - record["log10_skip_q"].values
        at = zip(kinds, ratio / 2, strict=True)
        yield "branch/skip", [_number(r) if kind == "add" else "" for kind, r in at]
    yield "verdict", [_verdicts(marks.get(k, ())) for k in range(len(kinds))]


def _of_weights(record: xr.Dataset, name: str) -> list[str]:
    """Return a cell at each site, about the parameter that makes it."""
    if name not in record:
        return []
    values = record[name].values
    cells = [_number(v) if values.dtype.kind == "f" else str(v) for v in values]
    by_path = dict(zip(_words(record, "weight"), cells, strict=True))
    return [by_path.get(path, "") for path in _words(record, "parameter")]


def _number(decades: float) -> str:
    """Write 10^decades with three digits: 0 if it is exactly zero, – if it was not measured."""
    if math.isnan(decades):
        return "–"
    return f"{10.0**decades:.3g}" if decades < LARGEST else "∞"


def _lines(record: xr.Dataset, marks: Marks, file: str) -> Iterator[RenderableType]:
    """Yield the name of a file and its lines from the first with a site to the last."""
    text = linecache.getlines(file)
    sites: dict[int, list[int]] = {}
    for k in np.flatnonzero(record["file"].values == file):
        if 0 < (line := int(record["line"].values[k])) <= len(text):
            sites.setdefault(line, []).append(int(k))
    number = Column(justify="right", style="dim", no_wrap=True)
    grid = Table.grid(number, Column(), Column(no_wrap=True), padding=(0, 2, 0, 0))
    for line in _without_gaps(sorted(sites)):
        here = sites.get(line, [])
        found = [f for k in here for f in marks.get(k, ())]
        note = f"{_note(record, here)} {_verdicts(found)}" if here else ""
        code = text[line - 1].rstrip().expandtabs() if line else "⋮"
        code = Text(code, no_wrap=True, overflow="ellipsis")
        grid.add_row(str(line or ""), code, Text(note), style="red" if found else "")
    if sites:
        yield from (Text(file, style="bold"), grid)


def _without_gaps(lines: list[int]) -> list[int]:
    """Return the lines from the first to the last; 0 stands for a gap or what is cut off."""
    shown = lines[:1]
    for before, line in itertools.pairwise(lines):
        gap = line - before - 1 > LONGEST_GAP
        shown += [0, line] if gap else range(before + 1, line + 1)
    return shown if len(shown) <= MOST_LINES else [*shown[:MOST_LINES], 0]


def _note(record: xr.Dataset, sites: list[int]) -> str:
    """Return `(→ 1.02, ← 0.9…1.1)` of a line's sites: elementwise ones only if it has no others."""
    main = [k for k in sites if str(record["kind"].values[k]) in KINDS] or sites
    parts = []
    for direction, arrow in ARROWS.items():
        if f"log10_{direction}_q" in record:
            rms = record[f"log10_{direction}_q"].values[main] / 2
            known = np.sort(rms[~np.isnan(rms)])
            ends = dict.fromkeys(_number(end) for end in (*known[:1], *known[-1:]))
            parts += [f"{arrow} {'…'.join(ends)}"] if ends else []
    return f"({', '.join(parts)})" if parts else ""
