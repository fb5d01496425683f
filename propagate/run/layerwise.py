"""A stack as single functions, one for each layer."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from propagate.checks import random_key
from propagate.network import Network
from propagate.run import engine, plan
from propagate.run.feed import Feed
from propagate.run.pairings import Grouping, blocks_of
from propagate.run.program import Layer, Stretch, draw
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
    common = program.stretches[0].spec.own(shared=True)
    shared = draw(net.init.base, common, program.dtype, feed.shared_key(seed))

    def step(part: Stretch, key: Array, layer: Layer) -> Callable[[Array], Array]:
        params = draw(net.init.base, part.spec.own(shared=False), program.dtype, key)
        apply = functools.partial(engine.layer, program, part, {**params, **shared}, layer)

        def run(h: Array) -> Array:
            out = apply(h[None], {})[0][0].astype(program.dtype)
            # jaxlib 0.12 on a CPU misreads the bias where a caller's sum is fused with it
            return jax.lax.optimization_barrier(out)

        return run

    keys, steps = feed.layer_keys(seed), []
    parts = [part for part in program.stretches for _ in range(part.layers)]
    for k, (part, key_of) in enumerate(zip(parts, keys, strict=True)):
        scale = {name: jnp.asarray(factors[k]) for name, factors in own.scale.items()}
        numbers = own.phi[k], feed.raw and k == 0, k + 1
        steps.append(step(part, key_of, Layer({}, scale, *map(jnp.asarray, numbers))))
    inputs = feed.inputs(seed)
    return inputs.reshape(batch, *net.family.signal(net.shapes[0][0])), steps
