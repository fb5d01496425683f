"""Where weights, inputs and targets come from: random keys, or data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from propagate import batches
from propagate.batches import Batch
from propagate.network import Network
from propagate.types import Array, InputKind, LossKind


@dataclass(frozen=True)
class Feed:
    """The random streams and the data of a sweep; everything random of a seed follows from its key.

    Attributes:
        net: the network that is fed.
        key: of the sweep, from which those of its seeds follow.
        data: inputs and labels, or None for random inputs.
        kind: of random inputs.
        batch: random inputs of a seed.
        cosine: expected cosine between random inputs, of pairs.
        loss: where the gradient starts.
    """

    net: Network
    key: Array
    data: Batch | None
    kind: InputKind
    batch: int
    cosine: float
    loss: LossKind

    @property
    def size(self) -> int:
        """The number of inputs."""
        return self.batch if self.data is None else len(self.data.inputs)

    @property
    def raw(self) -> bool:
        """Whether the input goes into the first weights as it is, without the activation."""
        activated = self.net.activate_input
        if not self.net.family.starts_with_phi:
            return False
        return self.data is not None if activated is None else not activated

    @property
    def recipe(self) -> "Recipe":
        """What is drawn of each seed, without the numbers."""
        kind = None if self.data is not None else self.kind
        target = self.loss == "gaussian"
        ends = self._features(0), self._features(-1)
        return Recipe(kind, self.size, *ends, self.cosine, target, self.net.dtype)

    def seed_keys(self, seeds: Sequence[Sequence[int]]) -> Array:
        """Return the key of each seed, in the shape of `seeds`."""
        return _folded(self.key, jnp.asarray(seeds, jnp.uint32))

    def layer_keys(self, seed: int) -> Array:
        """Return one key per layer."""
        return layer_keys(self.seed_key(seed), self.net.depth)

    def inputs(self, seed: int) -> Array:
        """Return the batch, (B, features)."""
        if self.data is not None:
            return jnp.asarray(self.data.inputs, self.net.dtype)
        return self.recipe.inputs(self.seed_key(seed))

    def target(self, seed: int) -> Array:
        """Return the cotangent of the outputs, or what the loss compares them with."""
        if self.loss == "gaussian":
            return self.recipe.target(self.seed_key(seed))
        assert self.data is not None and self.data.labels is not None
        labels = jnp.asarray(self.data.labels)
        return labels if self.loss == "cross_entropy" else labels.reshape(len(labels), -1)

    def shared_key(self, seed: int) -> Array:
        """Return the key of what all layers share."""
        return shared_key(self.seed_key(seed))

    def _features(self, end: int) -> int:
        return math.prod(self.net.family.signal(self.net.shapes[end][end]))

    def seed_key(self, seed: int) -> Array:
        """Return the key of a seed."""
        return jax.random.fold_in(self.key, seed)


@dataclass(frozen=True)
class Recipe:
    """What of a feed is drawn, and how: hashable, so that a program can be compiled for it."""

    kind: InputKind | None  # None where the inputs are data
    batch: int
    features: int
    outputs: int
    cosine: float
    cotangent: bool  # whether the target is drawn
    dtype: str

    def inputs(self, seed_key: Array) -> Array:
        """Return random inputs, (B, features)."""
        assert self.kind is not None
        key = jax.random.fold_in(seed_key, 1)
        x = batches.random(key, self.kind, self.batch, self.features, self.cosine)
        return x.astype(self.dtype)

    def target(self, seed_key: Array) -> Array:
        """Return a random cotangent, (B, outputs)."""
        return jax.random.normal(jax.random.fold_in(seed_key, 2), (self.batch, self.outputs))


def layer_keys(seed_key: Array, depth: int) -> Array:
    """Return one key per layer, of a seed."""
    key = jax.random.fold_in(seed_key, 0)
    return jax.vmap(lambda layer: jax.random.fold_in(key, layer))(jnp.arange(depth))


def shared_key(seed_key: Array) -> Array:
    """Return the key of what all layers share, of a seed."""
    return jax.random.fold_in(seed_key, 3)


@jax.jit
def _folded(key: Array, seeds: Array) -> Array:
    return jax.vmap(jax.vmap(lambda seed: jax.random.fold_in(key, seed)))(seeds)
