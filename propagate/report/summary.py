"""Everything that was found, as plain values for JSON: one function for each verb.

What is not finite becomes null, which is all that JSON has for it.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from propagate.report import theory_table
from propagate.report.by_depth import by_depth
from propagate.theory.criticality import critical, gain
from propagate.types import DIRECTIONS
from propagate.verdicts.departures import departures
from propagate.verdicts.findings import Finding, Findings
from propagate.verdicts.outcomes import Outcome


def of_sweep(findings: Findings, record: xr.Dataset) -> dict[str, Any]:
    """Return the findings on a sweep, and which initialisers suit each activation, by depth."""
    more = {"suited": findings.suited(), "by_depth": by_depth(findings, record)}
    return _judged(findings, record) | more


def of_training(
    outcomes: Iterable[Outcome], findings: Findings, record: xr.Dataset
) -> dict[str, Any]:
    """Return what became of every pairing, and the findings before the first step."""
    return _judged(findings, record) | {"outcomes": [_finite(vars(one)) for one in outcomes]}


def of_diagnosis(
    findings: Findings, record: xr.Dataset, unopened: Iterable[str], changes: list[str] | None
) -> dict[str, Any]:
    """Return the findings on a custom model, and the numbers of every site.

    Args:
        findings: on the model.
        record: of `diagnose`.
        unopened: what was not opened, in words.
        changes: since a baseline; None if there was none to compare with.
    """
    more = {"unopened": list(unopened), "changes": changes, "sites": _rows(record)}
    return _judged(findings, record) | more


def of_prediction(
    activation: str, sigma_b2: float, theory: xr.Dataset, record: xr.Dataset | None
) -> dict[str, Any]:
    """Return what theory expects of a stack, and where a measurement leaves it.

    Args:
        activation: the name of the stack's.
        sigma_b2: variance of the biases, for the critical points.
        theory: of `predict`.
        record: of `measure`, if there is one.
    """
    points = critical(activation, sigma_b2)
    found: dict[str, Any] = {
        "gain": _finite(gain(activation)._asdict()),
        "critical": [_finite(point._asdict()) for point in points],
        "reason": points.reason or None,
        "theory": _finite({str(k): v.values.tolist() for k, v in theory.data_vars.items()}),
    }
    if record is not None:
        found["departures"] = [_finite(one._asdict()) for one in departures(record, theory)]
    return found


def of_model_theory(theory: xr.Dataset, record: xr.Dataset) -> dict[str, Any]:
    """Return what theory expects at every site of a custom model, and by how much it is off."""
    covered = {d: theory_table.coverage(theory, record, d) for d in DIRECTIONS}
    return {"theory": theory.attrs.get("theory"), "sites": _rows(theory.reset_coords())} | covered


def _judged(findings: Findings, record: xr.Dataset) -> dict[str, Any]:
    return {
        "provenance": {k: _parsed(v) for k, v in record.attrs.items()},
        "findings": [_plain(finding) for finding in findings.worst_first()],
    }


def _plain(finding: Finding) -> dict[str, Any]:
    values = vars(finding) | {"verdict": finding.verdict.value, "interval": list(finding.interval)}
    return _finite(values)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _rows(record: xr.Dataset) -> list[dict[str, Any]]:
    """Return the variables of every site as plain values; None for what is not finite."""
    columns = {
        str(name): [_cell(value) for value in variable.values]
        for name, variable in record.variables.items()
        if variable.dims == ("site",)
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cell(value: Any) -> Any:
    return _finite(value.item() if isinstance(value, np.generic) else value)
