"""Ctrl-C while the command is still loading: one line and exit code 130, instead of a traceback.

It is imported before all else, and does nothing unless the program is the command. From `main` on
interruptions are exceptions again.
"""

import os
import signal
import sys
import threading
from pathlib import PurePath
from typing import Any


def is_command(argv: list[str], original: list[str]) -> bool:
    """Whether the program is `propagate` or `python -m propagate`."""
    if argv[:1] == ["-m"]:
        return "propagate" in original[original.index("-m") + 1 :][:1]
    program = PurePath(argv[0] if argv else "")
    if program.name == "__main__.py":  # what `-m` becomes once it is found
        return program.parent.name == "propagate"
    return program.stem.removesuffix("-script") == "propagate"


def _leave(_signal: int, _frame: Any) -> None:
    os.write(2, b"propagate: interrupted\n")
    os._exit(130)


def as_exceptions() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if (
    is_command(sys.argv, sys.orig_argv)
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _leave)
