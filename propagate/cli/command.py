"""The command: `propagate VERB`."""

import gc
import sys
from typing import Annotated, Any

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
