r"""The one forward scan and the one backward scan, for every family of layers.

    h_0 ──▶ h_1 ──▶ h_2        forward: each layer emits its statistics and keeps phi'(h)
    g_0 ◀── g_1 ◀── g_2        backward: each layer's vjp is fed with what it kept

    >>> from propagate.network import Network
    >>> from propagate.record.measures import select
    >>> from propagate.run import pairings, plan
    >>> net = Network(depth=2, width=4)
    >>> (block,) = pairings.blocks_of(net, [net.init], 1, pairings.Grouping())
    >>> made = plan.program(net, [net.activation], block, select(("q",)), "gaussian", 3)
    >>> weights = {"weight": jnp.ones((2, 4, 4)), "bias": jnp.zeros((2, 4))}
    >>> scale = {"weight": jnp.full((2, 1), 0.25), "bias": jnp.zeros((2, 1))}
    >>> layers = Layer(weights, scale, jnp.zeros(2, int), jnp.zeros(2, bool), jnp.arange(1, 3))
    >>> x = jnp.full((3, 4), 8.0)
    >>> seen = run(made, Numbers((layers,), {}, jnp.zeros(1, bool), x, x / 8))
    >>> q, exponent = seen["forward"]["q"], seen["forward"]["exponent"]
    >>> (q * power_of_two(2 * exponent, q.dtype)).ravel().tolist()
    [64.0, 64.0, 64.0]
    >>> q, exponent = seen["backward"]["q"], seen["backward"]["exponent"]
    >>> (q * power_of_two(2 * exponent, q.dtype)).ravel().tolist()
    [1.0, 1.0, 1.0]

A *block* is C configurations that share their base weights and differ in scale, or also in their
activation. They pass through a layer together: the family's `apply`, batched over configurations,
so that products stay one tall product with a scale per configuration. For the way back a layer
keeps what its vjp needs, phi'(h) above all, but not its weights, which come again.

Signals and gradients travel as y · 2^k with max|y| next to 1. The backward pass is linear, so g
never needs its 2^k back; nor does h where the layers are positively homogeneous.
Nothing but the statistics leaves the program: O(depth) numbers.

Deep stacks trade time for memory in two ways, chosen by `plan.program`: a stretch of layers may be
cut into `chunks` whose insides are computed again on the way back, and weights may be drawn from
their keys within the scan instead of being kept.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from propagate.blocks.layer import LayerContext, first_of
from propagate.blocks.parameters import Parameter
from propagate.record.scaled import Scaled, observe, per_config, power_of_two, rescale
from propagate.run.program import LOST, Draw, Layer, Numbers, StackProgram, Stretch, draw
from propagate.types import Array, Place, Tree, at_least_float32


class Signal(NamedTuple):
    """A signal y · 2^(held + passed), of which the layers see y · 2^held."""

    y: Array  # (C, B, …, width), its largest magnitude next to 1
    held: Array  # (C,)
    passed: Array  # (C,) what a homogeneous stack need not see


@jax.tree_util.register_pytree_node_class
class _Pull:
    """The vjp of a layer without the parameters in it."""

    def __init__(self, kept: list[Array], form: tuple) -> None:
        self.kept, self.form = kept, form

    @classmethod
    def of(cls, pull: Tree, params: Draw) -> "_Pull":
        """Take the parameters out of a vjp."""
        leaves, tree = jax.tree.flatten(pull)
        names = [next((n for n, p in params.items() if leaf is p), None) for leaf in leaves]
        kept = [leaf for leaf, name in zip(leaves, names, strict=True) if name is None]
        return cls(kept, (tree, tuple(names)))

    def with_params(self, params: Draw) -> Any:
        """Return the vjp with the parameters in it."""
        tree, names = self.form
        rest = iter(self.kept)
        return tree.unflatten([next(rest) if name is None else params[name] for name in names])

    def tree_flatten(self) -> tuple[list[Array], tuple]:
        """Return the arrays and what is fixed."""
        return self.kept, self.form

    @classmethod
    def tree_unflatten(cls, form: tuple, kept: list[Array]) -> "_Pull":
        """Return the whole."""
        return cls(kept, form)


class _Kept(NamedTuple):
    """What a layer keeps for the way back."""

    pull: _Pull
    passed: Array  # of its input


def run(program: StackProgram, numbers: Numbers) -> dict[Place, dict[str, Array]]:
    """Send a block forward and backward; return its statistics, per place (layers, C).

    Forward and backward have one row for each of layer 0 … L; activation for 0 … L-1 (the last
    layer is linear); all else for 1 … L.
    """
    signal = _input(program, numbers)
    found = [{"forward": _row(observe(Scaled(signal.y, signal.held), program.measures("forward")))}]
    kept_by = []
    for part, layers in zip(program.stretches, numbers.layers, strict=True):
        signal, seen, kept = _there(program, numbers, part, signal, layers)
        found.append(seen)
        kept_by.append(kept)

    g = rescale(_cotangent(program, signal, numbers.target))
    back = [{"backward": _row(observe(g, program.measures("backward")))}]
    stretches = list(zip(program.stretches, numbers.layers, kept_by, strict=True))
    for part, layers, kept in reversed(stretches):
        g, seen = _back(program, numbers, part, g, layers, kept)
        back.insert(0, seen)
    return _join(found) | _join(back)


def _input(program: StackProgram, numbers: Numbers) -> Signal:
    first = program.family.signal(program.stretches[0].spec.size.fan_in)
    start = numbers.inputs.reshape(program.batch, *first)
    scaled = rescale(jnp.broadcast_to(start, (numbers.homogeneous.shape[0], *start.shape)))
    return Signal(*scaled, jnp.zeros_like(scaled.exponent))


def _row(seen: dict[str, Array]) -> dict[str, Array]:
    """Return the statistics of one layer as a stretch of it."""
    return {name: value[None] for name, value in seen.items()}


def _there(program: StackProgram, numbers: Numbers, part: Stretch, signal: Signal, layers: Layer):
    """Go forward through a stretch; return the signal, the statistics, what to come back with.

    Of a stretch in chunks only the signals at their starts are kept: the inside of a chunk is
    computed again on the way back.
    """
    step = partial(forward, program, numbers.homogeneous, part)
    start = (signal, numbers.shared)
    if part.chunks == 1:
        (signal, _), (seen, kept) = _scan(step, start, layers)
        return signal, seen, kept

    def chunk(start: tuple, layers: Layer):
        carry, (seen, _) = lax.scan(step, start, layers)
        return carry, (seen, start[0])

    (signal, _), (seen, starts) = lax.scan(chunk, start, _cut(part, layers))
    return signal, _uncut(part, seen), starts


def forward(
    program: StackProgram, homogeneous: Array, part: Stretch, carry: tuple[Signal, Draw], own: Layer
) -> tuple[tuple[Signal, Draw], tuple]:
    """From h_{l-1} to h_l."""
    signal, shared = carry
    params = _params(program, part, own, shared)
    h = signal.y * per_config(power_of_two(signal.held, signal.y.dtype), signal.y)
    apply = partial(layer, program, part, params, own)
    u, pull, (seen, noted) = jax.vjp(apply, h, _slots(program, part, signal.held), has_aux=True)
    y, exponent = rescale(u.astype(program.dtype))
    held = jnp.where(homogeneous, 0, exponent)
    passed = signal.passed + exponent - held
    out = {"forward": observe(Scaled(y, held + passed), program.measures("forward"))}
    first = first_of(program.activations, own.phi, own.raw)
    out |= _observe_seen(program, first, seen, signal.passed)
    for place, values in noted.items():
        out[place] = out.get(place, {"exponent": signal.passed}) | values
    kept = _Kept(_Pull.of(pull, params), signal.passed)
    return (Signal(y, held, passed), shared), (out, kept)


def layer(
    program: StackProgram, part: Stretch, params: Draw, own: Layer, h: Array, slots: Tree
) -> tuple[Array, tuple]:
    """Apply one layer to every configuration; return h and what was seen on the way."""

    def one(h: Array, scale: Draw, phi: Array, slots: Tree) -> tuple[Array, tuple]:
        numbers = phi, own.raw, own.index
        at = LayerContext(program.fixed(part), part.spec.size, params, scale, *numbers, slots)
        out = program.family.apply(at, h)
        return out.astype(at_least_float32(program.dtype)), (at.seen, at.noted)

    each = 0 if program.columns else None
    return jax.vmap(one, in_axes=(0, 0, each, 0))(h, own.scale, own.phi, slots)


def _slots(program: StackProgram, part: Stretch, like: Array) -> Tree:
    zero = jnp.zeros(like.shape, jnp.float32)
    slots = program.slots(part).items()
    return {place: dict.fromkeys(("exponent", *(m.name for m in ms)), zero) for place, ms in slots}


def _observe_seen(program: StackProgram, phi: Array, seen: Draw, passed: Array):
    """Return the statistics of what a layer showed of its inside."""
    out = {}
    slope = seen.get("slope")
    for place, x in seen.items():
        if place == "slope":
            continue
        measures = program.measures(place)
        of_x = tuple(m for m in measures if m.name != "saturated_fraction")
        of_slope = tuple(m for m in measures if m.name == "saturated_fraction")
        y, k = rescale(x)
        out[place] = observe(Scaled(y, k + passed), of_x)
        if of_slope and slope is not None:
            steepest = jnp.asarray([p.slope for p in program.activations], jnp.float32)[phi]
            flat = Scaled(slope.astype(jnp.float32) / per_config(steepest, slope), k + passed)
            out[place] |= observe(flat, of_slope)
    return out


def _cotangent(program: StackProgram, h: Signal, target: Array) -> Array:
    signal = h.y * per_config(power_of_two(h.held + h.passed, h.y.dtype), h.y)

    def loss(h: Array) -> Array:
        if program.loss == "gaussian":
            return jnp.sum(h * target.reshape(h.shape).astype(h.dtype))
        return LOSSES[program.loss](program.family.outputs(h), target)

    return jax.vmap(jax.grad(loss))(signal)


def _cross_entropy(h: Array, labels: Array) -> Array:
    log_p = jax.nn.log_softmax(h.astype(jnp.promote_types(h.dtype, jnp.float32)))
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


def _mse(h: Array, y: Array) -> Array:
    return jnp.mean(jnp.square(h - y.astype(h.dtype)))


LOSSES = {"cross_entropy": _cross_entropy, "mse": _mse}


def _back(
    program: StackProgram, numbers: Numbers, part: Stretch, g: Scaled, layers: Layer, kept: Tree
):
    """Come back through a stretch; return the gradient at its input and the statistics."""
    back = partial(_backward, program, part)
    if part.chunks == 1:
        (g, _), seen = _scan(back, (g, numbers.shared), (layers, kept), reverse=True)
        return g, seen

    def chunk(carry: tuple, xs: tuple[Layer, Signal]):
        layers, start = xs
        again = partial(forward, program, numbers.homogeneous, part)
        _, (_, kept) = lax.scan(again, (start, carry[1]), layers)
        return lax.scan(back, carry, (layers, kept), reverse=True)

    chunks = _cut(part, layers), kept
    (g, _), seen = lax.scan(chunk, (g, numbers.shared), chunks, reverse=True)
    return g, _uncut(part, seen)


def _backward(program: StackProgram, part: Stretch, carry: tuple, xs: tuple[Layer, _Kept]):
    """From dLoss/dh_l to dLoss/dh_{l-1}, and the statistics of gradients within the layer."""
    g, shared = carry
    own, kept = xs
    pull = kept.pull.with_params(_params(program, part, own, shared))
    into, slots = pull(g.y)
    y, k = rescale(into)
    out = Scaled(y, k + g.exponent)
    seen = {"backward": observe(out, program.measures("backward"))}
    weights = part.spec.weights
    for place, slot in slots.items():
        more = g.exponent + (kept.passed if place in weights else 0)
        seen[place] = slot | {"exponent": slot["exponent"].astype(jnp.int32) + more}
    if program.measures("weight_gradient"):
        seen["weight_gradient"] = _together(weights, seen)
    return (out, shared), {p: s for p, s in seen.items() if program.measures(p)}


def _together(weights: Mapping[Place, Parameter], seen: dict[Place, dict[str, Array]]):
    """Return the second moment of the gradient of all of a layer's weights."""
    if len(weights) == 1:
        return seen[next(iter(weights))]
    sizes = jnp.asarray([math.prod(p.shape) for p in weights.values()], jnp.float32)[:, None]
    q = jnp.stack([seen[place]["q"] for place in weights])
    exponents = jnp.stack([seen[place]["exponent"] for place in weights])
    top = jnp.max(exponents, axis=0, keepdims=True)
    below = power_of_two(2 * jnp.maximum(exponents - top, LOST), q.dtype)
    return {"exponent": top[0], "q": jnp.sum(sizes * q * below, axis=0) / jnp.sum(sizes)}


