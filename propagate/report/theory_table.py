"""A custom model beside its theory, as a table."""

import math
from typing import Any

import numpy as np
import xarray as xr
from rich import box
from rich.table import Table
from rich.text import Text

from propagate.record.dataset import measured_directions, residual_name, second_moment
from propagate.report.cells import ARROWS, KINDS, LABELLED
from propagate.report.summary import rows
from propagate.theory import criticality
from propagate.types import DIRECTIONS, Direction


def summary(theory: xr.Dataset, record: xr.Dataset) -> dict[str, Any]:
    """Return names, what theory expects and by how much it is off, as plain values for JSON."""
    return {"theory": theory.attrs.get("theory"), "sites": rows(theory.reset_coords())} | {
        direction: coverage(theory, record, direction) for direction in DIRECTIONS
    }


def _main(record: xr.Dataset) -> np.ndarray:
    """Return the sites of the tree: layers, activations, norms and joins."""
    return np.flatnonzero(np.isin(record["kind"].values, KINDS))


def table(record: xr.Dataset, theory: xr.Dataset) -> Table:
    """Return what was expected and what was measured at each site of the tree."""
    title = f"log10 of second moments of {record.attrs.get('model') or 'the model'}"
    made = Table("site", "operation", title=title, title_justify="left", box=box.SIMPLE_HEAD)
    columns = []
    for direction in measured_directions(record):
        columns += [second_moment(one, direction).values for one in (theory, record)]
        columns += [theory[residual_name(direction)].values]
        for heading in ("expected", "measured", "residual"):
            made.add_column(f"{ARROWS[direction]} {heading}", justify="right", no_wrap=True)
    for k in _main(record):
        kind, label = (str(record[name].values[k]) for name in ("kind", "label"))
        cells = ("given" if math.isnan(v[k]) else f"{v[k]:.3f}" for v in columns)
        name = Text(str(record["name"].values[k]))
        made.add_row(name, label if kind in LABELLED else kind, *cells)
    return made


def coverage(theory: xr.Dataset, record: xr.Dataset, direction: Direction) -> str:
    """Return a sentence on the sites of the tree."""
    name = residual_name(direction)
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


def critical_points(name: str, sigma_b2: float) -> str:
    """Return the critical points of an activation in words."""
    points = criticality.critical(name, sigma_b2)
    kinds = {True: "stable", False: "unstable: signals leave it"}
    lines = [
        f"critical at sigma_b² = {sigma_b2:g}: sigma_w² = {point.sigma_w2:.8g}, "
        f"q = {point.q:.6g} ({kinds[point.stable]})"
        for point in points
    ]
    return "\n".join(lines or [f"no critical point: {points.reason}"])
