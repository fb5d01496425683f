"""What the verbs of the command share: the key of a seed, results, and words that are no result."""

import json
import sys
from typing import Any

import jax
from rich.console import Console

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


def say(message: str) -> None:
    """Print to stderr, where no result goes."""
    print(f"propagate: {message}", file=sys.stderr)


def show(result: Any) -> None:
    """Print a result to stdout: a mapping as JSON, all else as rich does."""
    if isinstance(result, dict):
        print(json.dumps(result, indent=2))
    else:
        Console().print(result)
