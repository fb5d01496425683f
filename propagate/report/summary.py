"""Everything that was found, as plain values for JSON."""

import json
import math
from typing import Any

import numpy as np
import xarray as xr

from propagate.verdicts.findings import Finding, Findings


def summary(findings: Findings, record: xr.Dataset) -> dict[str, Any]:
    """Return the findings and the record's provenance as plain values, fit for JSON."""
    return {
        "provenance": {k: _parsed(v) for k, v in record.attrs.items()},
        "findings": [_plain(finding) for finding in findings.worst_first()],
        "suited": findings.suited(),
    }


def _plain(finding: Finding) -> dict[str, Any]:
    values = vars(finding) | {"verdict": finding.verdict.value, "interval": list(finding.interval)}
    return {name: finite(value) for name, value in values.items()}


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def rows(record: xr.Dataset) -> list[dict[str, Any]]:
    """Return the variables of every site as plain values; None for what is not finite."""
    columns = {
        str(name): [_cell(value) for value in variable.values]
        for name, variable in record.variables.items()
        if variable.dims == ("site",)
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cell(value: Any) -> Any:
    return finite(value.item() if isinstance(value, np.generic) else value)
