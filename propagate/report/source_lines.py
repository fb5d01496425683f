"""The user's own lines with the scale of signal and gradient beside them."""

import itertools
import linecache
from typing import NamedTuple

import numpy as np
import xarray as xr
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

from propagate.record.dataset import measured_directions, second_moment
from propagate.report.cells import (
    ARROWS,
    KINDS,
    Marks,
    is_nan,
    marks_of,
    number,
    strings,
    verdicts_of,
)
from propagate.report.fitted import Printed
from propagate.verdicts.findings import Findings

LONGEST_GAP = 8  # lines without numbers that `source` still shows between lines with numbers
MOST_LINES = 200  # of a file
SHORTEST_CODE = 24  # characters of a line, beside which numbers still stand


class Line(NamedTuple):
    """A line of the user's, or a gap between lines, of which the number is 0."""

    number: int
    code: str
    note: str
    found: bool


def source(record: xr.Dataset, findings: Findings) -> Printed:
    """Return the user's lines, each with the rms of what it makes: (→ signal, ← gradient).

    A line of several sites has their range; one with a finding is red. Files of libraries are
    shown if there are no others. Cells of a running notebook can be read like files.
    """
    shown = [
        part
        for file, lines in files(record, findings).items()
        for part in (Text(file, style="bold"), _Beside(lines))
    ]
    return Printed(*shown or [Text("No file of the model's source can be read.")])


def files(record: xr.Dataset, findings: Findings) -> dict[str, list[Line]]:
    """Return the lines of each file of the user's, from the first with a site to the last."""
    marks = marks_of(record, findings)
    library = dict(zip(strings(record, "file"), record["library"].values.tolist(), strict=True))
    known = [file for file in library if linecache.getlines(file)]
    own = [file for file in known if not library[file]]
    found = {file: _lines(record, marks, file) for file in own or known}
    return {file: lines for file, lines in found.items() if lines}


def _lines(record: xr.Dataset, marks: Marks, file: str) -> list[Line]:
    text = linecache.getlines(file)
    sites: dict[int, list[int]] = {}
    for k in np.flatnonzero(record["file"].values == file):
        if 0 < (line := int(record["line"].values[k])) <= len(text):
            sites.setdefault(line, []).append(int(k))
    made = []
    for line in _without_gaps(sorted(sites)):
        here = sites.get(line, [])
        found = [f for k in here for f in marks.get(k, ())]
        note = f"{_note(record, here)} {verdicts_of(found)}".rstrip() if here else ""
        code = text[line - 1].rstrip().expandtabs() if line else "⋮"
        made.append(Line(line, code, note, bool(found)))
    return made


class _Beside:
    """Lines of code with their numbers beside them, or below where there is no room."""

    def __init__(self, lines: list[Line]) -> None:
        styles = ("red" if line.found else "" for line in lines)
        words = ((str(one.number or ""), one.code, one.note) for one in lines)
        self.rows = [(*row, style) for row, style in zip(words, styles, strict=True)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines, codes, notes = (max(cell_len(row[k]) for row in self.rows) for k in range(3))
        room = options.max_width - lines - notes - 4
        below = room < min(codes, SHORTEST_CODE)
        if below:
            room = max(options.max_width - lines - 2, 1)
        number = Column(justify="right", style="dim", width=lines)
        code = Column(overflow="fold", width=min(max(codes, notes if below else 0), room))
        columns = (number, code) if below else (number, code, Column(no_wrap=True))
        grid = Table.grid(*columns, padding=(0, 2, 0, 0), pad_edge=False)
        for line, words, note, style in self.rows:
            cells = (line, Text(words), *(() if below else (Text(note),)))
            grid.add_row(*cells, style=style)
            if below and note:
                grid.add_row("", Text(note), style=style)
        yield grid


def _without_gaps(lines: list[int]) -> list[int]:
    """Return the lines from the first to the last; 0 stands for a gap or what is cut off."""
    shown = lines[:1]
    for before, line in itertools.pairwise(lines):
        gap = line - before - 1 > LONGEST_GAP
        shown += [0, line] if gap else range(before + 1, line + 1)
    return shown if len(shown) <= MOST_LINES else [*shown[:MOST_LINES], 0]


def _note(record: xr.Dataset, sites: list[int]) -> str:
    """Return `(→ 1.02, ← 0.9 to 1.1)` of a line, of elementwise sites if it has no others."""
    main = [k for k in sites if str(record["kind"].values[k]) in KINDS] or sites
    parts = []
    for direction in measured_directions(record):
        rms = second_moment(record, direction).values[main] / 2
        known = np.sort(rms[~np.isnan(rms)])
        ends = dict.fromkeys(number(end) for end in (*known[:1], *known[-1:]))
        ends |= {"NaN": None} if is_nan(record, direction)[main].any() else {}
        parts += [f"{ARROWS[direction]} {' to '.join(ends)}"] if ends else []
    return f"({', '.join(parts)})" if parts else ""
