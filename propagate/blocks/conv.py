r"""Convolutions, $h_l = W_l * x_{l-1} + b_l$, of one and of two dimensions."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from propagate import checks
from propagate.blocks.contract import Family
from propagate.blocks.layer import LayerContext
from propagate.blocks.parameters import Parameter, Size, bias
from propagate.checks import whole_number
from propagate.record.measures import Measure
from propagate.record.statistics import channel_mean_q, channel_variance
from propagate.types import Array, Float, Precision, at_least_float32

Padding = Literal["circular", "zero"]
CHANNELS = (
    Measure("channel_mean_q", channel_mean_q, ("forward",), power=2, shaped=True),
    Measure("channel_variance", channel_variance, ("forward",), power=2, shaped=True),
)


@dataclass(frozen=True, kw_only=True)
class _Conv(Family):
    """A convolutional stack; the width is the number of channels, and fans count the kernel.

    Attributes:
        kernel: taps along each axis.
        padding: `"circular"`, as theory has it, or `"zero"`, which leaks at the borders.
        positions: along each axis.
    """

    kernel: int = 3
    padding: Padding = "circular"
    positions: int = 8

    axes: ClassVar[int]
    resizes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kernel", "positions"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        checks.check_choice("padding", self.padding, Padding)
        if self.padding == "circular":
            checks.check_at_most("kernel with circular padding", self.kernel, self.positions)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The statistics of channels."""
        return CHANNELS

    def signal(self, units: int) -> tuple[int, ...]:
        """Return (positions, …, channels)."""
        return (*(self.positions,) * self.axes, units)

    def init(self, size: Size) -> dict[str, Parameter]:
        """Return the kernel, the bias and any mask."""
        taps = self.kernel**self.axes
        shape = (*(self.kernel,) * self.axes, size.fan_in, size.fan_out)
        weight = Parameter(shape, taps * size.fan_in, taps * size.fan_out)
        own = bias(size._replace(fan_in=taps * size.fan_in))
        return {"weight": weight, "bias": own, **self.masks(size)}

    def apply(
        self, at: LayerContext, h: Float[Array, "batch *positions fan_in"]
    ) -> Float[Array, "batch *positions fan_out"]:
        """Return W * phi(h) + b."""
        return at.bias("bias", at.product("weight", self.activated(at, h), self.convolve))

    def convolve(self, kernel: Array, x: Array, precision: Precision) -> Array:
        """Return the convolution, as many positions out as in."""
        before, after = (self.kernel - 1) // 2, self.kernel // 2
        pads = [(before, after)] * self.axes
        if self.padding == "circular":
            x = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode="wrap")
            pads = [(0, 0)] * self.axes
        space = "HW"[: self.axes]
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1,) * self.axes,
            pads,
            dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
            precision=precision,
            preferred_element_type=at_least_float32(kernel.dtype),
        )


@dataclass(frozen=True, kw_only=True)
class Conv1d(_Conv):
    """A stack of convolutions over a line.

    Example:
        >>> Conv1d(kernel=5).init(Size(4, 8, 1, 1))["weight"].fan_in
        20
    """

    name: ClassVar[str] = "conv1d"
    axes: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True)
class Conv2d(_Conv):
    """A stack of convolutions over an image.

    Example:
        >>> Conv2d(padding="zero").init(Size(4, 8, 1, 1))["weight"].shape
        (3, 3, 4, 8)
    """

    name: ClassVar[str] = "conv2d"
    axes: ClassVar[int] = 2
