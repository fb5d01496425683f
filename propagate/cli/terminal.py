"""What the verbs of the command share: the key of a seed, results, and words that are no result."""

import json
import os
import sys
from typing import Any

import jax
from rich.console import Console

from propagate.types import UnusableInput

PIPED = 160  # columns, so that names and verdicts in a log are whole


def key(seed: int) -> jax.Array:
    """Return the key from which everything random follows.

    Raises:
        UnusableInput: the seed does not fit.
    """
    try:
        return jax.random.key(seed)
    except OverflowError:
        raise UnusableInput(f"seed must fit in 64 bits, got {seed}") from None


def say(message: str) -> None:
    """Print to stderr, where no result goes."""
    print(f"propagate: {message}", file=sys.stderr)


def show(result: Any) -> None:
    """Print a result to stdout: a mapping as JSON, all else as rich does."""
    if isinstance(result, dict):
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        Console().print(result)


def show_sites(table: Any) -> None:
    """Print a table of sites: as wide as the terminal, and where there is none `PIPED` columns."""
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(width=None if fits else PIPED).print(table)
