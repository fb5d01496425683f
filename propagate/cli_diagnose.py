"""The verb `propagate diagnose`: verdicts on the model that a user's function builds."""

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
import xarray as xr
from rich.console import Console

from propagate import baseline as baselines
from propagate import report, thresholds
from propagate.diagnosis import Diagnosis, diagnose
from propagate.findings import verdicts
from propagate.target import built, told
from propagate.terminal import key, say
from propagate.types import PropagateError, UnusableInput

PIPED = 160
"""Columns where there is no terminal to fit: names and verdicts in a log are whole."""


@dataclass(frozen=True)
class Diagnose:
    """Say how signals and gradients travel through your own model, and what goes wrong first.

    TARGET names a function without arguments that returns (model, *inputs): a model of Flax,
    Equinox, Haiku or Keras with its inputs, or a function with its parameters and inputs. Inputs
    are arrays, or jax.ShapeDtypeStructs to be filled with random data.

    The findings stand below the table of sites, one sentence a line. Exit codes: 0 done, 1 a
    verdict under --fail-on or a change from --baseline, 2 bad usage, 3 could not run.
    """

    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TARGET")]
    """my_model.py:build, or package.module:build from the current directory."""
    seed: int = 0
    """Everything random follows from this number, except what build() draws itself."""
    vmap: tyro.conf.FlagCreatePairsOff[bool] = False
    """The model takes a single input: map it over the batch."""
    kwargs: Annotated[str, tyro.conf.arg(metavar="JSON")] = "{}"
    """Keyword arguments of every call of the model, such as '{"train": true}'."""
    measures: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="ENDING ...")] = None
    """Endings of the variables to record beside q, such as mean variance; all by default."""
    sites: Literal["default", "all"] = "default"
    """Where to look: at layers, activations and joins, or at every floating-point operation."""
    only: Annotated[str | None, tyro.conf.arg(metavar="GLOB")] = None
    """Look only at sites whose names match, such as 'blocks.*'."""
    fail_on: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="VERDICT,...")
    ] = ()
    """Exit with 1 if one of these verdicts is found, such as vanishing,exploding,dead."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print findings and the numbers of every site as JSON (null: not finite) and nothing else."""
    baseline: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Compare the growth per layer with this file, exit with 1 on changes; write it if absent."""
    tolerance: float = thresholds.SLOPE_CHANGE
    """Decades per layer by which growth may differ from the baseline."""
    source: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print your own lines below the table, with the signal and the gradient at each."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Save the record here, as netCDF."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        fatal = verdicts(self.fail_on)
        baselines.check_tolerance("--tolerance", self.tolerance)
        if self.baseline and self.baseline.exists():
            baselines.read(self.baseline)  # a wrong file is told before the work
        found = self._diagnosis()
        changes = self._changes(found.record)
        if self.json:
            print(json.dumps(summary(found, changes), indent=2, allow_nan=False))
        else:
            self._print(found, changes or [])
        if self.out:
            say(f"wrote {found.save(self.out)}")
        return int(bool(changes) or any(f.verdict in fatal for f in found.findings))

    def _diagnosis(self) -> Diagnosis:
        options = {"measures": self.measures, "sites": self.sites, "only": self.only}
        return diagnosed(self.target, self.seed, self.vmap, self.kwargs, **options)

    def _changes(self, record: xr.Dataset) -> list[str] | None:
        """Return what has changed since the baseline; None if there was nothing to compare with."""
        if self.baseline is None:
            return None
        if self.baseline.exists():
            return baselines.compare(record, self.baseline, self.tolerance)
        path = baselines.write(record, self.baseline)
        say(f"wrote {path}, the baseline to compare with from now on")
        return None

    def _print(self, found: Diagnosis, changes: list[str]) -> None:
        fits = sys.stdout.isatty() or "COLUMNS" in os.environ
        console = Console(width=None if fits else PIPED)
        console.print(found.table())
        for sentence in (*(found.findings or ["no findings"]), *changes):
            print(sentence)
        if self.source:
            console.print(found.source())


def diagnosed(target: str, seed: int, vmap: bool, kwargs: str, **options: Any) -> Diagnosis:
    """Return the diagnosis of the model that a target builds, with options of the command."""
    options |= {"key": key(seed), "kwargs": _keywords(kwargs), "vmap": vmap}
    # what the user's code prints is no result
    with contextlib.redirect_stdout(sys.stderr), built(target) as (model, *inputs):
        try:
            return diagnose(model, *inputs, **options)
        except PropagateError:
            raise
        except Exception as error:
            raise PropagateError(f"running the model raised {told(error)}") from error


def summary(found: Diagnosis, changes: list[str] | None) -> dict[str, Any]:
    """Return a diagnosis as plain values fit for JSON; null for what is not finite.

    Args:
        found: by `diagnose`.
        changes: since a baseline; None if there was none to compare with.
    """
    said = report.summary(found.findings, found.record)
    return {
        "provenance": said["provenance"],
        "findings": said["findings"],
        "unopened": [str(one) for one in found.unopened],
        "changes": changes,
        "sites": rows(found.record),
    }


def rows(record: xr.Dataset) -> list[dict[str, Any]]:
    """Return the variables of every site as plain values; None for what is not finite."""
    columns = {
        str(name): [_plain(value) for value in variable.values]
        for name, variable in record.variables.items()
        if variable.dims == ("site",)
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    return report.finite(value.item() if isinstance(value, np.generic) else value)


def _keywords(text: str) -> dict[str, Any]:
    try:
        keywords = json.loads(text)
    except ValueError as error:
        raise UnusableInput(f"--kwargs must be JSON, got {text!r}: {error}") from None
    if not isinstance(keywords, dict):
        raise UnusableInput(f"--kwargs must be a JSON object such as {{}}, got {text!r}")
    return keywords
