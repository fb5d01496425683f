"""A `Network` as functions of its parameters: what training draws, runs, and measures.

    params = ({name: (layers, …)}, …)                  of each stretch of equal layers
    outputs(stack, params, x, key) -> (B, outputs)      differentiable, for a step of training
    observe(stack, params, x, y) -> {place: {…}}        a sweep's statistics, by its own engine

Weights are the numbers themselves, with their initial scale in them, so that a learning rate means
what it means elsewhere.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from propagate.activations import Activation
from propagate.blocks.layer import Fixed, LayerContext
from propagate.blocks.parameters import Parameter
from propagate.distributions import NORMAL, Base
from propagate.initializers import Initializer
from propagate.network import Network
from propagate.record.measures import Selection
from propagate.run import engine, plan
from propagate.run.feed import layer_keys
from propagate.run.memory import Limits
from propagate.run.pairings import Grouping, blocks_of
from propagate.run.program import Layer, Numbers, StackProgram, Stretch, draw
from propagate.theory.criticality import tuned
from propagate.types import Array, LossKind, Tree, UnusableInput

UNLIMITED = Limits(2**62, 2**62)  # a step of training keeps all signals and weights anyway
TRAINED = ("weight", "bias")  # kinds of parameters; the others are noise


Params = tuple[dict[str, Array], ...]
"""What is trained: of each stretch, by name, with a leading axis of its layers."""


@dataclass(frozen=True)
class Stack:
    """What is fixed of a network that is trained; hashable.

    Attributes:
        program: of its training mode; the engine's own notion of it.
        raw: whether data goes past the first activation.
    """

    program: StackProgram
    raw: bool

    @property
    def loss(self) -> LossKind:
        """What is descended."""
        return self.program.loss


def stack_of(
    net: Network,
    activations: list[Activation],
    selection: Selection,
    loss: LossKind,
    batch: int,
    raw: bool,
) -> Stack:
    """Return what is fixed of a network whose activation is picked by an index.

    Raises:
        UnusableInput: a family that has no parameters to train, or noise for inputs.
    """
    (block,) = blocks_of(net, [net.init], 1, Grouping(1))
    program = plan.program(net, activations, block, selection, loss, batch, UNLIMITED)
    if net.family.zero_scaled:
        raise UnusableInput(
            f"{net.family} scales its branches by a constant 0, so that it would never learn: "
            "train branch=depth or branch=fixup"
        )
    every = [p for part in program.stretches for _, p in part.spec.parameters]
    if any(p.kind == "noise" or p.shared for p in every):
        raise UnusableInput(
            f"{net.family.name} takes noise for the input of each step, from which there is "
            "nothing to learn: train another family"
        )
    if raw and program.stretches[0].layers > 1:  # the first layer is another function
        first, *others = program.stretches
        rest = Stretch(first.spec, 1, first.layers - 1)
        stretches = (Stretch(first.spec, 1, 1), rest, *others)
        program = replace(program, stretches=stretches)
    return Stack(program, raw)


def initial(stack: Stack, init: Initializer, phi: Activation, seed_key: Array) -> Params:
    """Return the parameters that an initialiser draws: those of a sweep with the same key.

    Args:
        stack: what is fixed.
        init: whose law.
        phi: the activation, which some laws follow from.
        seed_key: of one seed.
    """
    if init.data_scaled:
        raise UnusableInput(
            f"{init.name} takes its scale from a batch, which train does not do: leave it out"
        )
    law, draws = tuned(init, phi), _drawer(stack.program, init.base)(seed_key)

    def scaled(part: Stretch, drawn: dict[str, Array]) -> dict[str, Array]:
        factors = {name: jnp.asarray(p.scale(law)) for name, p in part.spec.parameters}
        return {name: x * factors[name].astype(x.dtype) for name, x in drawn.items()}

    return tuple(map(scaled, stack.program.stretches, draws))


@functools.lru_cache(maxsize=32)
def _drawer(program: StackProgram, base: Base) -> Callable[[Array], Params]:
    def many(part: Stretch, keys: Array) -> dict[str, Array]:
        return jax.lax.map(functools.partial(draw, base, _trained(part), program.dtype), keys)

    def every(seed_key: Array) -> Params:
        ends = itertools.accumulate((part.layers for part in program.stretches), initial=0)
        rows = [slice(*pair) for pair in itertools.pairwise(ends)]
        keys = layer_keys(seed_key, rows[-1].stop)
        return tuple(many(part, keys[k]) for part, k in zip(program.stretches, rows, strict=True))

    return jax.jit(every)


def _trained(part: Stretch) -> dict[str, Parameter]:
    return {name: p for name, p in part.spec.parameters if p.kind in TRAINED}


def outputs(stack: Stack, params: Params, phi: Array, x: Array, key: Array) -> Array:
    """Return what a loss sees of a batch (B, features).

    Args:
        stack: what is fixed.
        params: of the network.
        phi: index of the activation.
        x: the inputs.
        key: of what is dropped.
    """
    program, index = stack.program, 1
    first = program.family.signal(program.stretches[0].spec.size.fan_in)
    h = x.reshape(x.shape[0], *first)
    for part, own in zip(program.stretches, params, strict=True):
        numbers = jnp.arange(index, index + part.layers)
        raw = jnp.asarray(stack.raw and index == 1)
        step = functools.partial(_layer, program, part, phi, raw, key)
        h, _ = _scan(step, h, (own, numbers))
        index += part.layers
    return program.family.outputs(h)


def _layer(
    program: StackProgram,
    part: Stretch,
    phi: Array,
    raw: Array,
    key: Array,
    h: Array,
    own: tuple[dict[str, Array], Array],
) -> tuple[Array, None]:
    every, index = own
    masks = {name: p for name, p in part.spec.parameters if p.kind == "uniform"}
    if masks:
        drawn = draw(NORMAL, masks, program.dtype, jax.random.fold_in(key, index))
        every = {**every, **drawn}
    ones = {name: jnp.ones((), jnp.float32) for name in every}
    fixed = _unwatched(program)
    at = LayerContext(fixed, part.spec.size, every, ones, phi, raw, index, {})
    return program.family.apply(at, h).astype(program.dtype), None


def _unwatched(program: StackProgram) -> Fixed:
    """Return what a layer knows, with nothing to record."""
    about = program.activations, (), program.gains, program.dtype, program.precision
    return Fixed(*about, False, {}, {})


def _scan(step: Any, h: Array, xs: Tree) -> tuple[Array, Tree]:
    """Scan; a single layer is run by itself, since it may change the shape of the signal."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(step, h, xs)
    return step(h, jax.tree.map(lambda a: a[0], xs))


