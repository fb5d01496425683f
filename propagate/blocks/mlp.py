r"""Fully connected layers, $h_l = x_{l-1} W_l + b_l$ for rows $x$."""

from dataclasses import dataclass
from typing import ClassVar

from propagate.blocks.contract import Family
from propagate.blocks.layer import LayerContext
from propagate.blocks.parameters import Parameter, Size, bias
from propagate.types import Array, Float


@dataclass(frozen=True, kw_only=True)
class Mlp(Family):
    """A fully connected stack.

    Example:
        >>> str(Mlp(norm="batch"))
        'mlp(norm=batch)'
    """

    name: ClassVar[str] = "mlp"
    resizes: ClassVar[bool] = True

    def init(self, size: Size) -> dict[str, Parameter]:
        """Return the weight, the bias and any mask."""
        weight = Parameter((size.fan_in, size.fan_out), size.fan_in, size.fan_out)
        return {"weight": weight, "bias": bias(size), **self.masks(size)}

    def apply(
        self, at: LayerContext, h: Float[Array, "batch fan_in"]
    ) -> Float[Array, "batch fan_out"]:
        """Return phi(h) W + b."""
        return at.bias("bias", at.product("weight", self.activated(at, h)))
