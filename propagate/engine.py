r"""The one forward scan and the one backward scan.

A *block* is C configurations that share their base weights and their activation and differ in
the scale of their weights. They pass through a layer together, as one tall matrix product:

    h_l = s_l · (phi(h_{l-1}) W_l) + t_l · b_l          s_l, t_l: one number per configuration

On the way forward each layer keeps phi'(h) for the way back:

    g_{l-1} = (s_l · g_l W_l^T) * phi'(h_{l-1})         g_l = dLoss/dh_l

Signals and gradients travel as y · 2^k with max|y| next to 1. The backward pass is linear, so g
never needs its 2^k back; nor does h where phi is positively homogeneous and there is no bias.
Nothing but the statistics leaves the program: O(depth) numbers.

Deep stacks trade time for memory in two ways, chosen by the caller in `Program`: a run of
layers may be cut into `chunks` whose insides are computed again on the way back, and weights
may be drawn from their keys within the scan instead of being kept.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from propagate.activations import Activation
from propagate.blocks import BLOCKS
from propagate.initializers import Base
from propagate.measures import Measure, Scaled, Selection, observe, power_of_two, rescale
from propagate.types import Array, LossKind, Place, Precision, Tree, at_least_float32


@dataclass(frozen=True)
class Run:
    """Consecutive layers of one shape, `chunks * length` of them."""

    shape: tuple[int, int]
    chunks: int
    length: int

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.chunks * self.length


@dataclass(frozen=True)
class Program:
    """What is compiled: everything that is fixed before the numbers arrive.

    Attributes:
        family: the kind of layer.
        activations: the branches; a layer's `phi` is an index into them.
        runs: the stack, cut into runs of equal layers.
        selection: the statistics.
        loss: where the backward pass starts from.
        bases: of weights and biases if layers draw their own; None if they are passed.
        dtype: of weights and signals.
        precision: of the matrix products.
    """

    family: str
    activations: tuple[Activation, ...]
    runs: tuple[Run, ...]
    selection: Selection
    loss: LossKind
    bases: tuple[Base, Base] | None
    dtype: str
    precision: Precision

    def measures(self, place: Place) -> tuple[Measure, ...]:
        """Return the statistics taken of `place`."""
        return dict(self.selection)[place]


class Draw(NamedTuple):
    """A layer's parameters before scaling; stacked along a leading axis, those of a run."""

    weight: Array  # (fan_in, fan_out)
    bias: Array  # (fan_out,)


class Layer(NamedTuple):
    """One layer of a block; stacked along a leading axis, a run of them."""

    draw: Draw | Array  # or the key to draw it with
    scale: Array  # (C,) factor on the weights
    shift: Array  # (C,) factor on the biases
    phi: Array  # () index of the activation that acts on the layer's input


class Block(NamedTuple):
    """The numbers of one block."""

    layers: tuple[Layer, ...]  # per run, stacked over its layers
    homogeneous: Array  # (C,) whether the signal may be rescaled on its way
    data_scaled: Array  # (C,) whether outputs are scaled to unit variance (LSUV)
    inputs: Array  # (B, input_size)
    target: Array  # (B, output_size) cotangent or regression target, or (B,) labels


class _Signal(NamedTuple):
    """A signal y · 2^(held + passed), of which phi sees y · 2^held."""

    y: Array  # (C, B, width), its largest magnitude next to 1
    held: Array  # (C,)
    passed: Array  # (C,) what a homogeneous phi need not see


class _Kept(NamedTuple):
    """What a layer keeps for the way back."""

    slope: Array  # phi'(h_{l-1})
    x: Array | None  # phi(h_{l-1}), where the weight gradient is measured
    exponent: Array  # of x
    scale: Array  # the factor on the weights that was used


def draw(bases: tuple[Base, Base], shape: tuple[int, int], dtype: str, key: Array) -> Draw:
    """Return one layer's weights and biases before scaling.

    They are drawn in float32 or wider and then rounded, so that dtypes share their draws.
    """
    weights, biases = bases
    wide = at_least_float32(dtype)
    return Draw(
        jnp.asarray(weights.sample(key, shape, wide), dtype),
        jnp.asarray(biases.sample(jax.random.fold_in(key, 1), shape[1:], wide), dtype),
    )


