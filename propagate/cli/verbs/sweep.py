"""`propagate sweep`."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from propagate import batches
from propagate.activations import activation
from propagate.batches import Batch
from propagate.cli import output_folder
from propagate.cli.progress_bar import with_progress
from propagate.cli.stack_options import StackOptions, each_once
from propagate.cli.terminal import key, refuse_empty, refuse_idle, say, show
from propagate.initializers import initializer
from propagate.network import Network
from propagate.record import storage
from propagate.report import summary, sweep_table
from propagate.run.sweep import Interrupted, sweep
from propagate.types import Device, JaxDevice, LossKind, Precision, PropagateError
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
    block: int | None = None
    """Pairings that go through a layer together; by default few on a CPU, all on a GPU."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        self._refuse_what_has_no_effect()
        output_folder.writable(self.out)
        net = Network(
            self.depth, self.width, self.family, dtype=self.dtype, precision=self.precision
        )
        options = self._options()
        try:
            found = with_progress("sweep", sweep, net, **options, seeds=self.seeds)
        except Interrupted as stopped:
            path = storage.save(stopped.record, self.out / "record.partial.nc")
            say(f"{stopped}; what was measured is in {path}")
            return 130
        findings = judge(found)
        told = summary.of_sweep(findings, found)
        for path in output_folder.write(found, told, self.out):
            say(f"wrote {path}")
        if self.json:
            show(told)
        else:
            show(sweep_table.report(findings, found))
        if self.pictures:
            shown = sweep_table.best(findings)
            options |= {"init": [*dict.fromkeys(shown.values())], "activation": list(shown)}
            options |= {"measures": ("q", "histogram"), "seeds": 1}
            with ThreadPoolExecutor(1) as pool:  # it runs while the first pictures are drawn
                details = pool.submit(sweep, net, **options)
                for path in output_folder.draw(found, findings, details, shown, self.out):
                    say(f"wrote {path}")
        return 0

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
