r"""What a layer family is: the parameters it has, and how it takes a signal to the next layer.

A family is an `(init, apply)` pair. `init` only describes the parameters, so that a sweep can draw
them once and share the draws; `apply` is one layer of one configuration, written with what `At`
offers: `product` multiplies by a weight, `phi` activates, `tap` and `note` record. The engine
batches it over configurations, scans it over depth and turns it round for the way back.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from propagate import registry
from propagate.activations import Activation
from propagate.initializers import Initializer
from propagate.measures import MEASURES, Measure, observe, power_of_two, q, rescale
from propagate.types import Array, Precision, Tree, UnusableInput, at_least_float32

Norm = Literal["none", "batch", "layer", "rms"]
NORM_EPS = 1e-5
Op = Callable[[Array, Array], Array]  # (weight, x) -> u, linear in both


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


class Fixed(NamedTuple):
    """What of a layer is known when it is compiled.

    Attributes:
        phis: the activations that a layer may have; the identity is the last.
        gains: 1/sqrt(Var phi(z)), z ~ N(0, 1), of each, where the family wants them.
        dtype: of weights and signals.
        precision: of products.
        data_scaled: whether products are scaled to unit variance (LSUV).
        measures: what is recorded of signals, by place.
        gradients: what is recorded of gradients within the layer, by place.
    """

    phis: tuple[Activation, ...]
    gains: tuple[float, ...]
    dtype: str
    precision: Precision
    data_scaled: bool
    measures: Mapping[str, tuple[Measure, ...]]
    gradients: Mapping[str, tuple[Measure, ...]]


class At:
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
            scale = _to_unit_variance(scale, run(weight, x))
        scale = scale.astype(at_least_float32(weight.dtype))
        slot = self._slots.get(gradient_of(name))
        if slot is None:
            return run(weight, x) * scale
        return _watched(run, self._fixed.gradients[gradient_of(name)], weight, x, scale, slot)

    def multiply(self, a: Array, b: Array) -> Array:
        """Return the matrix product of two signals, at the network's precision."""
        a, b = a.astype(self._fixed.dtype), b.astype(self._fixed.dtype)
        return matmul(b, a, self._fixed.precision)

    def bias(self, name: str, u: Array) -> Array:
        """Add a bias."""
        return u + self.params[name] * self._scale[name].astype(u.dtype)

    def phi(self, h: Array) -> Array:
        """Activate; the first activation of a layer is the one that is recorded.

        It is also the one that data goes past.
        """
        self._last, self._next = self._next, self._phi
        x, slope = _activated(self._fixed.phis, self._last, h.astype(self._fixed.dtype))
        if "activation" not in self.seen and self._fixed.measures.get("activation"):
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
        return x if slot is None else _tapped(self._fixed.gradients[gradient_of(place)], x, slot)

    def note(self, place: str, name: str, value: Callable[[], Array]) -> None:
        """Record a number under `place_name`, computed only if it is wanted."""
        if any(m.name == name for m in self._fixed.measures.get(place, ())):
            self.noted.setdefault(place, {})[name] = jax.lax.stop_gradient(value())


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of layers, and what any of them may have.

    Attributes:
        norm: normalisation without parameters, next to the activation: over the batch (train
            mode; of a convolution over its positions too), over the units of each input (and
            position), or by their rms.
        norm_at: whether it acts `"before"` the activation or `"after"` it.
        dropout: the share of activated units that is dropped; the rest is scaled up.

    A subclass says how its signals look (`signal`), which parameters a layer has (`init`) and what
    a layer does (`apply`).
    """

    norm: Norm = "none"
    norm_at: Literal["before", "after"] = "before"
    dropout: float = 0.0

    name: ClassVar[str]
    resizes: ClassVar[bool] = False  # whether a layer may change the number of units
    starts_with_phi: ClassVar[bool] = True  # so that data goes past the first activation
    wants_gain: ClassVar[bool] = False
    arrays: ClassVar[int] = 1  # of a signal's size that a layer keeps for the way back

    def __post_init__(self) -> None:
        registry.check_choice("norm", self.norm, Norm)
        registry.check_choice("norm_at", self.norm_at, ("before", "after"))
        registry.check_number("dropout", self.dropout)
        if not 0 <= self.dropout < 1:
            raise UnusableInput(f"dropout must lie in [0, 1), got {self.dropout:g}")

    def __str__(self) -> str:
        """Return the spelling that `propagate.blocks.family` reads."""
        fields = {f.name: f for f in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in fields}
        return registry.spell(self.name, {n: f.default for n, f in fields.items()}, values)

    def check(self, width: int, depth: int) -> None:
        """Raise `UnusableInput` if the family cannot be built at this width."""

    def signal(self, units: int) -> tuple[int, ...]:
        """Return the shape of one input's signal."""
        return (units,)

    def init(self, size: Size) -> dict[str, Parameter]:
        """Return the parameters of a layer."""
        raise NotImplementedError

    def apply(self, at: At, h: Array) -> Array:
        """Return a layer's h, (batch, *signal(fan_out)), from that of the layer before."""
        raise NotImplementedError

    def outputs(self, h: Array) -> Array:
        """Return what a loss sees of (batch, *signal): units, averaged over any positions."""
        return jnp.mean(h.reshape(h.shape[0], -1, h.shape[-1]), axis=1)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The statistics beside those of every stack."""
        return ()

    @property
    def table(self) -> tuple[Measure, ...]:
        """The statistics that its stacks have, those of the gradient of each weight included."""
        every = self.init(Size(1, 1, 1, 1)).items()
        weights = [gradient_of(name) for name, p in every if p.kind == "weight"]
        if len(weights) == 1:
            return (*MEASURES, *self.measures)
        return (*MEASURES, *self.measures, Measure("q", q, tuple(weights), power=2))

    @property
    def homogeneous(self) -> bool:
        """Whether scaling the input scales every signal alike if phi is homogeneous."""
        return self.norm == "none"

    def masks(self, size: Size, name: str = "mask") -> dict[str, Parameter]:
        """Return the parameter that `dropped` needs under a name, if any."""
        shape = (size.batch, *self.signal(size.fan_in))
        return {name: Parameter(shape, kind="uniform")} if self.dropout else {}

    def activated(self, at: At, h: Array, mask: str = "mask") -> Array:
        """Return phi(h), normalised and dropped out as the options say."""
        x = at.phi(normalise(self.norm, h) if self.norm_at == "before" else h)
        x = normalise(self.norm, x) if self.norm_at == "after" else x
        return self.dropped(at, x, mask)

    def dropped(self, at: At, x: Array, mask: str) -> Array:
        """Return x with a share of units dropped, the rest scaled up."""
        if not self.dropout:
            return x
        return jnp.where(at.params[mask] >= self.dropout, x / (1 - self.dropout), 0)


def normalise(norm: Norm, x: Array) -> Array:
    r"""Return $(x - m)/\sqrt{v + \epsilon}$ with the moments of `norm`; eps is 1e-5."""
    if norm == "none":
        return x
    axes = tuple(range(x.ndim - 1)) if norm == "batch" else (-1,)
    if norm != "rms":
        x = x - jnp.mean(x, axes, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axes, keepdims=True) + NORM_EPS)


def matmul(weight: Array, x: Array, precision: Precision) -> Array:
    """Return x W, summed in float32 or wider."""
    wide = at_least_float32(weight.dtype)
    return jnp.matmul(x, weight, precision=precision, preferred_element_type=wide)


def first_of(phis: tuple[Activation, ...], phi: Array, raw: Array) -> Array:
    """Return the index of a layer's first activation: the identity, if it takes data as it is."""
    return jnp.where(raw, len(phis) - 1, phi)


