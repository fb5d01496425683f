"""`propagate diagnose`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
import xarray as xr

from propagate import checks
from propagate.cli.terminal import refuse_empty, refuse_idle, say, show
from propagate.cli.user_model import ModeName, diagnosed, repaired
from propagate.cure.advice import advise
from propagate.cure.remedies import Advice
from propagate.cure.repair import Repair
from propagate.models.diagnose import Diagnosis
from propagate.report import summary
from propagate.types import UnusableInput
from propagate.verdicts import baseline as baselines
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Verdict, verdicts


@dataclass(frozen=True)
class Diagnose:
    """Say how signals and gradients travel through your own model, and what goes wrong first.

    TARGET names a function without arguments that returns (model, *inputs): a model of Flax,
    Equinox, Haiku or Keras with its inputs, or a function with its parameters and inputs. Inputs
    are arrays, or jax.ShapeDtypeStructs to be filled with random data.

    It prints a table of sites, and below it the conclusion, the findings and what would help most,
    one sentence a line; --json has more of the latter, with reasons and factors.
    Exit codes: 0 done, 1 a verdict under --fail-on or a change from --baseline, 2 bad usage,
    3 could not run.
    """

    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TARGET")]
    """my_model.py:build, or package.module:build from the current directory."""
    seed: int = 0
    """Everything random follows from this number, except what build() draws itself."""
    vmap: tyro.conf.FlagCreatePairsOff[bool] = False
    """The model takes a single input: map it over the batch."""
    kwargs: Annotated[str, tyro.conf.arg(metavar="JSON")] = "{}"
    """Keyword arguments of every call of the model, such as '{"train": true}'."""
    mode: ModeName | None = None
    """How a model with dropout or batch norm is run; by default what a training step does. A switch
    of its own in --kwargs decides."""
    measures: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="ENDING ...")] = None
    """Endings of the variables to record beside q, such as mean variance; all by default."""
    sites: Literal["default", "all"] = "default"
    """Sites to record: layers, activations and additions, or all floating-point operations."""
    only: Annotated[str | None, tyro.conf.arg(metavar="GLOB")] = None
    """Look only at sites whose names match, such as 'blocks.*'."""
    fail_on: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="VERDICT,...")
    ] = ()
    """Exit with 1 if one of these verdicts is found, such as vanishing,exploding,dead."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print findings and the numbers of every site as JSON (null: not finite) and nothing else."""
    baseline: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of growth per layer: written if absent, else compared with; a change exits with 1."""
    tolerance: float = thresholds.GROWTH_CHANGE
    """Decades per layer by which growth may differ from the baseline."""
    source: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print your own lines below the table, with the rms of signal and gradient at each."""
    notes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write out the notes, too: what is unusual, but harmless as far as can be told."""
    repair: tyro.conf.FlagCreatePairsOff[bool] = False
    """Find the fewest factors of weights that bring growth into range; print them, what they
    change, and the code that applies them."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File to save the record to, as netCDF."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for a report: one HTML page with verdict, pictures, table and your own lines."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        fatal = verdicts(self.fail_on)
        self._refuse_what_has_no_effect(bool(fatal))
        checks.check_tolerance("--tolerance", self.tolerance)
        if self.baseline and self.baseline.exists():
            baselines.read(self.baseline)  # a wrong file is told before the work
        fixed = self._repair() if self.repair else None
        found = fixed.before if fixed else self._diagnosis()
        changes, advice = self._changes(found.record), advise(found)
        if self.json:
            unopened = map(str, found.unopened)
            told = summary.of_diagnosis(found.findings, found.record, unopened, changes)
            told |= {"repair": fixed.summary()} if fixed else {}
            show(told | {"advice": advice.plain()})
        else:
            self._print(found, advice, changes or [])
            if fixed:
                show(fixed.table())
                if fixed.changed:
                    show(fixed.code())
        if self.out:
            say(f"wrote {found.save(self.out)}")
        if self.report:
            say(f"wrote {found.report(self.report, advice.part(self.notes))}")
        return int(bool(changes) or any(f.verdict in fatal for f in found.findings.faults))

    def _refuse_what_has_no_effect(self, fatal: bool) -> None:
        refuse_empty(self, "measures")
        if self.fail_on and not fatal:
            names = ", ".join(verdict.value for verdict in Verdict)
            raise UnusableInput(f"--fail-on needs one verdict or more behind it, of {names}")
        if self.baseline is None:
            refuse_idle(self, ["tolerance"], "without --baseline")
        if self.repair:
            refuse_idle(self, ["measures", "sites", "only"], "beside --repair, which needs all")
        if self.json:
            refuse_idle(self, ["source", "notes"], "beside --json, which has everything")

    def _diagnosis(self) -> Diagnosis:
        options = {"measures": self.measures, "sites": self.sites, "only": self.only}
        options |= {"vmap": self.vmap, "kwargs": self.kwargs, "mode": self.mode}
        return diagnosed(self.target, self.seed, **options)

    def _repair(self) -> Repair:
        options = {"vmap": self.vmap, "kwargs": self.kwargs, "mode": self.mode}
        return repaired(self.target, self.seed, **options)

    def _changes(self, record: xr.Dataset) -> list[str] | None:
        """Return what has changed since the baseline; None if there was nothing to compare with."""
        if self.baseline is None:
            return None
        if self.baseline.exists():
            return baselines.compare(record, self.baseline, self.tolerance)
        path = baselines.write(record, self.baseline)
        say(f"wrote {path}, the baseline to compare with from now on")
        return None

    def _print(self, found: Diagnosis, advice: Advice, changes: list[str]) -> None:
        show(found.table())
        opening = found.findings.opening(found.record.sizes["site"])
        findings = found.findings.text(notes=self.notes)
        best = [f"→ {line}" for line in advice.first().lines(self.notes)]
        for sentence in (opening, findings, *best, *changes):
            if sentence:
                show(sentence)
        if self.source:
            show(found.source())
