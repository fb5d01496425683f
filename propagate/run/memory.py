"""How many bytes a sweep needs and may keep, and what is said where they are not there."""

import collections
import math
import os
from typing import NamedTuple

from propagate.network import Network, layer_table
from propagate.run.program import StackProgram
from propagate.types import JaxDevice, PropagateError

KEPT_BYTES = 2**28  # of one block's signals; beyond it, chunks are computed again on the way back
WEIGHT_BYTES = 3 * 2**28  # of one seed's base weights; beyond it, they are drawn within the scan
KEPT_SHARE, WEIGHT_SHARE = 3, 8  # of an accelerator's memory: a third, an eighth
ITEMSIZE = 4
TURN_BYTES = 1000  # for each pairing and seed, to plan what runs when


class Limits(NamedTuple):
    """Bytes that may be kept on a device while a sweep runs.

    Attributes:
        signals: of all blocks that run side by side.
        weights: of the base weights that they share.
    """

    signals: int
    weights: int


def limits(device: JaxDevice | None = None) -> Limits:
    """Return what may be kept: the size of a cache counts on a CPU, the memory elsewhere."""
    held = device.memory_stats() if device is not None and device.platform != "cpu" else None
    if not held or "bytes_limit" not in held:
        return Limits(KEPT_BYTES, WEIGHT_BYTES)
    return Limits(held["bytes_limit"] // KEPT_SHARE, held["bytes_limit"] // WEIGHT_SHARE)


def weight_bytes(net: Network, batch: int) -> int:
    """Return the bytes of all layers' own parameters, for one seed and one base."""
    return ITEMSIZE * sum(spec.elements(shared=False) for spec in layer_table(net, batch))


def signal_bytes(net: Network, batch: int, arrays: int) -> int:
    """Return the bytes that all layers keep of one configuration for the way back."""
    units = sum(math.prod(net.family.signal(fan_in)) for fan_in, _ in net.shapes)
    return ITEMSIZE * arrays * batch * units


def bytes_needed(net: Network, program: StackProgram, rows: int, at_once: int) -> int:
    """Return about how much memory a sweep takes, with `at_once` blocks in flight."""
    alike = collections.Counter(layer_table(net, program.batch))
    own, shared = ({n: n.elements(shared=s) for n in alike} for s in (False, True))
    every = sum(count * own[n] for n, count in alike.items()) + max(shared.values())
    again = 3 * at_once * (max(own.values()) + max(shared.values()))
    weights = 2 * every if program.base is None else again
    units = max(math.prod(net.family.signal(n)) for shape in net.shapes for n in shape)
    kept = 2 * sum(part.chunks + part.length for part in program.stretches if part.chunks > 1)
    kept += 2 * sum(part.length for part in program.stretches if part.chunks == 1)
    return ITEMSIZE * (weights + at_once * rows * units * net.family.arrays * (kept + 8))


def check_record(pairings: int, seeds: int, layers: int, variables: int) -> None:
    """Refuse so many numbers that their record would fill the memory.

    Raises:
        PropagateError: it would.
    """
    needed = pairings * seeds * (8 * variables * layers + TURN_BYTES)
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise PropagateError(
            f"the record of {pairings} pairings, {seeds:.3g} seeds and {layers} layers takes about "
            f"{needed / 1e9:.3g} GB and the machine has {free / 1e9:.0f} GB: use fewer seeds, "
            "layers or measures"
        )


def check_fits(net: Network, program: StackProgram, rows: int, at_once: int, slots: int) -> None:
    """Refuse what cannot fit into the machine before anything is spent on it.

    Raises:
        PropagateError: it does not fit.
    """
    needed = slots * bytes_needed(net, program, rows, at_once)
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise PropagateError(
            f"this needs about {needed / 1e9:.0f} GB and the machine has {free / 1e9:.0f} GB: "
            "use a smaller width, batch or block"
        )


def explained(error: Exception) -> Exception:
    """Return the error, with what to do about it where the device ran out of memory."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return PropagateError(
            "out of memory: use a smaller width, batch or block; "
            f"the device said: {str(error).splitlines()[0] if str(error) else 'no memory'}"
        )
    return error
