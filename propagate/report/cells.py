"""The cells of tables: numbers, marks and arrows."""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from propagate.record.dataset import second_moment
from propagate.types import Direction
from propagate.verdicts.findings import Finding, Findings

KINDS = ("matmul", "conv", "embedding", "activation", "norm", "add", "tag", "custom")
LABELLED = ("activation", "elementwise", "op", "custom")  # kinds of which the label says all
ARROWS: dict[Direction, str] = {"forward": "→", "backward": "←"}
WORDS = ("operation", "law", "verdict")  # columns of them; the others are of numbers
LARGEST = 308  # decades of a float
Marks = dict[int, list[Finding]]  # by the number of the site


def strings(record: xr.Dataset, name: str) -> list[str]:
    """Return a variable as words."""
    return [str(word) for word in record[name].values]


def marks_of(record: xr.Dataset, findings: Findings) -> Marks:
    """Return the findings that name each site, or the parameter that makes it."""
    marks: Marks = {}
    named = list(zip(strings(record, "name"), strings(record, "parameter"), strict=True))
    for finding in findings:
        for k, (site, parameter) in enumerate(named):
            if site == finding.site or (parameter and parameter == finding.parameter):
                marks.setdefault(k, []).append(finding)
    return marks


def verdicts_of(found: Sequence[Finding]) -> str:
    """Return the verdicts of findings with their directions, each once."""
    return ", ".join(dict.fromkeys(f"{f.verdict.value} {ARROWS[f.direction]}" for f in found))


def is_nan(record: xr.Dataset, direction: Direction) -> np.ndarray:
    """Return where a second moment was measured, and is NaN."""
    skipped = direction == "backward" and record.attrs.get("backward") == "not measured"
    if skipped or "taken" not in record.coords:
        return np.zeros(record.sizes["site"], bool)
    return np.isnan(second_moment(record, direction).values) & record["taken"].values


def number(decades: float, measured: bool = False) -> str:
    """Write 10^decades with three digits: 0 if it is exactly zero, – if it was not measured.

    Args:
        decades: log10 of a number.
        measured: whether NaN is what was measured.
    """
    if math.isnan(decades):
        return "NaN" if measured else "–"
    return f"{10.0**decades:.3g}" if decades < LARGEST else "∞"
