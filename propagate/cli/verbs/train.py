"""`propagate train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from propagate.activations import activation
from propagate.cli import output_folder
from propagate.cli.progress_bar import with_progress
from propagate.cli.stack_options import StackOptions, each_once
from propagate.cli.terminal import key, refuse_empty, say, show
from propagate.initializers import initializer
from propagate.network import Network
from propagate.record import storage
from propagate.report import summary, training_table
from propagate.report.html import page
from propagate.run.sweep import Interrupted
from propagate.training.train import OptimizerName, train
from propagate.types import Precision

INITS = (
    *("normal_0.01", "normal_0.02", "normal_0.05"),
    *("xavier_normal", "he_normal", "orthogonal", "critical"),
)
PHIS = ("relu", "tanh")
"""The default grid: a standard deviation to tune, and scales that follow from the width."""


@dataclass(frozen=True)
class Train(StackOptions):
    """Train every initialiser × activation pairing for real, and rank them by rows held out.

    Prints a table of outcomes beside verdicts, and writes the record, a summary and the learning
    curves.
    """

    depth: int = 20
    """Number of layers."""
    width: int = 128
    """Units per layer."""
    init: tuple[str, ...] = INITS
    """Initialisers: names of `propagate list`, such as he_normal, normal_0.02, 0.01*he_normal."""
    activation: tuple[str, ...] = PHIS
    """Activations: names of `propagate list`."""
    data: str = "digits"
    """digits, or an .npz file with arrays inputs (or x) and labels (or y), taken as they are."""
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    """cross_entropy of classes, or mse of targets."""
    epochs: int = 10
    """How often all rows are gone through."""
    batch: int = 32
    """Rows of an update."""
    seeds: int = 3
    """Independent draws of weights and orders of rows."""
    folds: int | None = None
    """Folds of a cross-validation, in which every row is held out once."""
    held_out: float | None = None
    """Share of the rows that is held out without --folds; 0.2 by default."""
    optimizer: OptimizerName = "sgd"
    """Plain SGD, SGD with momentum 0.9, Adam or AdamW."""
    learning_rate: tuple[float, ...] | None = None
    """One, or several to choose from for each pairing by its training loss; three by default."""
    weight_decay: float = 0.0
    """L2 on the weights; of adamw, their decay apart from the gradient."""
    dropout: float | None = None
    """Share of units that is dropped in training; the family's own by default."""
    target: float = 0.9
    """Held-out score of which the first epoch is told: accuracy, or R² of mse."""
    seed: int = 0
    """Everything random follows from this number."""
    out: Path = Path("propagate-train")
    """Folder for the record, the summary and the picture."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for a report: one HTML page with verdicts, outcomes, pictures and layers."""
    json: bool = False
    """Print the summary as JSON instead of the table."""
    pictures: bool = True
    """Draw the learning curves, as PNG and SVG."""
    dtype: str = "float32"
    """Type of weights and signals. Statistics are float32 or wider."""
    precision: Precision = "highest"
    """Precision of matrix products."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        refuse_empty(self, "init", "activation", "learning_rate")
        output_folder.writable(self.out)
        net = Network(
            self.depth, self.width, self.family, dtype=self.dtype, precision=self.precision
        )
        try:
            found = with_progress("train", train, net, **self._options())
        except Interrupted as stopped:
            path = storage.save(stopped.record, self.out / output_folder.PARTIAL)
            say(f"{stopped}; what was reached is in {path}")
            return 130
        outcomes = found.outcomes(self.target)
        told = summary.of_training(outcomes, found.findings, found.record)
        for path in output_folder.write(found.record, told, self.out):
            say(f"wrote {path}")
        if self.report is not None:
            say(f"wrote {page.write(found.record, self.report, found.findings)}")
        if self.pictures:
            for path in output_folder.save_figure(found.plot(), self.out / "curves"):
                say(f"wrote {path}")
        if self.json:
            show(told)
        else:
            show(training_table.report(outcomes, found.findings, found.record, self.target))
        return 0

    def _options(self) -> dict[str, Any]:
        names = ("data", "loss", "epochs", "batch", "seeds", "folds", "held_out", "optimizer")
        more = ("learning_rate", "weight_decay", "dropout")
        return {
            **{name: getattr(self, name) for name in (*names, *more)},
            "init": each_once(self.init, initializer),
            "activation": each_once(self.activation, activation),
            "key": key(self.seed),
        }
