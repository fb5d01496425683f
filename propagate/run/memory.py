"""How many bytes a sweep needs, and what is said where they are not there."""

import collections
import math

from propagate.blocks.parameters import Size
from propagate.network import Network
from propagate.run.program import StackProgram
from propagate.types import PropagateError

KEPT_BYTES = 2**28  # of one block's signals; beyond it, chunks are computed again on the way back
WEIGHT_BYTES = 3 * 2**28  # of one seed's base weights; beyond it, they are drawn within the scan
ITEMSIZE = 4


def bytes_needed(net: Network, made: StackProgram, rows: int, at_once: int) -> int:
    """Return about how much memory a sweep takes, with `at_once` blocks in flight."""
    alike = collections.Counter(net.sizes(made.batch))
    own, shared = ({n: elements(net, n, shared=s) for n in alike} for s in (False, True))
    every = sum(count * own[n] for n, count in alike.items()) + max(shared.values())
    again = 3 * at_once * (max(own.values()) + max(shared.values()))
    weights = 2 * every if made.base is None else again
    units = max(math.prod(net.family.signal(n)) for shape in net.shapes for n in shape)
    kept = 2 * sum(part.chunks + part.length for part in made.runs if part.chunks > 1)
    kept += 2 * sum(part.length for part in made.runs if part.chunks == 1)
    return 4 * (weights + at_once * rows * units * net.family.arrays * (kept + 8))


def elements(net: Network, size: Size, *, shared: bool) -> int:
    """Return how many parameters a layer has of its own, or shares with all others."""
    found = net.family.init(size).values()
    return sum(math.prod(p.shape) for p in found if p.shared == shared)


def explained(error: Exception) -> Exception:
    """Return the error, with what to do about it where the device ran out of memory."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return PropagateError(
            "out of memory: use a smaller width, batch or block; "
            f"the device said: {str(error).splitlines()[0] if str(error) else 'no memory'}"
        )
    return error