def run(program: Program, block: Block) -> dict[Place, dict[str, Array]]:
    """Send a block forward and backward; return its statistics, per place (layers, C).

    Forward and backward have one row for each of layer 0 … L; activation for 0 … L-1 (the last
    layer is linear); the weight gradient for 1 … L.
    """
    configs = block.homogeneous.shape[0]
    start = jnp.broadcast_to(block.inputs, (configs, *block.inputs.shape))
    scaled = rescale(start)
    carry = _Signal(*scaled, jnp.zeros_like(scaled.exponent))
    forward = [_lift(observe(scaled, program.measures("forward")))]
    activation, tape = [], []
    for part, layers in zip(program.runs, block.layers, strict=True):
        carry, seen, kept = _there(program, block, part, carry, layers)
        forward.append(seen["forward"])
        activation.append(seen["activation"])
        tape.append(kept)

    g = rescale(_cotangent(program.loss, carry, block.target))
    backward, gradient = [_lift(observe(g, program.measures("backward")))], []
    for part, layers, kept in reversed(list(zip(program.runs, block.layers, tape, strict=True))):
        g, seen = _back(program, block, part, g, layers, kept)
        backward.insert(0, seen["backward"])
        gradient.insert(0, seen["weight_gradient"])
    return {
        "forward": _join(forward),
        "activation": _join(activation),
        "backward": _join(backward),
        "weight_gradient": _join(gradient),
    }


def _forward(program: Program, block: Block, part: Run, carry: _Signal, layer: Layer):
    """From h_{l-1} to h_l."""
    branches = [partial(_activated, phi, program.dtype) for phi in program.activations]
    x, slope = lax.switch(layer.phi, branches, carry.y, power_of_two(carry.held, carry.y.dtype))
    params = _params(program, part, layer)
    u = BLOCKS[program.family](params.weight, x, program.precision)
    scale = _scale(layer.scale, block.data_scaled, u).astype(u.dtype)
    h = u * _per_config(scale) + params.bias * _per_config(layer.shift.astype(u.dtype))
    h = h.astype(program.dtype)
    y, exponent = rescale(h)
    held = jnp.where(block.homogeneous, 0, exponent)
    passed = carry.passed + exponent - held
    seen = {
        "forward": observe(Scaled(y, held + passed), program.measures("forward")),
        "activation": _observe_activation(program, layer.phi, x, slope, carry.passed),
    }
    kept = _Kept(slope, x if program.measures("weight_gradient") else None, carry.passed, scale)
    return _Signal(y, held, passed), (seen, kept)


def _activated(phi: Activation, dtype: str, y: Array, factor: Array) -> tuple[Array, Array]:
    x, slope = phi.with_slope((y * _per_config(factor)).astype(dtype))
    return x.astype(dtype), slope.astype(dtype)


def _observe_activation(program: Program, phi: Array, x: Array, slope: Array, exponent: Array):
    measures = program.measures("activation")
    if not measures:
        return {}
    of_x = tuple(m for m in measures if m.name != "saturated_fraction")
    of_slope = tuple(m for m in measures if m.name == "saturated_fraction")
    y, k = rescale(x)
    steepest = jnp.asarray([p.slope for p in program.activations], jnp.float32)[phi]
    return observe(Scaled(y, k + exponent), of_x) | observe(
        Scaled(slope.astype(jnp.float32) / steepest, k + exponent), of_slope
    )


def _backward(program: Program, part: Run, g: Scaled, xs: tuple[Layer, _Kept]):
    """From dLoss/dh_l to dLoss/dh_{l-1} and the statistics of dLoss/dW_l."""
    layer, kept = xs
    weight = _params(program, part, layer).weight
    apply = partial(BLOCKS[program.family], precision=program.precision)
    down = g.y.astype(kept.scale.dtype)
    (into,) = jax.linear_transpose(partial(apply, weight), kept.slope)(down)
    y, k = rescale(into * (kept.slope * _per_config(kept.scale)))
    out = Scaled(y, k + g.exponent)
    measures = program.measures("weight_gradient")
    seen = {"backward": observe(out, program.measures("backward")), "weight_gradient": {}}
    if measures:
        pull = jax.vmap(lambda x, g: jax.linear_transpose(lambda w: apply(w, x), weight)(g)[0])
        # undo the transposition that JAX's rule ends with: it costs a copy and changes no statistic
        dw, k = rescale(jnp.swapaxes(pull(kept.x, down), -1, -2))
        seen["weight_gradient"] = observe(Scaled(dw, k + g.exponent + kept.exponent), measures)
    return out, seen


