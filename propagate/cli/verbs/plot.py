"""`propagate plot`: a saved record as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
import xarray as xr

from propagate.cli.terminal import refuse_empty, refuse_idle, say
from propagate.record import storage
from propagate.types import DIRECTIONS, Direction, StyleName, UnusableInput

if TYPE_CHECKING:
    from propagate.plot.kinds import Kind

Format = Literal["png", "svg", "pdf", "gif", "mp4"]
NAMES = (
    *("learning", "curves", "map", "variance", "histograms", "ridge", "exponents", "phase"),
    *("stream", "film", "widths"),
)
"""Of `plot.kinds.KINDS`, which is not imported for its help: matplotlib is slow to load."""


@dataclass(frozen=True)
class Plot:
    """Draw a saved record.

    RECORD is a file of `propagate sweep`, of `phase`, of `diagnose` or `predict` with --out, or of
    `pp.save` in Python.
    """

    record: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RECORD")]
    """File of the record."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", aliases=["-o"])] = None
    """File of the picture; by default RECORD_KIND.png beside it, of a film RECORD_film.gif."""
    kind: Annotated[str | None, tyro.conf.arg(metavar="|".join(NAMES))] = None
    """What to draw; by default the first of these that suits the record."""
    format: Format | None = None
    """Of the picture; by default as FILE ends. A film is gif or mp4, the others are not."""
    style: StyleName = "screen"
    """Of the picture; paper is as wide as a column of a page, or two, with letters of 8 pt."""
    init: tuple[str, ...] | None = None
    """Only these initialisers of a sweep."""
    activation: tuple[str, ...] | None = None
    """Only these activations of a sweep."""
    direction: Direction | None = None
    """Only the signal (forward) or its gradient (backward)."""
    title: str | None = None
    """Title, instead of the picture's own."""
    ylim: tuple[float, float] | None = None
    """Ends of y on every panel, in its units."""
    xlabel: str | None = None
    """Label of x, instead of the picture's own."""
    ylabel: str | None = None
    """Label of y, instead of the picture's own."""

    def __call__(self) -> int:
        """Draw; return the exit code."""
        import matplotlib

        from propagate.plot import kinds
        from propagate.plot.style import STYLES

        refuse_empty(self, "init", "activation")
        record = storage.load(self.record)
        for dim, names in (("init", self.init), ("activation", self.activation)):
            record = _only(record, dim, names)
        name = kinds.suiting(record, self.kind)
        self._refuse_what_has_no_effect(name, kinds.KINDS[name])
        path, form = self._file(name, kinds.KINDS[name].formats)
        kinds.check_writer(form)
        shown: Sequence[Direction] = (self.direction,) if self.direction else DIRECTIONS
        own = ("style", "title", "ylim", "xlabel", "ylabel")
        with matplotlib.rc_context(STYLES[self.style]):
            if kinds.KINDS[name].still:
                picture = kinds.drawn(record, name, shown, **{k: getattr(self, k) for k in own})
            else:
                picture = kinds.KINDS[name].draw(record, shown, None)
            storage.write_whole(path, lambda part: kinds.write(picture, part, form))
        say(f"wrote {path}")
        return 0

    def _refuse_what_has_no_effect(self, name: str, kind: "Kind") -> None:
        where = f"on the picture {name}"
        idle = [] if kind.directed else ["direction"]
        idle += [] if kind.numbered else ["ylim"]
        idle += [] if kind.still else ["title", "xlabel", "ylabel", "style"]
        refuse_idle(self, idle, where)
        if self.ylim is not None and not self.ylim[0] < self.ylim[1]:
            raise UnusableInput(f"--ylim needs two numbers, the lower first, got {self.ylim}")

    def _file(self, name: str, formats: Sequence[str]) -> tuple[Path, str]:
        """Return the file of the picture, and its format."""
        ending = self.format or formats[0]
        path = self.out or self.record.with_name(f"{self.record.stem}_{name}.{ending}")
        form = self.format or path.suffix.removeprefix(".").lower()
        if form not in formats:
            known = ", ".join(formats)
            got = f"the format {form}" if self.format else str(path)
            raise UnusableInput(
                f"FILE of {name} must end in one of {known}, or --format say it, got {got}"
            )
        return path, form


def _only(record: xr.Dataset, dim: str, names: Sequence[str] | None) -> xr.Dataset:
    """Return the part of a record with these names along a dim, all of it for None."""
    if names is None:
        return record
    if dim not in record.dims:
        raise UnusableInput(f"--{dim} has no effect on a record without dim {dim}: leave it out")
    there = [str(name) for name in record[dim].values]
    if unknown := [name for name in names if name not in there]:
        raise UnusableInput(f"--{dim} must be of {', '.join(there)}, got {', '.join(unknown)}")
    return record.sel({dim: list(names)})
