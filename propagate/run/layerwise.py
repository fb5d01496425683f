"""A stack as single functions, one for each layer."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from propagate.checks import random_key
from propagate.network import Network
from propagate.run import engine
from propagate.run.dispatch import numbers_of, rows_of
from propagate.run.feed import Feed
from propagate.run.grid import Grid
from propagate.run.pairings import blocks_of
from propagate.run.program import Layer, Stretch, draw
from propagate.types import Array


def layers_of(
    net: Network, key: Array, *, batch: int, seed: int = 0
) -> tuple[Array, list[Callable[[Array], Array]]]:
    """Return a random input and the layers of a stack as functions from h to h, one by one.

    They are those of `measure` with the same key and seed.
    """
    feed = Feed(net, random_key(key), None, "gaussian", batch, 0.0, "gaussian")
    (pairings,) = blocks_of(net, [net.init], 1, 1)
    grid = Grid(net, [net.init], [net.activation], (), "gaussian")
    program = grid.program(pairings, batch)
    numbers = numbers_of(grid, program, feed, pairings)
    own = program.parameters(program.runs[0], shared=True)
    shared = draw(net.init.base, own, program.dtype, feed.shared_key(seed))

    def step(part: Stretch, key: Array, layer: Layer) -> Callable[[Array], Array]:
        parameters = program.parameters(part, shared=False)
        params = draw(net.init.base, parameters, program.dtype, key)
        apply = functools.partial(engine.layer, program, part, {**params, **shared}, layer)

        def run(h: Array) -> Array:
            out = apply(h[None], {})[0][0].astype(program.dtype)
            # jaxlib 0.12 on a CPU misreads the bias where a caller's sum is fused with it
            return jax.lax.optimization_barrier(out)

        return run

    keys, steps = feed.layer_keys(seed), []
    for part, rows, run in zip(program.runs, rows_of(program), numbers.per_run, strict=True):
        for k, key_of in enumerate(keys[rows]):
            layer = Layer({}, *jax.tree.map(lambda a, k=k: jnp.asarray(a[k]), run))
            steps.append(step(part, key_of, layer))
    inputs = feed.inputs(seed)
    return inputs.reshape(batch, *net.family.signal(net.shapes[0][0])), steps
