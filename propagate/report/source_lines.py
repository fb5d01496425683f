"""The user's own lines with the scale of signal and gradient beside them."""

import itertools
import linecache
from collections.abc import Iterator

import numpy as np
import xarray as xr
from rich.console import Group, RenderableType
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
from propagate.verdicts.findings import Findings

LONGEST_GAP = 8  # lines without numbers that `source` still shows between lines with numbers
MOST_LINES = 200  # of a file


def source(record: xr.Dataset, findings: Findings) -> RenderableType:
    """Return the user's lines, each with the rms of what it makes: (→ signal, ← gradient).

    A line of several sites has their range; one with a finding is red. Files of libraries are
    shown if there are no others. Cells of a running notebook can be read like files.
    """
    marks = marks_of(record, findings)
    library = dict(zip(strings(record, "file"), record["library"].values.tolist(), strict=True))
    files = [file for file in library if linecache.getlines(file)]
    own = [file for file in files if not library[file]]
    shown = [lines for file in own or files for lines in _lines(record, marks, file)]
    return Group(*shown) if shown else Text("No file of the model's source can be read.")


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
        note = f"{_note(record, here)} {verdicts_of(found)}" if here else ""
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
    for direction in measured_directions(record):
        rms = second_moment(record, direction).values[main] / 2
        known = np.sort(rms[~np.isnan(rms)])
        ends = dict.fromkeys(number(end) for end in (*known[:1], *known[-1:]))
        ends |= {"NaN": None} if is_nan(record, direction)[main].any() else {}
        parts += [f"{ARROWS[direction]} {'…'.join(ends)}"] if ends else []
    return f"({', '.join(parts)})" if parts else ""
