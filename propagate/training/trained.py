"""What `train` returns."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import xarray as xr

from propagate.verdicts.findings import Findings
from propagate.verdicts.judge import judge
from propagate.verdicts.outcomes import TARGET, Outcome, outcomes


@dataclass(frozen=True)
class Trained:
    """What `train` found; prints as a table, initialisers ranked per activation.

    Attributes:
        record: dims (init, activation, learning_rate, fold, step, seed) and layer: the curves
            `train_loss`, `test_loss`, `train_accuracy` and `test_accuracy` (or `test_r2`), the
            statistics of a sweep, `log10_weight_q`, and `log10_update_ratio`, the rms of an epoch's
            last update over that of the weights, in decades. `step` counts updates, `epoch` epochs.
            `learning_rate` and `fold` are dims only where there is a choice.
    """

    record: xr.Dataset

    @cached_property
    def findings(self) -> Findings:
        """The verdicts on every pairing before the first step."""
        return judge(self.record)

    def outcomes(self, target: float = TARGET) -> tuple[Outcome, ...]:
        """Return what became of every pairing, per activation, the best first.

        Args:
            target: the held-out score whose first epoch is told.
        """
        return outcomes(self.record, target)

    def plot(self) -> Any:
        """Draw the learning curves; return the figure."""
        from propagate import plot

        return plot.learning_curves(self.record)

    def __str__(self) -> str:
        """Return the table."""
        from propagate.report import training_table

        return str(training_table.report(self.outcomes(), self.findings, self.record))
