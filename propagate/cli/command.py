"""The command: `propagate VERB`. `propagate --version` says which one it is."""

import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from propagate import _interrupts
from propagate.cli.terminal import say, show, unread
from propagate.cli.verbs.diagnose import Diagnose
from propagate.cli.verbs.figures import Figures
from propagate.cli.verbs.lab import Lab
from propagate.cli.verbs.listing import List
from propagate.cli.verbs.phase import Phase
from propagate.cli.verbs.plot import Plot
from propagate.cli.verbs.predict import Predict
from propagate.cli.verbs.report import Report
from propagate.cli.verbs.sweep import Sweep
from propagate.cli.verbs.train import Train
from propagate.record.provenance import of_command, provenance
from propagate.types import PropagateError, UnusableInput

Verb = (
    Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Diagnose, tyro.conf.subcommand("diagnose")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Phase, tyro.conf.subcommand("phase")]
    | Annotated[Plot, tyro.conf.subcommand("plot")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Lab, tyro.conf.subcommand("lab")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Figures, tyro.conf.subcommand("figures")]
)

CACHE_BYTES = 2**29  # of compiled programs; those used longest ago make room


@dataclass(frozen=True)
class Command:
    """The command: `propagate VERB`."""

    verb: Verb
    no_cache: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile anew: neither read nor write the programs in the user's cache folder."""


def main(args: list[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    gc.freeze()  # what is imported stays: the collector need not walk it again
    given = sys.argv[1:] if args is None else args
    try:
        _interrupts.as_exceptions()
        code = _run(given)
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


def _run(args: list[str]) -> int:
    if args == ["--version"]:
        show(f"propagate {provenance()['propagate']}")
        return 0
    given = _parsed(args)
    if not given.no_cache:
        keep_programs()
    verb: Any = given.verb
    with of_command(args):
        return verb()


def _parsed(args: list[str]) -> Command:
    """Return the verb with its options; print the help, or what is wrong with them, and leave."""
    plain = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    config = (*plain, tyro.conf.CascadeSubcommandArgs)
    try:
        return tyro.cli(Command, prog="propagate", description=__doc__, args=args, config=config)
    except BrokenPipeError:  # of the help somebody read the first lines
        code: Any = 0
    except SystemExit as left:
        code = left.code
    with unread(sys.stdout), unread(sys.stderr):
        sys.exit(code)


def keep_programs() -> None:
    """Let JAX keep what it compiles in the user's cache folder, unless a cache was set up."""
    config: Any = jax.config  # whose options type checkers do not know
    if config.jax_compilation_cache_dir:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    config.update("jax_compilation_cache_dir", str(Path(base) / "propagate"))
    config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # they are many and small
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