def _there(program: Program, block: Block, part: Run, carry: _Signal, layers: Layer):
    """Go forward through a run; return the carry, the statistics and what to come back with."""
    step = partial(_forward, program, block, part)
    if part.chunks == 1:
        carry, (seen, kept) = _scan(step, carry, layers)
        return carry, seen, kept

    def chunk(start: _Signal, layers: Layer):
        carry, (seen, _) = lax.scan(step, start, layers)
        return carry, (seen, start)

    carry, (seen, starts) = lax.scan(chunk, carry, _cut(part, layers))
    return carry, _uncut(part, seen), starts


def _back(program: Program, block: Block, part: Run, g: Scaled, layers: Layer, kept: Tree):
    """Come back through a run, computing the inside of a chunk again if there are several."""
    back = partial(_backward, program, part)
    if part.chunks == 1:
        return _scan(back, g, (layers, kept), reverse=True)

    def chunk(g: Scaled, xs: tuple[Layer, _Signal]):
        layers, start = xs
        _, (_, kept) = lax.scan(partial(_forward, program, block, part), start, layers)
        return lax.scan(back, g, (layers, kept), reverse=True)

    g, seen = lax.scan(chunk, g, (_cut(part, layers), kept), reverse=True)
    return g, _uncut(part, seen)


def _scan(step, carry: Tree, xs: Tree, reverse: bool = False):
    """Scan; a single layer is run by itself, since it may change the shape of the signal."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return lax.scan(step, carry, xs, reverse=reverse)
    carry, ys = step(carry, jax.tree.map(lambda a: a[0], xs))
    return carry, jax.tree.map(lambda a: a[None], ys)


def _params(program: Program, part: Run, layer: Layer) -> Draw:
    if isinstance(layer.draw, Draw):
        return layer.draw
    assert program.bases is not None
    return draw(program.bases, part.shape, program.dtype, layer.draw)


def _scale(scale: Array, data_scaled: Array, u: Array) -> Array:
    """Return the factor on the weights, brought to unit variance of the output where asked."""

    def normalised(u: Array) -> Array:
        y, k = rescale(u)
        std = jnp.std(y, axis=(1, 2))
        unit = power_of_two(-k, y.dtype) / jnp.where(std == 0, 1, std)
        return jnp.where(data_scaled, scale * unit, scale)

    return lax.cond(jnp.any(data_scaled), normalised, lambda u: scale, u)


def _cotangent(loss: LossKind, h: _Signal, target: Array) -> Array:
    signal = h.y * _per_config(power_of_two(h.held + h.passed, h.y.dtype))
    return jax.vmap(jax.grad(LOSSES[loss]), in_axes=(0, None))(signal, target)


def _gaussian(h: Array, v: Array) -> Array:
    return jnp.sum(h * v.astype(h.dtype))


def _cross_entropy(h: Array, labels: Array) -> Array:
    log_p = jax.nn.log_softmax(h.astype(jnp.promote_types(h.dtype, jnp.float32)))
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


def _mse(h: Array, y: Array) -> Array:
    return jnp.mean(jnp.square(h - y.astype(h.dtype)))


LOSSES = {"gaussian": _gaussian, "cross_entropy": _cross_entropy, "mse": _mse}


def _per_config(a: Array) -> Array:
    return a[:, None, None]


def _cut(part: Run, layers: Layer) -> Layer:
    return jax.tree.map(lambda a: a.reshape(part.chunks, part.length, *a.shape[1:]), layers)


def _uncut(part: Run, seen: Tree) -> Tree:
    return jax.tree.map(lambda a: a.reshape(part.layers, *a.shape[2:]), seen)


def _lift(seen: dict[str, Array]) -> dict[str, Array]:
    return {name: value[None] for name, value in seen.items()}


def _join(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: jnp.concatenate([p[name] for p in parts]) for name in parts[0]}
