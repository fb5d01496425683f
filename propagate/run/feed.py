"""Random keys, inputs and targets of each seed."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from propagate import batches
from propagate.batches import Batch
from propagate.network import Network
from propagate.types import Array, InputKind, LossKind


@dataclass(frozen=True)
class Feed:
    """Where weights, inputs and targets come from: random keys, or data."""

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

    def layer_keys(self, seed: int) -> Array:
        """Return one key per layer."""
        return _layer_keys(self._seed(seed), self.net.depth)

    def inputs(self, seed: int) -> Array:
        """Return the batch."""
        if self.data is not None:
            return jnp.asarray(self.data.inputs, self.net.dtype)
        key = jax.random.fold_in(self._seed(seed), 1)
        x = batches.random(key, self.kind, self.size, self._features(0), self.cosine)
        return x.astype(self.net.dtype)

    def target(self, seed: int) -> Array:
        """Return the cotangent of the outputs, or what the loss compares them with."""
        if self.loss != "gaussian":
            assert self.data is not None and self.data.labels is not None
            labels = jnp.asarray(self.data.labels)
            return labels if self.loss == "cross_entropy" else labels.reshape(len(labels), -1)
        key = jax.random.fold_in(self._seed(seed), 2)
        return jax.random.normal(key, (self.size, self._features(-1)))

    def shared_key(self, seed: int) -> Array:
        """Return the key of what all layers share."""
        return jax.random.fold_in(self._seed(seed), 3)

    def _features(self, end: int) -> int:
        return math.prod(self.net.family.signal(self.net.shapes[end][end]))

    def _seed(self, seed: int) -> Array:
        return jax.random.fold_in(self.key, seed)


@functools.partial(jax.jit, static_argnums=1)
def _layer_keys(key: Array, depth: int) -> Array:
    key = jax.random.fold_in(key, 0)
    return jax.vmap(lambda layer: jax.random.fold_in(key, layer))(jnp.arange(depth))