def _params(program: StackProgram, part: Stretch, own: Layer, shared: Draw) -> Draw:
    if isinstance(own.draw, dict):
        return {**own.draw, **shared}
    assert program.base is not None
    parameters = part.spec.own(shared=False)
    return {**draw(program.base, parameters, program.dtype, own.draw), **shared}


def _scan(step, carry: Tree, xs: Tree, reverse: bool = False):
    """Scan; a single layer is run by itself, since it may change the shape of the signal."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return lax.scan(step, carry, xs, reverse=reverse)
    carry, ys = step(carry, jax.tree.map(lambda a: a[0], xs))
    return carry, jax.tree.map(lambda a: a[None], ys)


def _cut(part: Stretch, layers: Layer) -> Layer:
    return jax.tree.map(lambda a: a.reshape(part.chunks, part.length, *a.shape[1:]), layers)


def _uncut(part: Stretch, seen: Tree) -> Tree:
    return jax.tree.map(lambda a: a.reshape(part.layers, *a.shape[2:]), seen)


def _join(parts: list[dict[Place, dict[str, Array]]]) -> dict[Place, dict[str, Array]]:
    """Put the runs' statistics together, place by place."""
    places = dict.fromkeys(place for part in parts for place in part)
    rows = {place: [part[place] for part in parts if place in part] for place in places}
    return {
        place: {name: jnp.concatenate([row[name] for row in found]) for name in found[0]}
        for place, found in rows.items()
    }
