"""`propagate predict TARGET`: what theory expects at the sites of your own model."""

import math
import os
import sys
from typing import Any

import numpy as np
import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from propagate.cli_diagnose import PIPED, rows
from propagate.diagnosis import Diagnosis
from propagate.tree import KINDS, LABELLED

ARROWS = {"forward": "→", "backward": "←"}


def shown(found: Diagnosis, theory: xr.Dataset) -> None:
    """Print the table and, for each direction, how far theory reaches and is off."""
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(width=None if fits else PIPED).print(_table(found.record, theory))
    for direction in ARROWS:
        print(_words(theory, found.record, direction))


def summary(theory: xr.Dataset, record: xr.Dataset) -> dict[str, Any]:
    """Return names, what theory expects and by how much it is off, as plain values for JSON."""
    return {"theory": theory.attrs.get("theory"), "sites": rows(theory.reset_coords())} | {
        direction: _words(theory, record, direction) for direction in ARROWS
    }


def _main(record: xr.Dataset) -> np.ndarray:
    """Return the sites of the tree: layers, activations, norms and joins."""
    return np.flatnonzero(np.isin(record["kind"].values, KINDS))


def _table(record: xr.Dataset, theory: xr.Dataset) -> Table:
    title = f"log10 of second moments of {record.attrs.get('model') or 'the model'}"
    made = Table("site", "operation", title=title, title_justify="left", box=box.SIMPLE_HEAD)
    columns = []
    for direction, arrow in ARROWS.items():
        name = f"log10_{direction}_q"
        if name in record:
            columns += [theory[name].values, record[name].values]
            columns += [theory[f"log10_{direction}_residual"].values]
            for heading in ("expected", "measured", "residual"):
                made.add_column(f"{arrow} {heading}", justify="right", no_wrap=True)
    for k in _main(record):
        kind, label = (str(record[name].values[k]) for name in ("kind", "label"))
        cells = ("given" if math.isnan(v[k]) else f"{v[k]:.3f}" for v in columns)
        name = Text(str(record["name"].values[k]))
        made.add_row(name, label if kind in LABELLED else kind, *cells)
    return made


def _words(theory: xr.Dataset, record: xr.Dataset, direction: str) -> str:
    """Return a sentence on the sites of the tree."""
    name = f"log10_{direction}_residual"
    if name not in theory:
        return f"{direction}: not measured"
    at = _main(record)
    off = theory[name].values[at]
    known = np.isfinite(off)
    start = f"{direction}: theory covers {known.sum()} of {at.size} sites"
    if not known.any():
        return start
    worst = int(np.nanargmax(np.abs(np.where(known, off, np.nan))))
    return (
        f"{start}; measured less expected: median {np.median(np.abs(off[known])):.3f} decades, "
        f"largest {off[worst]:+.3f} at {record['name'].values[at[worst]]}"
    )
