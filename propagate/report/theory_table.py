"""Theory beside a measurement, as tables and in words: of a stack, and of a custom model."""

import math

import numpy as np
import xarray as xr
from rich.text import Text

from propagate.record.dataset import (
    measured_directions,
    residual_name,
    second_moment,
    second_moment_sd,
)
from propagate.record.provenance import how_it_ran
from propagate.report.cells import ARROWS, KINDS, LABELLED
from propagate.report.fitted import Fitted, Printed
from propagate.theory import criticality
from propagate.types import Direction, UnusableInput

STACK_ROWS = 12  # layers in the table of a stack


def _main_sites(record: xr.Dataset) -> np.ndarray:
    """Return layers, activations, norms, joins and whatever else the tree of sites has."""
    return np.flatnonzero(np.isin(record["kind"].values, KINDS))


def model_table(theory: xr.Dataset, record: xr.Dataset) -> Printed:
    """Return what was expected and what was measured at each main site of a custom model.

    A dash stands where theory has no answer.
    """
    title = f"log10 of second moments of {record.attrs.get('model') or 'the model'}"
    how = how_it_ran(record)
    title = Text(f"{title}, {how}" if how else title)
    made = Fitted(names=("site",), folded=("site",), dropped=("operation",), title=title)
    made.add_column("site")
    made.add_column("operation")
    columns = []
    for direction in measured_directions(record):
        columns += [second_moment(one, direction).values for one in (theory, record)]
        columns += [theory[residual_name(direction)].values]
        for heading in ("expected", "measured", "residual"):
            made.add_column(f"{ARROWS[direction]} {heading}", justify="right")
    for k in _main_sites(record):
        kind, label = (str(record[name].values[k]) for name in ("kind", "label"))
        cells = ("–" if math.isnan(v[k]) else f"{v[k]:.3f}" for v in columns)
        name = Text(str(record["name"].values[k]))
        made.add_row(name, label if kind in LABELLED else kind, *cells)
    return Printed(made)


def coverage(theory: xr.Dataset, record: xr.Dataset, direction: Direction) -> str:
    """Say how many main sites of a custom model theory covers, and by how much it is off."""
    name = residual_name(direction)
    if name not in theory:
        return f"{direction}: not measured"
    at = _main_sites(record)
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


def stack_table(theory: xr.Dataset, record: xr.Dataset | None, title: str) -> Printed:
    """Return what was expected, and perhaps measured, at up to `STACK_ROWS` layers of a stack."""
    made = Fitted(names=("layer",), title=Text(title))
    made.add_column("layer")
    columns: list[np.ndarray] = []
    for direction in measured_directions(theory):
        sd = second_moment_sd(theory, direction)
        assert sd is not None
        shown = {
            "expected": second_moment(theory, direction).values,
            "± over draws": sd.where(np.isfinite).values,
        }
        if record is not None:
            shown["measured"] = second_moment(record, direction).mean("seed").values
        for heading, values in shown.items():
            made.add_column(f"{direction}\n{heading}", justify="right")
            columns.append(values)
    for k in np.unique(np.linspace(0, theory.sizes["layer"] - 1, STACK_ROWS).round().astype(int)):
        row = (values[k] for values in columns)
        made.add_row(str(k), *("–" if np.isnan(v) else f"{v:.3f}" for v in row))
    return Printed(made)


def gain_and_critical_points(name: str, sigma_b2: float) -> str:
    """Return what keeps E φ² and Var φ of an activation, and its critical points, in words."""
    factors = criticality.gain(name)
    return (
        f"gain of {name}: {factors.second_moment:.6g} keeps E phi², "
        f"{factors.variance:.6g} keeps Var phi\n"
        f"{critical_points(name, sigma_b2)}{_drawn(name)}"
    )


def _drawn(name: str) -> str:
    """Say what the initialiser `critical` draws, whose biases are its own; nothing if it cannot."""
    try:
        point = criticality.critical_at_unit(name)
    except UnusableInput:
        return ""
    return (
        "\nthe initialiser critical draws, with biases of its own: "
        f"sigma_w² = {point.sigma_w2:.4g}, sigma_b² = {point.sigma_b2:.4g} ({point.reason})"
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
