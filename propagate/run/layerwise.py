"""A stack as single functions, one for each layer."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from propagate.blocks.parameters import LayerSpec
from propagate.checks import random_key
from propagate.distributions import Base
from propagate.network import Network
from propagate.run import engine, plan
from propagate.run.feed import Feed
from propagate.run.pairings import Grouping, blocks_of
from propagate.run.program import Draw, Layer, StackProgram, Stretch, draw
from propagate.types import Array


def layers_of(
    net: Network, key: Array, *, batch: int, seed: int = 0
) -> tuple[Array, list[Callable[[Array], Array]]]:
    """Return a random input and the layers of a stack as functions from h to h, one by one.

    They are those of `measure` with the same key and seed.

    Args:
        net: the network.
        key: of a sweep.
        batch: inputs; what of a layer depends on their number (masks) is made for so many.
        seed: which of the sweep's.

    Returns:
        The input, (B, *signal), and L functions from one layer's h to the next.

    Example:
        >>> x, layers = layers_of(Network(depth=2, width=4), jax.random.key(0), batch=3)
        >>> layers[1](layers[0](x)).shape
        (3, 4)
    """
    feed = Feed(net, random_key(key), None, "gaussian", batch, 0.0, "gaussian")
    (block,) = blocks_of(net, [net.init], 1, Grouping(1))
    program = plan.program(net, [net.activation], block, (), "gaussian", batch)
    own = plan.configurations(net, [net.init], [net.activation], block, batch)
    drawn = functools.partial(_drawer, net.init.base, program.dtype)
    shared = drawn(program.stretches[0].spec, True)(feed.shared_key(seed))
    keys, steps = feed.layer_keys(seed), []
    parts = [part for part in program.stretches for _ in range(part.layers)]
    for k, (part, key_of) in enumerate(zip(parts, keys, strict=True)):
        scale = {name: jnp.asarray(factors[k]) for name, factors in own.scale.items()}
        numbers = map(jnp.asarray, (own.phi[k], feed.raw and k == 0, k + 1))
        params = {**drawn(part.spec, False)(key_of), **shared}
        layer = Layer({}, scale, *numbers)
        steps.append(jax.tree_util.Partial(_compiled(program, part), params, layer))
    inputs = feed.inputs(seed)
    return inputs.reshape(batch, *net.family.signal(net.shapes[0][0])), steps


@functools.lru_cache(maxsize=32)
def _drawer(base: Base, dtype: str, spec: LayerSpec, shared: bool) -> Callable[[Array], Draw]:
    """Return what draws a layer's parameters, its own or what it shares, compiled once for all."""
    return jax.jit(functools.partial(draw, base, spec.own(shared=shared), dtype))


@functools.lru_cache(maxsize=32)
def _compiled(program: StackProgram, part: Stretch) -> Callable[[Draw, Layer, Array], Array]:
    """Return `_layer`, compiled once for all layers of a stretch, and for all keys."""
    return jax.jit(functools.partial(_layer, program, part))


def _layer(program: StackProgram, part: Stretch, params: Draw, own: Layer, h: Array) -> Array:
    out = engine.layer(program, part, params, own, h[None], {})[0][0].astype(program.dtype)
    # jaxlib 0.12 on a CPU misreads the bias where a caller's sum is fused with it
    return jax.lax.optimization_barrier(out)
