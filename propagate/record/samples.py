r"""A sample of a value: some of its inputs and positions, every unit of each.

A value of (inputs, positions, units) has far more numbers than its statistics need. A sample keeps
whole units, so that every statistic can be estimated, and takes inputs and positions at equal
distances. Of a sequence it takes the first and the last position as well, each of which counts for
itself alone: a model that reads one of these has its whole gradient there.

    >>> one = sample((64, 128, 256), Layout(0, 2), 2**14)
    >>> [None if index is None else len(index) for index in one.index], one.numbers
    ([8, 8, None], 16384)
    >>> one.index[1], [round(w, 3) for w in one.ends.weights[:3]]
    ((0, 11, 32, 53, 74, 95, 116, 127), [0.062, 1.312, 1.312])
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.record.statistics import ROWS
from propagate.record.sums import OVER_ALL, Ends, Layout, Sizes, Sums
from propagate.types import Array

INPUTS = 8  # of a sample, where there are positions to leave out, or fewer where there are none
FEWEST = 4  # inputs, and positions along an axis, of a sample, where a value has as many
AT_ONCE = 16  # inputs times positions that one product takes, rather than one for each axis
Index = tuple[int, ...] | None


class Sample(NamedTuple):
    """Which part of a value is looked at.

    Attributes:
        shape: of the whole value.
        layout: likewise.
        index: along each axis, what is taken; None: all.
        ends: the axis whose ends are among it, and what each position along it counts.
    """

    shape: tuple[int, ...]
    layout: Layout
    index: tuple[Index, ...]
    ends: Ends | None

    @property
    def _axes(self) -> list[tuple[int, Index]]:
        return list(zip(self.shape, self.index, strict=True))

    @property
    def taken(self) -> tuple[int, ...]:
        """Return the shape of the sample."""
        return tuple(n if index is None else len(index) for n, index in self._axes)

    @property
    def numbers(self) -> int:
        """Return how many numbers it has."""
        return math.prod(self.taken)

    def of(self, x: Array) -> Array:
        """Return the sample of a value."""
        kept = {k: index for k, index in enumerate(self.index) if index}
        # what leaves most out first, so that what is between is small
        axes = dict(sorted(kept.items(), key=lambda one: len(one[1]) / self.shape[one[0]]))
        if jax.default_backend() == "cpu" and x.dtype.itemsize >= 4:
            return self._by_products(x, axes)
        for k, index in axes.items():
            x = _gather(x, k, index)
        return x

    def _by_products(self, x: Array, axes: dict[int, tuple[int, ...]]) -> Array:
        """Return the sample as a product with a matrix of zeros and ones.

        On a CPU such a product is ready-made, where a gather is a program of its own for each site.
        So what is not finite in a row that was not taken makes the whole column NaN.
        """
        first, second = axes.get(0), axes.get(1)
        if first and second and len(first) * len(second) <= AT_ONCE:
            rows = np.add.outer(np.multiply(first, self.shape[1]), second).ravel()
            taken = _product(x.reshape(-1, *x.shape[2:]), 0, tuple(rows.tolist()))
            x = taken.reshape(len(first), len(second), *x.shape[2:])
            del axes[0], axes[1]
        for k, index in axes.items():
            x = _product(x, k, index)
        return x

    def whole(self, sums: Sums) -> dict[str, Any]:
        """Return sums of the whole value, as they are expected from those of the sample.

        A mean over the sample is that over all. The sum of squares about the mean over inputs has
        one degree of freedom less than there are inputs, in both. A participation ratio r of m rows
        is $m/(1 + (m-1) c^2)$ with the mean squared cosine $c^2$, which holds for any m.
        """
        own, full = self.layout.of(self.taken), self.layout.of(self.shape)
        inner = self._inner()
        ratio = full.elements / own.elements
        found: dict[str, Any] = {k: ratio * _wide(v) for k, v in sums.items() if k in COUNTED}
        with np.errstate(all="ignore"):
            if "spread" in found:
                b, every = own.inputs, full.inputs
                found["spread"] = found["spread"] * (b * (every - 1) / ((b - 1) * every or np.nan))
            if "token_cosines" in sums:
                ratio = full.inputs / own.inputs
                found["token_cosines"] = tuple(ratio * v for v in map(_wide, sums["token_cosines"]))
            if "directions" in sums:
                looked = [_spread(n, ROWS) for n in (own.inputs, full.inputs)]
                found["directions"] = _more_rows(*map(_wide, sums["directions"]), *looked)
            if "token_directions" in sums:
                looked = [_spread(n, ROWS) for n in (inner.positions, full.positions)]
                ratio = _wide(sums["token_directions"])
                rows, squared = _more_rows(looked[0] + 0 * ratio, looked[0] ** 2 / ratio, *looked)
                found["token_directions"] = rows**2 / squared
        return dict(sums) | found

    def _inner(self) -> Sizes:
        """Return the sizes without the ends."""
        shape = list(self.taken)
        if self.ends is not None:
            shape[self.ends.axis] -= 2
        return self.layout.of(tuple(shape))


COUNTED = (*OVER_ALL, "spread", "subnormal")


def sample(
    shape: Sequence[int], layout: Layout, numbers: int, whole: int | None = None
) -> Sample | None:
    """Return a sample of about so many numbers; None if that is all of them.

    Args:
        shape: of the value.
        layout: which axes are those of inputs and units.
        numbers: how many to keep; whole units, and a few inputs and positions, whatever it is.
        whole: an axis to keep, such as that of heads.
    """
    shape, sizes, kept = tuple(shape), layout.of(tuple(shape)), list(shape)
    if sizes.elements <= numbers:
        return None
    positions = [k for k in range(len(shape)) if k not in (layout.batch, layout.unit)]
    if layout.batch is not None:
        room = numbers // (sizes.positions * sizes.units)
        kept[layout.batch] = min(sizes.inputs, max(INPUTS, room))
    while math.prod(kept) > numbers:
        longer = [k for k in positions if kept[k] > FEWEST and k != whole]
        if not longer and layout.batch is not None and kept[layout.batch] > FEWEST:
            longer = [layout.batch]
        if not longer:
            break
        k = max(longer, key=lambda k: kept[k])
        kept[k] = max(-(-kept[k] // 2), FEWEST)
    fewer = [k for k in positions if kept[k] < shape[k]]
    axis = fewer[0] if len(fewer) == 1 and kept[fewer[0]] >= FEWEST else None
    pairs = [(n, m, k == axis) for k, (n, m) in enumerate(zip(shape, kept, strict=True))]
    index = tuple(None if m == n else _at(n, m, ends=ends) for n, m, ends in pairs)
    if not any(index):
        return None
    ends = None if axis is None else Ends(axis, _weights(shape[axis], kept[axis]))
    return Sample(shape, layout, index, ends)


def _at(n: int, m: int, *, ends: bool) -> tuple[int, ...]:
    """Return the middles of m equal parts of n, or the ends and those of what is between."""
    if ends:
        return (0, *(1 + k for k in _at(n - 2, m - 2, ends=False)), n - 1)
    return tuple(int((k + 0.5) * n / m) for k in range(m))


def _weights(n: int, m: int) -> tuple[float, ...]:
    """Return what each of m positions counts, m in all, where the ends stand for themselves."""
    inner = (n - 2) / (m - 2)
    return tuple(w * m / n for w in (1.0, *[inner] * (m - 2), 1.0))


def _product(x: Array, axis: int, index: tuple[int, ...]) -> Array:
    before = x.shape[:axis]
    picks = np.zeros((len(index), x.shape[axis]), x.dtype)
    picks[np.arange(len(index)), index] = 1
    batch = tuple(range(axis))
    dims = ((axis + 1,), (axis,)), (batch, batch)
    picks = jnp.broadcast_to(jnp.asarray(picks), (*before, *picks.shape))
    return jax.lax.dot_general(picks, x, dims, precision=jax.lax.Precision.HIGHEST)


def _gather(x: Array, axis: int, index: tuple[int, ...]) -> Array:
    at = np.asarray(index, np.int32)
    return jnp.take(x, at, axis, mode="clip", unique_indices=True, indices_are_sorted=True)


def _wide(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def _spread(n: int, most: int) -> int:
    """Return how many of n slices `spread_out` takes."""
    return len(range(0, n, max(-(-n // most), 1)))


def _more_rows(rows: Any, squared: Any, looked: Any, wanted: Any) -> tuple[Any, Any]:
    """Return the rows and tr G^2 that `wanted` rows would have, of those of `looked`."""
    alike = (squared - rows) / (rows * (rows - 1))
    rows = rows * (wanted / looked)
    return rows, rows + rows * (rows - 1) * alike
