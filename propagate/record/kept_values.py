r"""Many values → their sums, apart from the program they are of, those of one shape together.

A program that is run once is mostly compiled. So it hands its values out, and they are summed here,
by the functions of `sums`:

    values of one shape, dtype and layout, few elements in all  ─▶  NumPy, float64, nothing compiled
    the same, many elements in all                              ─▶  one program, compiled once
    samples, within a jitted step (`stacked`)                   ─▶  one reduction for each shape

    >>> x = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    >>> (sums,) = reduced([Kept(x, ("squares",), Layout(0, 1))])
    >>> float(sums["largest"]), float(sums["squares"])  # of x over its largest
    (5.0, 2.0)
"""

import functools
import math
import os
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from propagate.record.samples import Sample
from propagate.record.sums import Ends, Layout, Sums, keep, kept, reduce
from propagate.types import AnyArray, UnusableInput

WORTH_A_PROGRAM = 2**23
"""Elements of one shape from which a program is compiled. NumPy sums 2^23 float32 in 0.4 s of one
core, all measures; a program for them is compiled in 0.4 to 0.5 s."""
FEW_IN_ALL = 2**18
"""Numbers of one kind that leave a jitted step as they are: 1 MB, for 0.2 to 0.5 s of compilation
that a reduction takes."""
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

    @property
    def alike(self) -> Hashable:
        """Return what values have in common that are stacked, turn by turn."""
        return self.values.shape[self.turns :], str(self.values.dtype), self.layout, self.ends


def reduced(several: Sequence[Kept]) -> list[dict[str, Any]]:
    """Return the sums of each, on the host, with the axes of turns in front."""
    elements = Counter[Hashable]()
    for one in several:
        elements[one.kind] += one.values.size
    many = lambda one: elements[one.kind] >= WORTH_A_PROGRAM  # noqa: E731
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


class Member(NamedTuple):
    """Where the sums of a value are that leave a program.

    Attributes:
        stack: the number of the stack; None: the values themselves leave it.
        start: of the value's first turn in the stack.
        around: the lengths of the scans around it.
        sums: the names of those wanted.
        layout: of the value in one turn.
        sample: which part of the value is taken; None: all of it.
    """

    stack: int | None
    start: int
    around: tuple[int, ...]
    sums: tuple[str, ...]
    layout: Layout
    sample: Sample | None

    def of(self, stacks: Sequence[Any], stats: Sums) -> dict[str, Any]:
        """Return the sums, on the host, as they are expected of the whole value.

        Args:
            stacks: of `stacked`.
            stats: what was recorded of the value itself.
        """
        if self.stack is None:
            values = Kept(stats["values"], self.sums, self.layout, len(self.around), self.sample)
            own = _on_host(values)
        else:
            rows = slice(self.start, self.start + math.prod(self.around))
            taken = {name: stacks[self.stack][name] for name in ("largest", *self.sums)}
            own = jax.tree.map(lambda v: np.asarray(v)[rows].reshape(self.around), taken)
        return own if self.sample is None else self.sample.whole(own)


def stacked(several: Sequence[Kept]) -> tuple[tuple[dict[str, Any], ...], list[Member]]:
    """Return sums within the program that has the values: one reduction for each kind.

    Signals and gradients of one shape go together, so that each has the sums that any of them asks
    for: what is compiled is a program for each shape, however many values have it.

    Returns:
        A stack of sums for each kind, and where those of each value are. A kind with few numbers in
        all is left to the host.
    """
    groups: dict[Hashable, list[Kept]] = {}
    for one in several:
        groups.setdefault(one.alike, []).append(one)
    stacks, places = [], dict[int, tuple[int | None, int]]()
    for group in groups.values():
        if sum(one.values.size for one in group) <= FEW_IN_ALL:
            places |= {id(one): (None, 0) for one in group}
            continue
        # slopes, signals, gradients: the last ask for what nearly all ask for
        group.sort(key=lambda one: (one.sums != ("flat",), -len(one.sums)))
        starts = np.cumsum([0, *(math.prod(one.around) for one in group)])
        places |= {id(one): (len(stacks), int(k)) for one, k in zip(group, starts, strict=False)}
        together = _together(_asked(group, starts[1:]), group[0].layout, group[0].ends)
        stacks.append(together([_rows(one) for one in group]))
    where = [Member(*places[id(k)], k.around, k.sums, k.layout, k.sample) for k in several]
    return tuple(stacks), where


def _rows(one: Kept) -> AnyArray:
    """Return the values with their turns along the first axis."""
    return one.values.reshape(-1, *one.values.shape[one.turns :])


def _asked(group: Sequence[Kept], ends: Any) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Return the sums that the last of a group asks for, of all rows, and others, of those before.

    As gradients have fewer statistics than signals.
    """
    until = {name: int(end) for one, end in zip(group, ends, strict=True) for name in one.sums}
    every = tuple(name for name, end in until.items() if end == ends[-1])
    others = tuple(name for name in until if name not in every)
    most = max((until[name] for name in others), default=0)
    return ((int(ends[-1]), every), *(((most, others),) if others else ()))


@functools.lru_cache(maxsize=4096)
def _together(
    asked: tuple[tuple[int, tuple[str, ...]], ...], layout: Layout, ends: Ends | None
) -> Any:
    """Return the program that sums rows of values, some sums of the first of them alone."""

    @jax.jit
    def together(values: list[AnyArray]) -> dict[str, Any]:
        rows, found = jax.numpy.concatenate(values), {}
        for count, sums in reversed(asked):
            taken = functools.partial(reduce, sums=sums, layout=layout, ends=ends)
            found |= jax.vmap(taken)(rows[:count])
        return found

    return together


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
