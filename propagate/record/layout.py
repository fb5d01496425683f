"""Which axes of a value are what: inputs, positions, units; and of which positions it consists.

>>> layout = Layout(batch=0, unit=1)  # of a picture, channels first
>>> layout.of((8, 64, 32, 32))
Sizes(inputs=8, positions=1024, units=64)
>>> layout.lay(np.zeros((8, 64, 32, 32))).shape
(8, 1024, 64)
"""

from typing import NamedTuple

import numpy as np

from propagate.types import AnyArray, Float

Laid = Float[AnyArray, "batch positions units"]


class Sizes(NamedTuple):
    """How many inputs, positions and units a value has."""

    inputs: int
    positions: int
    units: int

    @property
    def elements(self) -> int:
        """Return how many numbers that is."""
        return self.inputs * self.positions * self.units


class Layout(NamedTuple):
    """Which axes of a value are what.

    Attributes:
        batch: the axis of the inputs; None: it is a value of all of them together.
        unit: the axis of the channels or features; every other axis is one of positions.
    """

    batch: int | None
    unit: int

    def of(self, shape: tuple[int, ...]) -> Sizes:
        """Return the sizes of a shape."""
        if not shape:
            return Sizes(1, 1, 1)
        inputs = 1 if self.batch is None else shape[self.batch]
        units = shape[self.unit] if self.unit != self.batch else 1
        return Sizes(inputs, int(np.prod(shape)) // max(inputs * units, 1), units)

    def lay(self, x: AnyArray) -> Laid:
        """Return the value as (inputs, positions, units)."""
        if not x.ndim:
            return x.reshape(1, 1, 1)
        ends = [k for k in (self.batch,) if k is not None], [self.unit] * (self.unit != self.batch)
        middle = [k for k in range(x.ndim) if k not in (*ends[0], *ends[1])]
        return x.transpose(*ends[0], *middle, *ends[1]).reshape(self.of(x.shape))

    def heads(self, axes: int) -> int | None:
        """Return the axis of heads: the first of several of positions."""
        batch = -1 if self.batch is None else self.batch
        return (
            next((k for k in range(axes) if k not in (batch, self.unit)), None)
            if axes > 3
            else None
        )

    def by_head(self, x: AnyArray) -> AnyArray:
        """Return the value as (heads, inputs × positions, units): heads are the first positions."""
        head = self.heads(x.ndim)
        heads = [] if head is None else [head]
        others = [k for k in range(x.ndim) if k not in (*heads, self.unit)]
        units = [self.unit] if x.ndim else []
        laid = x.transpose(*heads, *others, *units)
        return laid.reshape(laid.shape[0] if heads else 1, -1, laid.shape[-1] if units else 1)


class Ends(NamedTuple):
    """An axis of positions whose first and last are in a sample, beside some of the others.

    Attributes:
        axis: which.
        weights: what each position along it counts, as many in all as there are.
    """

    axis: int
    weights: tuple[float, ...]

    def along(self, x: AnyArray) -> np.ndarray:
        """Return the weights in the shape that multiplies x."""
        shape = [-1 if k == self.axis else 1 for k in range(x.ndim)]
        return np.asarray(self.weights, x.dtype).reshape(shape)

    def cut(self, x: AnyArray) -> AnyArray:
        """Return what is between the ends: the positions that stand for others."""
        return x[(*(slice(None),) * self.axis, slice(1, -1))]
