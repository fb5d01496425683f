"""What is compiled for a stack, and the numbers it is fed.

    StackProgram(family, activations, stretches, selection, …)   hashable: one compilation
    Numbers(layers=(Layer(draw, scale, phi, raw, index), …), inputs, target, …)   traced

A layer of configuration c multiplies by scale[c] · draw: configurations share their draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from propagate.activations import Activation
from propagate.blocks.contract import Family
from propagate.blocks.layer import Fixed
from propagate.blocks.parameters import LayerSpec, Parameter
from propagate.distributions import NORMAL, Base
from propagate.record.measures import Measure, Selection
from propagate.types import Array, LossKind, Place, Precision, at_least_float32

Draw = dict[str, Array]  # a layer's parameters before scaling, by name
LOST = -60  # binary places below the largest, where a share of a sum is none


@dataclass(frozen=True)
class Stretch:
    """Consecutive layers of one kind, `chunks * length` of them."""

    spec: LayerSpec
    chunks: int
    length: int

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.chunks * self.length


@dataclass(frozen=True)
class StackProgram:
    """What is compiled: everything that is fixed before the numbers arrive.

    Attributes:
        family: the kind of layer.
        activations: the branches; a layer's `phi` is an index into them.
        columns: the activation of each configuration where a block has several; else none, and
            one traced index picks that of the whole block.
        gains: of the activations, where the family wants them.
        stretches: the stack, cut into stretches of equal layers.
        selection: the statistics.
        loss: where the backward pass starts from.
        base: the distribution of the weights, if layers draw their own; None if they are passed.
        data_scaled: whether products are scaled to unit variance (LSUV).
        batch: the number of inputs.
        dtype: of weights and signals.
        precision: of the products.
    """

    family: Family
    activations: tuple[Activation, ...]
    columns: tuple[int, ...]
    gains: tuple[float, ...]
    stretches: tuple[Stretch, ...]
    selection: Selection
    loss: LossKind
    base: Base | None
    data_scaled: bool
    batch: int
    dtype: str
    precision: Precision

    def fixed(self, part: Stretch) -> Fixed:
        """Return what a layer of a stretch knows."""
        return Fixed(
            self.activations,
            self.columns,
            self.gains,
            self.dtype,
            self.precision,
            self.data_scaled,
            dict(self.selection),
            self.slots(part),
        )

    def measures(self, place: Place) -> tuple[Measure, ...]:
        """Return the statistics taken of `place`."""
        return dict(self.selection).get(place, ())

    def slots(self, part: Stretch) -> dict[str, tuple[Measure, ...]]:
        """Return the statistics of gradients within a layer: of its weights, and of its taps."""
        total, found = self.measures("weight_gradient"), {}
        for place in part.spec.weights:
            if total or self.measures(place):
                found[place] = self.measures(place) or total
        taps = {p: ms for p, ms in self.selection if p.endswith("_gradient") and ms}
        return found | {p: ms for p, ms in taps.items() if p != "weight_gradient"}


class Layer(NamedTuple):
    """One layer of a block; stacked along a leading axis, a stretch of them."""

    draw: Draw | Array  # or the key to draw it with
    scale: dict[str, Array]  # (C,) factors on the draws
    phi: Array  # () index of the activation, or (C,) where they differ
    raw: Array  # () whether its first activation is left out, as of data
    index: Array  # () from 1


class Numbers(NamedTuple):
    """The numbers of one block."""

    layers: tuple[Layer, ...]  # per stretch, stacked over its layers
    shared: Draw  # what all layers have in common
    homogeneous: Array  # (C,) whether the signal may be rescaled on its way
    inputs: Array  # (B, input features)
    target: Array  # (B, output features) cotangent or regression target, or (B,) labels


def draw(base: Base, parameters: Mapping[str, Parameter], dtype: str, key: Array) -> Draw:
    """Return a layer's parameters before scaling.

    They are drawn in float32 or wider and then rounded, so that dtypes share their draws.
    """
    wide = at_least_float32(dtype)

    def one(k: int, p: Parameter) -> Array:
        own = jax.random.fold_in(key, k) if k else key
        if p.kind == "uniform":
            return jax.random.uniform(own, p.shape, wide)
        own_base = p.init.base if p.init else base
        of = {"weight": own_base, "bias": own_base.biases, "noise": NORMAL}[p.kind]
        return jnp.asarray(of.sample(own, p.shape, wide), dtype)

    return {name: one(k, p) for k, (name, p) in enumerate(parameters.items())}
