"""`propagate predict`: theory of a stack, or of the user's own model."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
import xarray as xr

from propagate import checks
from propagate.cli import output_folder, user_model
from propagate.cli.stack_options import StackOptions
from propagate.cli.terminal import key, refuse_idle, say, show
from propagate.cli.user_model import ModeName
from propagate.network import Network
from propagate.report import summary, theory_table
from propagate.run.sweep import measure
from propagate.theory.predict import predict
from propagate.types import DIRECTIONS
from propagate.verdicts.departures import departures

OF_A_MODEL = ("vmap", "kwargs", "mode")
OF_A_STACK = (
    *("init", "activation", "sigma_b2", "batch", "seeds"),
    *(field.name for field in dataclasses.fields(StackOptions)),
)


@dataclass(frozen=True)
class Predict(StackOptions):
    """Say what mean-field theory expects of a stack, layer by layer, and measure it beside.

    Prints the table, the gain and the critical points of the activation.

    With TARGET, as for `propagate diagnose`, it is your own model. It is measured, and theory
    follows its program with the statistics of its weights. Where theory has no answer the table
    has a dash, and theory goes on from what was measured there. Of the options only --seed,
    --vmap, --kwargs, --mode, --out and --json have an effect on TARGET.
    """

    target: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[TARGET]")] = None
    """my_model.py:build, or package.module:build from the current directory."""
    init: str = "he_normal"
    """Initialiser: a name of `propagate list`, such as he_normal, "sigma(1.3,0.3)"."""
    activation: str = "relu"
    """Activation: a name of `propagate list`."""
    batch: int = 128
    """Inputs in a batch, over which a second moment is averaged."""
    sigma_b2: float = 0.05
    """Variance of the biases for which critical points are listed."""
    seeds: int = 0
    """Number of networks to measure beside the prediction."""
    seed: int = 0
    """Seed of the measurement."""
    vmap: tyro.conf.FlagCreatePairsOff[bool] = False
    """TARGET's model takes a single input: map it over the batch."""
    kwargs: Annotated[str, tyro.conf.arg(metavar="JSON")] = "{}"
    """Keyword arguments of every call of TARGET's model, such as '{"train": true}'."""
    mode: ModeName | None = None
    """How TARGET's model is run; by default what a training step does."""
    out: Path | None = None
    """Folder for theory, for the measurement if there is one, and for their picture."""
    json: bool = False
    """Print JSON instead of tables."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        self._refuse_what_has_no_effect()
        if self.out is not None:
            output_folder.writable(self.out)
        if self.target is None:
            self._of_stack()
        else:
            self._of_model(self.target)
        return 0

    def _refuse_what_has_no_effect(self) -> None:
        """Refuse options of the other case, which would be ignored without a word."""
        idle = OF_A_MODEL if self.target is None else OF_A_STACK
        where = "without TARGET" if self.target is None else "on TARGET, which is your own model"
        refuse_idle(self, idle, where)
        checks.check_count("--seeds", self.seeds, least=0)
        if self.target is None and not self.seeds:
            refuse_idle(self, ["seed"], "without --seeds, as theory draws nothing")

    def _of_stack(self) -> None:
        net = Network(self.depth, self.width, self.family, self.activation, self.init)
        theory, found = predict(net, batch=self.batch), None
        if self.seeds:
            found = measure(net, key(self.seed), seeds=self.seeds, batch=self.batch)
        self._write(theory, found)
        if self.json:
            show(summary.of_prediction(net.activation.name, self.sigma_b2, theory, found))
            return
        family = "" if str(net.family) == "mlp" else f", {net.family}"
        title = f"{self.init} × {self.activation}{family}: log10 of second moments"
        show(theory_table.stack_table(theory, found, title))
        show(theory_table.gain_and_critical_points(net.activation.name, self.sigma_b2))
        for one in departures(found, theory) if found is not None else ():
            show(str(one))

    def _of_model(self, target: str) -> None:
        options = {"vmap": self.vmap, "kwargs": self.kwargs, "mode": self.mode}
        found = user_model.diagnosed(target, self.seed, **options)
        theory = found.theory()
        self._write(theory, found.record)
        if self.json:
            show(summary.of_model_theory(theory, found.record))
            return
        show(theory_table.model_table(theory, found.record))
        for direction in DIRECTIONS:
            show(theory_table.coverage(theory, found.record, direction))

    def _write(self, theory: xr.Dataset, found: xr.Dataset | None) -> None:
        if self.out is not None:
            for path in output_folder.write_theory(self.out, theory, found):
                say(f"wrote {path}")
