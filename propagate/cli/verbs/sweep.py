"""`propagate sweep`."""

import contextlib
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
import xarray as xr

from propagate import batches
from propagate.activations import activation
from propagate.batches import Batch
from propagate.cli import output_folder
from propagate.cli.painters import painters
from propagate.cli.progress_bar import with_progress
from propagate.cli.stack_options import StackOptions, each_once
from propagate.cli.terminal import key, refuse_empty, refuse_idle, say, show
from propagate.cure.advice import advise
from propagate.cure.remedies import Advice
from propagate.initializers import initializer
from propagate.network import Network
from propagate.record import storage
from propagate.report import summary, sweep_table
from propagate.report.html import page
from propagate.run.sweep import Interrupted, sweep
from propagate.types import Device, JaxDevice, LossKind, Precision, PropagateError
from propagate.verdicts.findings import Findings
from propagate.verdicts.judge import judge

INITS = (
    "zeros",
    "constant_0.01",
    "normal_0.01",
    "normal_0.05",
    "lecun_normal",
    "xavier_uniform",
    "xavier_normal",
    "he_normal",
    "torch",
    "orthogonal",
    "critical",
)
HINT = "propagate sweep --advice measures it."
PHIS = ("relu", "tanh", "sigmoid", "gelu", "silu", "selu")
"""The default grid: the common initialisers and activations."""


@dataclass(frozen=True)
class Sweep(StackOptions):
    """Send signals through deep stacks for every initialiser × activation pairing.

    Prints a table of verdicts and writes the record, a summary and pictures.
    """

    init: tuple[str, ...] = INITS
    """Initialisers: names of `propagate list`, such as he_normal, normal_0.02, 0.01*he_normal. Of
    two names for one, such as he_normal and kaiming_normal, the first is run."""
    activation: tuple[str, ...] = PHIS
    """Activations: names of `propagate list`, such as relu, leaky_relu_0.2."""
    batch: int = 64
    """Inputs in a batch."""
    seeds: int = 4
    """Independent draws of weights, of random inputs and of the gradient at the output."""
    seed: int = 0
    """Everything random follows from this number."""
    input: str = "gaussian"
    """Kind of input: gaussian, pairs (of a chosen cosine), digits, or a .npy or .npz file."""
    cosine: float | None = None
    """Expected cosine between any two inputs of --input pairs; 0.5 by default."""
    loss: LossKind = "gaussian"
    """Gradient at the output: gaussian is a random one, the others are of a loss on the labels."""
    measures: tuple[str, ...] | None = None
    """Endings of the variables to record beside q, such as mean variance; all by default."""
    out: Path = Path("propagate-out")
    """Folder for the record, the summary and the pictures."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for a report: one HTML page with verdict, recipe, pictures and tables."""
    json: bool = False
    """Print the summary as JSON instead of the table."""
    pictures: bool = True
    """Draw the pictures, as PNG and SVG."""
    device: Device | None = None
    """Kind of device; JAX chooses by default."""
    dtype: str = "float32"
    """Type of weights and signals. Statistics are float32 or wider."""
    precision: Precision = "highest"
    """Precision of matrix products."""
    advice: tyro.conf.FlagCreatePairsOff[bool] = False
    """Measure what would help each activation for which no initialiser is fine: other scales,
    orthogonal weights, norms, activations, skip connections. Each takes a compilation."""
    block: int | None = None
    """Pairings that go through a layer together; by default few on a CPU, all on a GPU."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        self._refuse_what_has_no_effect()
        output_folder.writable(self.out)
        with painters() if self.pictures else contextlib.nullcontext() as pool:
            return self._run(pool)

    def _run(self, pool: Executor | None) -> int:
        """Measure, judge, print; `pool` draws."""
        net = Network(
            self.depth, self.width, self.family, dtype=self.dtype, precision=self.precision
        )
        options = self._options()
        try:
            found = with_progress("sweep", sweep, net, **options, seeds=self.seeds)
        except Interrupted as stopped:
            path = storage.save(stopped.record, self.out / output_folder.PARTIAL)
            say(f"{stopped}; what was measured is in {path}")
            return 130
        findings = judge(found)
        told, changes = summary.of_sweep(findings, found), self._changes(found, options)
        more = {} if changes is None else {"advice": changes.plain()}
        for path in output_folder.write(found, told | more, self.out):
            say(f"wrote {path}")
        if self.report is not None:
            parts = {"What would help": str(changes)} if changes else {}
            say(f"wrote {page.write(found, self.report, findings, more=parts)}")
        if self.json:
            show(told | more)
        else:
            words = HINT if changes is None else str(changes)
            unfit = [] in findings.suited().values()
            show(sweep_table.report(findings, found, told["by_depth"], words if unfit else ""))
        if pool is not None:
            self._draw(pool, net, options, found, findings)
        return 0

    def _draw(
        self,
        pool: Executor,
        net: Network,
        options: dict[str, Any],
        found: xr.Dataset,
        findings: Findings,
    ) -> None:
        """Have the pictures drawn; the histograms are measured while the first ones are."""
        shown = sweep_table.best(findings)
        drawn = [
            pool.submit(output_folder.draw, output_folder.curves, self.out, found),
            pool.submit(output_folder.draw, output_folder.heatmap, self.out, findings),
        ]
        options |= {"init": [*dict.fromkeys(shown.values())], "activation": list(shown)}
        details = sweep(net, **options | {"measures": ("q", "histogram"), "seeds": 1})
        histograms = output_folder.histograms
        drawn.append(pool.submit(output_folder.draw, histograms, self.out, details, shown))
        try:
            for written in drawn:
                for path in written.result():
                    say(f"wrote {path}")
        except BrokenExecutor as error:
            raise PropagateError(
                f"a process that draws was ended from outside; the record is in {self.out}"
            ) from error

    def _changes(self, found: xr.Dataset, options: dict[str, Any]) -> Advice | None:
        """Return what was measured to help, if it is asked for."""
        if not self.advice:
            return None
        data = {} if options["inputs"] is None else {"inputs": options["inputs"]}
        return advise(found, **data)

    def _refuse_what_has_no_effect(self) -> None:
        refuse_empty(self, "init", "activation", "measures")
        if self.input != "pairs":
            refuse_idle(self, ["cosine"], "without --input pairs")

    def _options(self) -> dict[str, Any]:
        random = self.input in ("gaussian", "pairs")
        return {
            "init": each_once(self.init, initializer),
            "activation": each_once(self.activation, activation),
            "key": key(self.seed),
            "batch": self.batch,
            "inputs": None if random else self._data(),
            "input": self.input if random else "gaussian",
            "cosine": 0.5 if self.cosine is None else self.cosine,
            "loss": self.loss,
            "measures": None if self.measures is None else ("q", *self.measures),
            "block": self.block,
            "devices": _devices(self.device),
        }

    def _data(self) -> Batch:
        found = batches.load(self.input, self.batch)
        if found.labels is not None and self.loss == "gaussian" and self.input != "digits":
            say(f"the labels of {self.input} have no effect without --loss")
        return found


def _devices(kind: Device | None) -> list[JaxDevice] | None:
    if kind is None:
        return None
    try:
        return jax.devices(kind)
    except RuntimeError as error:
        present = ", ".join(sorted({d.platform for d in jax.devices()}))
        raise PropagateError(
            f"--device {kind} is not available here (there is: {present}): {error}"
        ) from None
