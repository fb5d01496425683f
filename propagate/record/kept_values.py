r"""Many values → their sums, apart from the program they are of, those of one shape together.

A program that is run once is mostly compiled. So it hands its values out, and they are summed here,
by the functions of `sums`:

    values of one shape, dtype and layout, few elements in all  ─▶  NumPy, float64, nothing compiled
    the same, many elements in all                              ─▶  one program, compiled once

    >>> x = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    >>> (sums,) = reduced([Kept(x, ("squares",), Layout(0, 1))])
    >>> float(sums["largest"]), float(sums["squares"])  # of x over its largest
    (5.0, 2.0)
"""

import functools
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from propagate.record.sums import Layout, keep, kept, reduce
from propagate.types import AnyArray

WORTH_A_PROGRAM = 2**23
"""Elements of one shape from which a program is compiled. NumPy sums 2^23 float32 in 0.4 s of one
core, all measures; a program for them is compiled in 0.4 to 0.5 s."""
THREADS = 2  # that sum on the host; more wait for the memory


class Kept(NamedTuple):
    """Values that are to be summed.

    Attributes:
        values: of one site, or of the turns of the scans around it.
        sums: the names of those wanted.
        layout: of the value in one turn.
        turns: how many leading axes number turns.
    """

    values: AnyArray
    sums: tuple[str, ...]
    layout: Layout
    turns: int = 0

    @property
    def kind(self) -> Hashable:
        """Return what values have in common that one program sums."""
        return self.values.shape, str(self.values.dtype), *self[1:]


def reduced(several: Sequence[Kept]) -> list[dict[str, Any]]:
    """Return the sums of each, on the host, with the axes of turns in front."""
    elements = Counter[Hashable]()
    for one in several:
        elements[one.kind] += one.values.size
    many = lambda one: elements[one.kind] >= WORTH_A_PROGRAM  # noqa: E731
    compiled = [many(one) or not one.values.size for one in several]
    running = {
        k: _program(one.sums, one.layout, one.turns)(one.values)
        for k, one in enumerate(several)
        if compiled[k]
    }
    with ThreadPoolExecutor(THREADS) as pool:
        summed = pool.map(_on_host, (one for k, one in enumerate(several) if not compiled[k]))
        others = list(summed)
    running, rest = jax.device_get(running), iter(others)
    return [running[k] if compiled[k] else next(rest) for k in range(len(several))]


@functools.lru_cache(maxsize=4096)
def _program(sums: tuple[str, ...], layout: Layout, turns: int) -> Any:
    """Return the program that sums values; it is compiled for each shape."""
    taken = functools.partial(reduce, sums=sums, layout=layout)
    for _ in range(turns):
        taken = jax.vmap(taken)
    return jax.jit(taken)


def _on_host(one: Kept) -> dict[str, Any]:
    own = np.asarray(one.values)
    around = own.shape[: one.turns]
    each = [kept(keep(np.asarray(own[turn])), one.sums, one.layout) for turn in np.ndindex(*around)]
    if not one.turns:
        return dict(each[0])
    stack = lambda *v: np.reshape(np.stack(v), around)  # noqa: E731
    return jax.tree.map(stack, *map(dict, each))
