"""The parameters of a layer: their shapes, fans and scales, before anything is drawn."""

import math
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
        init: an initialiser of its own, instead of the swept one.
        shared: whether all layers have the same one.
    """

    shape: tuple[int, ...]
    fan_in: int = 1
    fan_out: int = 1
    kind: Literal["weight", "bias", "noise", "uniform"] = "weight"
    factor: float = 1.0
    init: Initializer | None = None
    shared: bool = False

    def scale(self, swept: Initializer) -> float:
        """Return the factor on a draw."""
        init = self.init or swept
        if self.kind == "weight":
            return self.factor * init.scale(self.fan_in, self.fan_out)
        return self.factor * init.bias(self.fan_in, self.fan_out) if self.kind == "bias" else 1.0


@dataclass(frozen=True)
class LayerSpec:
    """A layer before anything is drawn: what it is made for, and the parameters that it has."""

    size: Size
    parameters: tuple[tuple[str, Parameter], ...]

    def own(self, *, shared: bool) -> dict[str, Parameter]:
        """Return its own parameters, or those that all layers share."""
        return {name: p for name, p in self.parameters if p.shared == shared}

    @property
    def weights(self) -> dict[str, Parameter]:
        """Its weights, by the place of their gradient."""
        return {gradient_of(name): p for name, p in self.parameters if p.kind == "weight"}

    def elements(self, *, shared: bool) -> int:
        """Return how many numbers its own parameters are, or those that all layers share."""
        return sum(math.prod(p.shape) for p in self.own(shared=shared).values())

    def scales(self, init: Initializer) -> tuple[float, ...]:
        """Return the factor on the draw of each parameter under an initialiser."""
        return tuple(p.scale(init) for _, p in self.parameters)


def bias(size: Size, **options: Any) -> Parameter:
    """Return the biases of a layer's outputs."""
    return Parameter((size.fan_out,), size.fan_in, size.fan_out, "bias", **options)


def gradient_of(name: str) -> str:
    """Return the place of a gradient."""
    return f"{name}_gradient"
