"""`propagate predict`."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
import xarray as xr
from rich.console import Console
from rich.table import Table

from propagate.cli import output_folder, user_model
from propagate.cli.diagnose import PIPED
from propagate.cli.output_folder import write_theory
from propagate.cli.terminal import key, say, show
from propagate.models.diagnose import Diagnosis
from propagate.network import Network
from propagate.report import theory_table
from propagate.report.summary import finite
from propagate.report.theory_table import ARROWS, coverage, critical_points, table
from propagate.run.sweep import measure
from propagate.theory import criticality
from propagate.theory.predict import predict
from propagate.verdicts.departures import departures

ROWS = 12  # layers in the table


@dataclass(frozen=True)
class Predict:
    """Say what mean-field theory expects of a stack, layer by layer, and measure it beside.

    Prints the table, the gain and the critical points of the activation.

    With TARGET, as for `propagate diagnose`, it is your own model: it is measured, and theory
    follows its program with the statistics of its weights. "given" is what was measured, where
    theory has no answer.
    """

    target: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[TARGET]")] = None
    """my_model.py:build, or package.module:build from the current directory."""
    init: str = "he_normal"
    """Initialiser: a name of `propagate list`, such as he_normal, "sigma(1.3,0.3)"."""
    activation: str = "relu"
    """Activation: a name of `propagate list`."""
    family: str = "mlp"
    """Kind of layer: a family of `propagate list`, such as "residual(branch=nf)"."""
    depth: int = 50
    """Number of layers."""
    width: int = 256
    """Units per layer."""
    batch: int = 128
    """Inputs, over which a second moment is averaged."""
    sigma_b2: float = 0.05
    """Variance of the biases for which critical points are listed."""
    seeds: int = 0
    """Networks to measure beside the prediction; 0 measures none."""
    seed: int = 0
    """Of the measurement."""
    vmap: tyro.conf.FlagCreatePairsOff[bool] = False
    """TARGET's model takes a single input: map it over the batch."""
    kwargs: Annotated[str, tyro.conf.arg(metavar="JSON")] = "{}"
    """Keyword arguments of every call of TARGET's model, such as '{"train": true}'."""
    out: Path | None = None
    """Folder for the record of theory and, if there is one, of the measurement; their picture."""
    json: bool = False
    """Print JSON instead of tables."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        if self.out is not None:
            output_folder.writable(self.out)
        if self.target is not None:
            return self._of_model(self.target)
        net = Network(self.depth, self.width, self.family, self.activation, self.init)
        theory = predict(net, batch=self.batch)
        found = None
        if self.seeds:
            found = measure(net, key(self.seed), seeds=self.seeds, batch=self.batch)
        if self.out is not None:
            for path in write_theory(self.out, theory, found):
                say(f"wrote {path}")
        show(self._summary(net, theory, found) if self.json else self._tables(theory, found))
        if not self.json:
            show(self._advice(net))
            for one in departures(found, theory) if found is not None else ():
                show(str(one))
        return 0

    def _of_model(self, target: str) -> int:
        found = user_model.diagnosed(target, self.seed, self.vmap, self.kwargs)
        theory = found.theory()
        for path in write_theory(self.out, theory, found.record) if self.out is not None else ():
            say(f"wrote {path}")
        if self.json:
            show(theory_table.summary(theory, found.record))
        else:
            shown(found, theory)
        return 0

    def _tables(self, theory: xr.Dataset, found: xr.Dataset | None) -> Table:
        title = f"{self.init} × {self.activation}: log10 of second moments"
        table = Table("layer", title=title)
        columns = {}
        for direction in ("forward", "backward"):
            band = theory[f"log10_{direction}_q_sd"].where(np.isfinite)
            columns[f"{direction}\nexpected"] = theory[f"log10_{direction}_q"].values
            columns[f"{direction}\n± over draws"] = band.values
            if found is not None:
                columns[f"{direction}\nmeasured"] = (
                    found[f"log10_{direction}_q"].mean("seed").values
                )
        for name in columns:
            table.add_column(name, justify="right")
        for k in np.unique(np.linspace(0, self.depth, ROWS).round().astype(int)):
            row = (values[k] for values in columns.values())
            table.add_row(str(k), *("–" if np.isnan(v) else f"{v:.3f}" for v in row))
        return table

    def _advice(self, net: Network) -> str:
        factors = criticality.gain(net.activation)
        return (
            f"gain of {net.activation.name}: {factors.second_moment:.6g} keeps E phi², "
            f"{factors.variance:.6g} keeps Var phi\n"
            f"{critical_points(net.activation.name, self.sigma_b2)}"
        )

    def _summary(
        self, net: Network, theory: xr.Dataset, found: xr.Dataset | None
    ) -> dict[str, Any]:
        points = criticality.critical(net.activation, self.sigma_b2)
        summary: dict[str, Any] = {
            "gain": criticality.gain(net.activation)._asdict(),
            "critical": [point._asdict() for point in points],
            "reason": points.reason or None,
            "theory": {str(k): finite(v.values.tolist()) for k, v in theory.data_vars.items()},
        }
        if found is not None:
            summary["departures"] = [
                {k: finite(v) for k, v in one._asdict().items()}
                for one in departures(found, theory)
            ]
        return summary


def shown(found: Diagnosis, theory: xr.Dataset) -> None:
    """Print the table and, for each direction, how far theory reaches and is off."""
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(width=None if fits else PIPED).print(table(found.record, theory))
    for direction in ARROWS:
        print(coverage(theory, found.record, direction))
