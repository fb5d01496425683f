"""What the verbs of the command share: the key of a seed, results, and words that are no result."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import jax
from rich.console import Console

from propagate.report.fitted import PIPED
from propagate.types import UnusableInput


def key(seed: int) -> jax.Array:
    """Return the key from which everything random follows.

    Raises:
        UnusableInput: the seed does not fit.
    """
    try:
        return jax.random.key(seed)
    except OverflowError:
        raise UnusableInput(f"seed must fit in 64 bits, got {seed}") from None


def refuse_idle(verb: Any, names: Iterable[str], where: str) -> None:
    """Refuse options that were given and would be ignored without a word.

    Args:
        verb: the options, a dataclass.
        names: of the fields that have no effect.
        where: in which case, in words.

    Raises:
        UnusableInput: one of them has another value than by default.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(verb)}
    for name in names:
        if getattr(verb, name) != defaults[name]:
            option = name.replace("_", "-")
            raise UnusableInput(f"--{option} has no effect {where}: leave it out")


def refuse_empty(verb: Any, *names: str) -> None:
    """Raise `UnusableInput` for an option of several values that was given without one."""
    for name in names:
        if getattr(verb, name) == ():
            raise UnusableInput(f"--{name} needs one value or more behind it, or leave it out")


@contextlib.contextmanager
def unread(stream: TextIO) -> Iterator[None]:
    """Go on with the work when nobody reads any more, as behind `| head`."""
    try:
        try:
            yield
        finally:
            stream.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # a stream without a file of its own
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Piped(Console):
    """A console that raises `BrokenPipeError` where rich would leave with code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def say(message: str) -> None:
    """Print to stderr, where no result goes."""
    with unread(sys.stderr):
        print(f"propagate: {message}", file=sys.stderr)


def show(result: Any) -> None:
    """Print a result to stdout: a mapping as JSON, words as they are, a table as wide as it may be.

    That is as wide as the terminal; `PIPED` columns where there is none.
    """
    with unread(sys.stdout):
        if isinstance(result, dict):
            print(json.dumps(result, indent=2, allow_nan=False))
        elif isinstance(result, str):
            print(result)
        else:
            fits = sys.stdout.isatty() or "COLUMNS" in os.environ
            _Piped(width=None if fits else PIPED).print(result)