def gradient_of(name: str) -> str:
    """Return the place of a gradient."""
    return f"{name}_gradient"


def _statistics(measures: tuple[Measure, ...], x: Array) -> Tree:
    """Return the statistics of one array, all as floats."""
    seen = observe(rescale(x[None]), measures)
    return {name: value[0].astype(jnp.float32) for name, value in seen.items()}


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _watched(op: Op, measures, weight: Array, x: Array, scale: Array, slot: Tree) -> Array:
    """Multiply by scale·weight; the cotangent of `slot` is the statistic of the gradient."""
    return op(weight, x) * scale


def _watched_forward(op: Op, measures, weight, x, scale, slot):
    return op(weight, x) * scale, (weight, x, scale)


def _watched_back(op: Op, measures, kept, g):
    weight, x, scale = kept
    (into,) = jax.linear_transpose(partial(op, weight), x)(g * scale)
    (dw,) = jax.linear_transpose(lambda w: op(w, x), weight)(g)
    # undo the transposition that JAX's rule ends with: it costs a copy and changes no statistic
    return None, into, None, _statistics(measures, jnp.swapaxes(dw, -1, -2))


_watched.defvjp(_watched_forward, _watched_back)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tapped(measures, x: Array, slot: Tree) -> Array:
    """Return x; the cotangent of `slot` is the statistic of that of x."""
    return x


_tapped.defvjp(lambda measures, x, slot: (x, None), lambda m, _, g: (g, _statistics(m, g)))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _activated(phis: tuple[Activation, ...], index: Array, h: Array) -> tuple[Array, Array]:
    """Return phi(h) and phi'(h) of the activation of that index; only phi'(h) is kept."""

    def branch(phi: Activation):
        def run(h: Array) -> tuple[Array, Array]:
            x, slope = phi.with_slope(h)
            return x.astype(h.dtype), slope.astype(h.dtype)

        return run

    return jax.lax.switch(index, [branch(phi) for phi in phis], h)


@_activated.defjvp
def _activated_jvp(phis, primals, tangents):
    x, slope = _activated(phis, *primals)
    return (x, slope), (slope * tangents[1], jnp.zeros_like(slope))


def _to_unit_variance(scale: Array, u: Array) -> Array:
    """Return the scale that gives the product a standard deviation of `scale`."""
    y, k = rescale(jax.lax.stop_gradient(u)[None])
    std = jnp.std(y)
    return scale * power_of_two(-k[0], y.dtype) / jnp.where(std == 0, 1, std)


def whole(name: str, value: float) -> int:
    """Return a count that may have been spelled as a float.

    Raises:
        UnusableInput: it is not a whole number of at least 1.
    """
    count = int(value) if isinstance(value, float) and value == math.floor(value) else value
    registry.check_count(name, count)
    return int(count)
