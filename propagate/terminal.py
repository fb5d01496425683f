"""What the verbs of the command share: the key of a seed, and words that are no result."""

import sys

import jax

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
