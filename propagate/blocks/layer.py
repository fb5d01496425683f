"""What a family writes one layer with: products, biases, activations and what is recorded."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from propagate.activations import Activation
from propagate.blocks.gradient_taps import activated, matmul, tapped, to_unit_variance, watched
from propagate.blocks.parameters import Size, gradient_of
from propagate.record.measures import Measure
from propagate.types import Array, Precision, Tree, at_least_float32


class Fixed(NamedTuple):
    """What of a layer is known when it is compiled.

    Attributes:
        phis: the activations that a layer may have; the identity is the last.
        columns: which of them each configuration has, if they differ.
        gains: 1/sqrt(Var phi(z)), z ~ N(0, 1), of each, where the family wants them.
        dtype: of weights and signals.
        precision: of products.
        data_scaled: whether products are scaled to unit variance (LSUV).
        measures: what is recorded of signals, by place.
        gradients: what is recorded of gradients within the layer, by place.
    """

    phis: tuple[Activation, ...]
    columns: tuple[int, ...]
    gains: tuple[float, ...]
    dtype: str
    precision: Precision
    data_scaled: bool
    measures: Mapping[str, tuple[Measure, ...]]
    gradients: Mapping[str, tuple[Measure, ...]]


class LayerContext:
    """One layer of one configuration, as a block sees it.

    Attributes:
        size: fan_in, fan_out, depth and batch.
        params: the draws, by name.
        index: the layer's number, from 1.
        seen: arrays to take statistics of, by place; filled by `phi` and `tap`.
        noted: numbers to record, by place and name; filled by `note`.
    """

    def __init__(
        self,
        fixed: Fixed,
        size: Size,
        params: Mapping[str, Array],
        scale: Mapping[str, Array],
        phi: Array,
        raw: Array,
        index: Array,
        slots: Mapping[str, Tree],
    ) -> None:
        self.size, self.params, self.index = size, params, index
        self._fixed, self._scale, self._slots = fixed, scale, slots
        self._phi, self._next = phi, first_of(fixed.phis, phi, raw)
        self.seen: dict[str, Array] = {}
        self.noted: dict[str, dict[str, Array]] = {}

    def product(
        self, name: str, x: Array, op: Callable[..., Array] | None = None, prepare: Any = None
    ) -> Array:
        """Multiply by a weight; record the weight's gradient if it is wanted.

        Args:
            name: of the parameter.
            x: (batch, …, fan_in).
            op: `(weight, x, precision) -> u`, linear in both; a matrix product by default.
            prepare: from a draw to the weight that is used, which then is not scaled.
        """
        weight, scale = self.params[name], self._scale[name]
        if prepare is not None:
            weight, scale = prepare(weight), jnp.ones_like(scale)
        run = partial(op or matmul, precision=self._fixed.precision)
        x = x.astype(self._fixed.dtype)
        if self._fixed.data_scaled:
            scale = to_unit_variance(scale, run(weight, x))
        scale = scale.astype(at_least_float32(weight.dtype))
        slot = self._slots.get(gradient_of(name))
        if slot is None:
            return run(weight, x) * scale
        return watched(run, self._fixed.gradients[gradient_of(name)], weight, x, scale, slot)

    def multiply(self, a: Array, b: Array) -> Array:
        """Return the matrix product of two signals, at the network's precision."""
        a, b = a.astype(self._fixed.dtype), b.astype(self._fixed.dtype)
        return matmul(b, a, self._fixed.precision)

    def bias(self, name: str, u: Array) -> Array:
        """Add a bias."""
        b = self.params[name].astype(u.dtype) * self._scale[name].astype(u.dtype)
        return u + jnp.expand_dims(b, tuple(range(u.ndim - b.ndim)))

    def phi(self, h: Array) -> Array:
        """Activate; the first activation of a layer is the one that is recorded.

        It is also the one that data goes past.
        """
        self._last, self._next = self._next, self._phi
        fixed = self._fixed
        x, slope = activated(fixed.phis, fixed.columns, self._last, h.astype(fixed.dtype))
        if "activation" not in self.seen and fixed.measures.get("activation"):
            self.seen |= {"activation": x, "slope": slope}
        return x

    @property
    def gain(self) -> Array:
        """1/sqrt(Var phi(z)), z ~ N(0, 1), of the activation last applied."""
        return jnp.asarray(self._fixed.gains, jnp.float32)[self._last]

    def tap(self, place: str, x: Array) -> Array:
        """Record a signal and its gradient under the name of a place; return it."""
        if self._fixed.measures.get(place):
            self.seen[place] = x
        slot = self._slots.get(gradient_of(place))
        return x if slot is None else tapped(self._fixed.gradients[gradient_of(place)], x, slot)

    def note(self, place: str, name: str, value: Callable[[], Array]) -> None:
        """Record a number under `place_name`, computed only if it is wanted."""
        if any(m.name == name for m in self._fixed.measures.get(place, ())):
            self.noted.setdefault(place, {})[name] = jax.lax.stop_gradient(value())


def first_of(phis: tuple[Activation, ...], phi: Array, raw: Array) -> Array:
    """Return the index of a layer's first activation: the identity, if it takes data as it is."""
    return jnp.where(raw, len(phis) - 1, phi)
