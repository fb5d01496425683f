"""The command: `propagate VERB`."""

import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from propagate.cli.diagnose import Diagnose
from propagate.cli.figures import Figures
from propagate.cli.listing import List
from propagate.cli.phase import Phase
from propagate.cli.predict import Predict
from propagate.cli.sweep import Sweep
from propagate.cli.terminal import say
from propagate.types import PropagateError, UnusableInput

Verb = (
    Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Diagnose, tyro.conf.subcommand("diagnose")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Phase, tyro.conf.subcommand("phase")]
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
    plain = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    config = (*plain, tyro.conf.CascadeSubcommandArgs)
    given = tyro.cli(Command, prog="propagate", description=__doc__, args=args, config=config)
    if not given.no_cache:
        keep_programs()
    verb: Any = given.verb
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
