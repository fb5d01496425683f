"""The command: `propagate VERB`. `propagate --version` says which one it is."""

import gc
import sys
from typing import Annotated, Any

import tyro

from propagate import _interrupts
from propagate.cli.diagnose import Diagnose
from propagate.cli.figures import Figures
from propagate.cli.listing import List
from propagate.cli.phase import Phase
from propagate.cli.predict import Predict
from propagate.cli.sweep import Sweep
from propagate.cli.terminal import say, show, unread
from propagate.record.provenance import provenance
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
    return _verb(args)()


def _verb(args: list[str]) -> Any:
    """Return the verb with its options; print the help, or what is wrong with them, and leave."""
    try:
        return tyro.cli(Verb, prog="propagate", description=__doc__, args=args)
    except BrokenPipeError:  # of the help somebody read the first lines
        code: Any = 0
    except SystemExit as left:
        code = left.code
    with unread(sys.stdout), unread(sys.stderr):
        sys.exit(code)