def weights(stack: Stack) -> tuple[dict[str, bool], ...]:
    """Return which of the parameters are weights: those that decay."""
    own = map(_trained, stack.program.stretches)
    return tuple({name: p.kind == "weight" for name, p in part.items()} for part in own)


def loss_of(stack: Stack, out: Array, y: Array) -> Array:
    """Return the loss of outputs, as a sweep has it."""
    return engine.LOSSES[stack.loss](out, y)


def observe(stack: Stack, params: Params, phi: Array, x: Array, y: Array) -> Tree:
    """Return the statistics that a sweep would record of a network with these parameters."""
    program, index, layers = stack.program, 1, []
    for part, own in zip(program.stretches, params, strict=True):
        names = [name for name, _ in part.spec.parameters]
        count, numbers = part.layers, jnp.arange(index, index + part.layers)
        scale = {name: jnp.ones((count, 1), jnp.float32) for name in names}
        raw = jnp.full((count,), stack.raw) & (numbers == 1)
        layers.append(Layer(own, scale, jnp.broadcast_to(phi, (count,)), raw, numbers))
        index += count
    bounded = jnp.zeros((1,), bool)  # no signal is rescaled: what it does to biases is seen
    return engine.run(program, Numbers(tuple(layers), {}, bounded, x, y))


def elements(stack: Stack) -> int:
    """Return how many numbers are trained."""
    sizes = (
        part.layers * math.prod(p.shape)
        for part in stack.program.stretches
        for p in _trained(part).values()
    )
    return sum(sizes)
