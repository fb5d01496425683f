"""`propagate report`: a saved record as one HTML page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from propagate.cli.terminal import say
from propagate.cure.advice import advise
from propagate.record import storage
from propagate.report.html import page


@dataclass(frozen=True)
class Report:
    """Write a saved record as one HTML page, which needs no network and nothing beside it.

    It has the verdict in words, what to do, pictures, a table of layers or sites that can be sorted
    and filtered, your own lines with the scales beside them, and where all of it comes from.
    RECORD is a file of `propagate sweep`, of `diagnose --out`, or of `pp.save` in Python.
    """

    record: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RECORD")]
    """File of the record."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", aliases=["-o"])] = None
    """File of the page; by default RECORD.html beside it."""

    def __call__(self) -> int:
        """Write; return the exit code."""
        found, path = storage.load(self.record), self.out or self.record.with_suffix(".html")
        more = advise(found).part() if "site" in found.dims else {}  # of a stack it is measured
        say(f"wrote {page.write(found, path, more=more)}")
        return 0
