"""The command `propagate VERB`.

Exit codes: 0 done, 1 a verdict under --fail-on or a change from --baseline, 2 bad usage, 3 could
not run, 130 interrupted. Results go to stdout (with --json only JSON), the rest to stderr.
"""

import contextlib
import dataclasses
import gc
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from propagate import batches, figures, files, record, report
from propagate.activations import ACTIVATIONS, activation
from propagate.blocks import FAMILIES
from propagate.cli_diagnose import Diagnose
from propagate.cli_predict import Phase, Predict
from propagate.initializers import INITIALIZERS, initializer
from propagate.network import Network
from propagate.sweep import Interrupted, sweep
from propagate.terminal import key, say, show
from propagate.types import Device, JaxDevice, LossKind, Precision, PropagateError, UnusableInput
from propagate.verdict import judge

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
)
PHIS = ("relu", "tanh", "sigmoid", "gelu", "silu", "selu")
"""The default grid: the classic initialisers and the commonest activations."""


@dataclass(frozen=True)
class Sweep:
    """Send signals through deep stacks for every initialiser × activation pairing.

    Prints a table of verdicts and writes the record, a summary and pictures.
    """

    init: tuple[str, ...] = INITS
    """Initialisers: names of `propagate list`, such as he_normal, normal_0.02, 0.01*he_normal."""
    activation: tuple[str, ...] = PHIS
    """Activations: names of `propagate list`, such as relu, leaky_relu_0.2."""
    family: str = "mlp"
    """Kind of layer: a family of `propagate list`, with options as in "conv2d(kernel=5)"."""
    depth: int = 50
    """Number of layers."""
    width: int = 256
    """Units per layer."""
    batch: int = 64
    """Inputs."""
    seeds: int = 4
    """Independent draws of weights, random inputs and gradients."""
    seed: int = 0
    """Everything random follows from this number."""
    input: str = "gaussian"
    """gaussian, pairs (of a chosen cosine), digits, or a .npy or .npz file."""
    cosine: float = 0.5
    """Expected cosine between any two inputs of --input pairs."""
    loss: LossKind = "gaussian"
    """Where the gradient starts: a random one, or that of a loss on the labels of the input."""
    measures: tuple[str, ...] | None = None
    """Endings of the variables to record beside q, such as mean variance; all by default."""
    out: Path = Path("propagate-out")
    """Folder for the record, the summary and the pictures."""
    json: bool = False
    """Print the summary as JSON instead of the table."""
    pictures: bool = True
    """Draw the pictures, as PNG and SVG."""
    device: Device | None = None
    """Kind of device; JAX's own choice by default."""
    dtype: str = "float32"
    """Of weights and signals; statistics are float32 or wider."""
    precision: Precision = "highest"
    """Of matrix products."""
    block: int | None = None
    """Pairings that go through a layer together; larger suits a GPU (say 32)."""

    def __call__(self) -> int:
        """Run; return the exit code."""
        files.writable(self.out)
        net = Network(
            self.depth, self.width, self.family, dtype=self.dtype, precision=self.precision
        )
        options = self._options()
        try:
            found = _with_progress("sweep", sweep, net, **options, seeds=self.seeds)
        except Interrupted as stopped:
            path = record.save(stopped.record, self.out / "record.partial.nc")
            say(f"{stopped}; what was measured is in {path}")
            return 130
        findings = judge(found)
        for path in files.write(found, findings, self.out):
            say(f"wrote {path}")
        show(report.summary(findings, found) if self.json else report.text(findings, found))
        if self.pictures:
            shown = report.best(findings)
            options |= {"init": [*dict.fromkeys(shown.values())], "activation": list(shown)}
            options |= {"measures": ("q", "histogram"), "seeds": 1}
            with ThreadPoolExecutor(1) as pool:  # it runs while the first pictures are drawn
                details = pool.submit(sweep, net, **options)
                for path in files.draw(found, findings, details, shown, self.out):
                    say(f"wrote {path}")
        return 0

    def _options(self) -> dict[str, Any]:
        random = self.input in ("gaussian", "pairs")
        return {
            "init": list(dict.fromkeys(self.init)),
            "activation": list(dict.fromkeys(self.activation)),
            "key": key(self.seed),
            "batch": self.batch,
            "inputs": None if random else batches.load(self.input, self.batch),
            "input": self.input if random else "gaussian",
            "cosine": self.cosine,
            "loss": self.loss,
            "measures": None if self.measures is None else ("q", *self.measures),
            "block": self.block,
            "devices": _devices(self.device),
        }


@dataclass(frozen=True)
class List:
    """List the initialisers, activations and families that can be named."""

    def __call__(self) -> int:
        """Print the tables."""
        laws = Table("initialiser", "law", "source", title="Initialisers")
        for name in INITIALIZERS:
            law = initializer(name)
            laws.add_row(name, law.law, law.source)
        phis = Table("activation", "formula", "source", title="Activations")
        for name in ACTIVATIONS:
            phi = activation(name)
            phis.add_row(name, phi.formula, phi.source)
        kinds = Table("family", "layer", "options", title="Families")
        for name, kind in FAMILIES.items():
            doc = (kind.__doc__ or "").splitlines()[0].rstrip(".:")
            kinds.add_row(name, doc, ", ".join(f.name for f in dataclasses.fields(kind())))
        show(laws)
        show(phis)
        show(kinds)
        show(
            "Parameters follow a name: normal_0.02, leaky_relu_0.2, sigma(1.3,0.3), "
            "he_normal(mode=fan_out); a factor precedes it: 0.01*he_normal. Families take options: "
            "conv2d(kernel=5,padding=zero), mlp(norm=batch)."
        )
        return 0


@dataclass(frozen=True)
class Figures:
    """Draw the figures of the gallery and check their numbers."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which ones; all by default."""
    folder: Path = Path("figures")
    """Where their scripts are, and where the PNGs go."""
    small: bool = False
    """Run at reduced size and write nothing."""

    def __call__(self) -> int:
        """Run the scripts in turn."""
        for script in figures.scripts(self.folder, self.names):
            start = time.perf_counter()
            path = figures.run(script, small=self.small)
            say(f"{path or script.stem}: numbers hold ({time.perf_counter() - start:.1f} s)")
        return 0


Verb = (
    Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Diagnose, tyro.conf.subcommand("diagnose")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Phase, tyro.conf.subcommand("phase")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Figures, tyro.conf.subcommand("figures")]
)


def main(args: list[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    gc.freeze()  # what is imported stays: the collector need not walk it again
    verb: Any = tyro.cli(Verb, prog="propagate", description=__doc__, args=args)
    try:
        code = verb()
    except UnusableInput as error:
        say(f"error: {error}")
        code = 2
    except PropagateError as error:
        say(f"error: {error}")
        code = 3
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    sys.exit(code)


def _with_progress(name: str, run: Any, *args: Any, **options: Any) -> Any:
    """Call `run` with a progress bar that shows after a second, on a terminal only."""
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        bars: list[Progress] = []

        def progress(done: int, total: int) -> None:
            if not bars and console.is_terminal and time.perf_counter() - start > 1:
                bars.append(
                    stack.enter_context(Progress(*columns, console=console, transient=True))
                )
                bars[0].add_task(name, total=total)
            if bars:
                bars[0].update(bars[0].task_ids[0], completed=done)

        return run(*args, progress=progress, **options)


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
