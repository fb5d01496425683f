"""`propagate diagnose`."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import xarray as xr
from rich.console import Console

from propagate import checks
from propagate.cli.terminal import say
from propagate.cli.user_model import diagnosed
from propagate.models.diagnose import Diagnosis
from propagate.report.summary import rows, summary
from propagate.verdicts import baseline as baselines
from propagate.verdicts import thresholds
from propagate.verdicts.findings import verdicts

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
        checks.check_tolerance("--tolerance", self.tolerance)
        if self.baseline and self.baseline.exists():
            baselines.read(self.baseline)  # a wrong file is told before the work
        found = self._diagnosis()
        changes = self._changes(found.record)
        if self.json:
            print(json.dumps(diagnosis_summary(found, changes), indent=2, allow_nan=False))
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


def diagnosis_summary(found: Diagnosis, changes: list[str] | None) -> dict[str, Any]:
    """Return a diagnosis as plain values fit for JSON; null for what is not finite.

    Args:
        found: by `diagnose`.
        changes: since a baseline; None if there was none to compare with.
    """
    said = summary(found.findings, found.record)
    return {
        "provenance": said["provenance"],
        "findings": said["findings"],
        "unopened": [str(one) for one in found.unopened],
        "changes": changes,
        "sites": rows(found.record),
    }
