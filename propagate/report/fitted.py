"""Tables in which no number is cut, at any width, and which `print` shows as plain text.

Where a table has no room, columns are left out that may be; then names fold and cells break between
words; then each row becomes a few lines of its own.
"""

import io
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

PIPED = 160  # columns where there is no terminal, so that names and verdicts in a log are whole
NAME = 30  # characters that are left to a name before columns are left out for it
SHORTEST_NAME = 12  # characters of a line of a name that folds
BETWEEN = 2  # characters from one column to the next
LOOK: dict[str, Any] = {"title_justify": "left", "box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0)}
SEPARATED = re.compile(r"[^./_#]*[./_#]?")  # `blocks.3/add` is `blocks.`, `3/` and `add`


class Printed:
    """Something that `rich` prints in colour, and `print` as plain text."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(*self.parts)

    def __str__(self) -> str:
        """Return the text, as wide as the terminal; `PIPED` columns where there is none."""
        width, file = shutil.get_terminal_size((PIPED, 24)).columns, io.StringIO()
        console = Console(width=width, file=file, color_system=None, force_jupyter=False)
        console.print(self)
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())

    __repr__ = __str__


class Fitted(Table):
    """A table that keeps its numbers whole.

    Args:
        names: headings of the columns that say what a row is of.
        folded: those of them that may be folded, at a dot or a slash where that helps.
        dropped: headings of columns to leave out where width lacks, in this order.
        title: above it.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        folded: Sequence[str] = (),
        dropped: Sequence[str] = (),
        title: Any,
    ) -> None:
        super().__init__(title=title, **LOOK)
        self.names, self.folded, self.dropped = names, folded, dropped

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, room = list(self.columns), options.max_width
        for name in self.dropped:
            if sum(BETWEEN + self._wanted(column) for column in columns) >= room:
                columns = [column for column in columns if column.header != name]
        widths = self._widths(columns, room - 1 - BETWEEN * len(columns))
        if widths is None:
            yield from self._lines()
        else:
            yield from self._table(columns, widths).__rich_console__(console, options)

    def _wanted(self, column: Column) -> int:
        longest = _longest(column, str.splitlines)
        return min(longest, NAME) if column.header in self.folded else longest

    def _widths(self, columns: Sequence[Column], room: int) -> list[int] | None:
        """Return the width of each column, the widest reduced first; None if there is no room."""
        widths = [_longest(column, str.splitlines) for column in columns]
        least = [_longest(column, str.split) for column in columns]
        for k, column in enumerate(columns):
            if column.header in self.folded:
                least[k] = min(widths[k], SHORTEST_NAME)
        while sum(widths) > room:
            loose = [k for k, width in enumerate(widths) if width > least[k]]
            if not loose:
                return None
            widths[max(loose, key=lambda k: (columns[k].header in self.folded, widths[k]))] -= 1
        return widths

    def _table(self, columns: Sequence[Column], widths: Sequence[int]) -> Table:
        made = Table(title=self.title, **LOOK)
        for column, width in zip(columns, widths, strict=True):
            made.add_column(column.header, justify=column.justify, overflow="fold", width=width)
        folds = [width if c.header in self.folded else 0 for c, width in zip(columns, widths)]  # noqa: B905
        cells = zip(*(column.cells for column in columns), strict=True)
        for row, values in zip(self.rows, cells, strict=True):
            made.add_row(*map(_folded, values, folds), style=row.style)
        return made

    def _lines(self) -> Iterator[RenderableType]:
        """Yield the name of each row, and its cells below."""
        yield Text(_plain(self.title), style="italic")
        headings = [" ".join(_plain(column.header).split()) for column in self.columns]
        cells = zip(*(column.cells for column in self.columns), strict=True)
        for row, values in zip(self.rows, cells, strict=True):
            named = list(zip(headings, map(_plain, values), strict=True))
            name = " × ".join(f"{h} {v}" if v.isdigit() else v for h, v in named if h in self.names)
            indent = len(name) - len(name.lstrip())
            yield Text(name, style=row.style or "bold")
            words = [(h, " ".join(v.split())) for h, v in named if h not in self.names]
            said = ", ".join(f"{h} {v}" for h, v in words if v)
            if said:
                yield Padding(Text(said, style=row.style or ""), (0, 0, 0, indent + 2))


def _folded(cell: Any, width: int) -> Any:
    """Return a name in lines of a width, broken at its separators; 0 leaves it as it is."""
    name = _plain(cell)
    if not width or cell_len(name) <= width:
        return cell
    lines, indent = [""], " " * (len(name) - len(name.lstrip()))
    for part in SEPARATED.findall(name):
        if lines[-1].strip() and cell_len(lines[-1] + part) > width:
            lines.append(indent)
        lines[-1] += part
    return Text("\n".join(lines), style=cell.style if isinstance(cell, Text) else "")


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell or "")


def _longest(column: Column, parts: Any) -> int:
    cells = (_plain(cell) for cell in (column.header, *column.cells))
    return max((cell_len(part) for cell in cells for part in parts(cell)), default=0)
