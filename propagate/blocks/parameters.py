"""The parameters of a layer: their shapes, fans and scales, before anything is drawn."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from propagate.initializers import Initializer


class Size(NamedTuple):
    """What a layer is made for."""

    fan_in: int
    fan_out: int
    depth: int
    batch: int


@dataclass(frozen=True)
class Parameter:
    """One parameter of a layer.

    Attributes:
        shape: of the array; a weight's last axis is its outputs.
        fan_in: terms in a sum that makes one output.
        fan_out: outputs that one input reaches.
        kind: a `"weight"` and a `"bias"` follow the initialiser's law; `"noise"` is N(0, 1) and
            `"uniform"` U(0, 1), of the layer's own and not part of its scale.
        factor: on the initialiser's scale.
        law: one of its own, instead of the initialiser's.
        shared: whether all layers have the same one.
    """

    shape: tuple[int, ...]
    fan_in: int = 1
    fan_out: int = 1
    kind: Literal["weight", "bias", "noise", "uniform"] = "weight"
    factor: float = 1.0
    law: Initializer | None = None
    shared: bool = False

    def scale(self, swept: Initializer) -> float:
        """Return the factor on a draw."""
        law = self.law or swept
        if self.kind == "weight":
            return self.factor * law.scale(self.fan_in, self.fan_out)
        return self.factor * law.bias(self.fan_in, self.fan_out) if self.kind == "bias" else 1.0


def bias(size: Size, **options: Any) -> Parameter:
    """Return the biases of a layer's outputs."""
    return Parameter((size.fan_out,), size.fan_in, size.fan_out, "bias", **options)


def gradient_of(name: str) -> str:
    """Return the place of a gradient."""
    return f"{name}_gradient"
