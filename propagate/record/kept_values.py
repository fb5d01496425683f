r"""Many values → their sums, apart from the program they are of, those of one shape together.

A program that is run once is mostly compiled. So it hands its values out, as a training step hands
out samples of them, and they are summed here, by the functions of `sums`:

    values of one shape, dtype and layout, few elements in all  ─▶  NumPy, float64, nothing compiled
    the same, many elements in all, or not on a CPU             ─▶  one program, compiled once

    >>> x = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    >>> (sums,) = reduced([Kept(x, ("squares",), Layout(0, 1))])
    >>> float(sums["largest"]), float(sums["squares"])  # of x over its largest
    (5.0, 2.0)
"""

import functools
import os
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from propagate.record.samples import Sample
from propagate.record.sums import Ends, Layout, keep, kept, reduce
from propagate.types import AnyArray, UnusableInput

WORTH_A_PROGRAM = 2**23
"""Elements of one shape from which a program is compiled. NumPy sums 2^23 float32 in 0.4 s of one
core, all measures; a program for them is compiled in 0.4 to 0.5 s."""
KEPT_SHARE = 8  # of the memory: an eighth may hold values
UNKNOWN_MEMORY = 2**32  # bytes, where the system does not tell
THREADS = 2  # that sum on the host; more wait for the memory


class Kept(NamedTuple):
    """Values that are to be summed.

    Attributes:
        values: of one site, or of the turns of the scans around it.
        sums: the names of those wanted.
        layout: of the value in one turn.
        turns: how many leading axes number turns.
        sample: which part of a value in one turn they are; None: all of it.
    """

    values: AnyArray
    sums: tuple[str, ...]
    layout: Layout
    turns: int = 0
    sample: Sample | None = None

    @property
    def around(self) -> tuple[int, ...]:
        """Return the lengths of the scans around the site."""
        return self.values.shape[: self.turns]

    @property
    def ends(self) -> Ends | None:
        """Return the axis whose ends are in the sample."""
        return None if self.sample is None else self.sample.ends

    @property
    def kind(self) -> Hashable:
        """Return what values have in common that one program sums."""
        return self.values.shape, str(self.values.dtype), *self[1:]


def reduced(several: Sequence[Kept]) -> list[dict[str, Any]]:
    """Return the sums of each, on the host, with the axes of turns in front."""
    elements = Counter[Hashable]()
    for one in several:
        elements[one.kind] += one.values.size
    many = lambda one: elements[one.kind] >= WORTH_A_PROGRAM or _is_far(one.values)  # noqa: E731
    compiled = [many(one) or not one.values.size for one in several]
    running = {
        k: _program(one.sums, one.layout, one.turns, one.ends)(one.values)
        for k, one in enumerate(several)
        if compiled[k]
    }
    with ThreadPoolExecutor(THREADS) as pool:
        summed = pool.map(_on_host, (one for k, one in enumerate(several) if not compiled[k]))
        others = list(summed)
    running, rest = jax.device_get(running), iter(others)
    found = [running[k] if compiled[k] else next(rest) for k in range(len(several))]
    pairs = zip(several, found, strict=True)
    return [sums if one.sample is None else one.sample.whole(sums) for one, sums in pairs]


def _is_far(values: AnyArray) -> bool:
    """Return whether values are on a device from which fetching them takes longer than summing."""
    return isinstance(values, jax.Array) and any(d.platform != "cpu" for d in values.devices())


@functools.lru_cache(maxsize=4096)
def _program(sums: tuple[str, ...], layout: Layout, turns: int, ends: Ends | None) -> Any:
    """Return the program that sums values; it is compiled for each shape."""
    taken = functools.partial(reduce, sums=sums, layout=layout, ends=ends)
    for _ in range(turns):
        taken = jax.vmap(taken)
    return jax.jit(taken)


def _on_host(one: Kept) -> dict[str, Any]:
    own = np.asarray(one.values)
    values = [keep(np.asarray(own[turn])) for turn in np.ndindex(*one.around)]
    each = [kept(x, one.sums, one.layout, one.ends) for x in values]
    if not one.turns:
        return dict(each[0])
    stack = lambda *v: np.reshape(np.stack(v), one.around)  # noqa: E731
    return jax.tree.map(stack, *map(dict, each))


def room(kept_bytes: int | None) -> int:
    """Return how many bytes of values may be held: those given, or a share of the memory.

    Raises:
        UnusableInput: a negative number.
    """
    if kept_bytes is not None and kept_bytes < 0:
        raise UnusableInput(f"kept_bytes must be 0 or more, got {kept_bytes}")
    return _memory() // KEPT_SHARE if kept_bytes is None else kept_bytes


def _memory() -> int:
    """Return the bytes of the default device's memory."""
    held = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in held:
        return held["bytes_limit"]
    known = {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ()))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else UNKNOWN_MEMORY
