"""Blocks to devices: weights drawn once, programs compiled once, a few blocks in flight."""

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from threadpoolctl import threadpool_limits

from propagate.distributions import Base
from propagate.run import engine, memory, plan
from propagate.run.feed import Feed
from propagate.run.grid import Grid
from propagate.run.pairings import Pairings
from propagate.run.program import Draw, Layer, Numbers, StackProgram, Stretch, draw
from propagate.types import Array, PropagateError

MOST_AT_ONCE = 8  # blocks in flight


class Turn(NamedTuple):
    """One block for each device: (seed, pairings) per slot, all of one base."""

    slots: tuple[tuple[int, Pairings], ...]


def turns(blocks: list[Pairings], seeds: int, slots: int) -> list[Turn]:
    """Deal the blocks of every seed to the slots, so that a slot keeps its weights for long."""
    steps = []
    for base in dict.fromkeys(block.base for block in blocks):
        jobs = [(seed, b) for seed in range(seeds) for b in blocks if b.base == base]
        rounds = -(-len(jobs) // slots)
        dealt = [jobs[k * rounds : (k + 1) * rounds] for k in range(slots)]
        dealt = [own + (own or jobs)[-1:] * (rounds - len(own)) for own in dealt]
        steps += [Turn(tuple(own[r] for own in dealt)) for r in range(rounds)]
    return steps


def results(grid: Grid, feed: Feed, mesh: Mesh, steps: list[Turn]) -> Iterator[tuple[Turn, dict]]:
    """Run the steps, a few at a time, and yield them with their statistics in order."""
    at_once = min(len(steps), os.cpu_count() or 1, MOST_AT_ONCE) if mesh.size == 1 else 1
    _check_memory(grid, feed, mesh, steps[0].slots[0][1], at_once)
    waiting: collections.deque = collections.deque()
    pool = ThreadPoolExecutor(at_once)
    # LAPACK's own threads (orthogonal draws) fight with XLA's: 1 s instead of 0.2 s for 50 layers
    with threadpool_limits(1, "blas"):
        try:
            for step, (program, block) in zip(steps, _blocks(grid, feed, mesh, steps), strict=True):
                run = _executable(program, mesh, block)
                waiting.append((step, pool.submit(_run, run, block)))
                while len(waiting) > (at_once if step is not steps[-1] else 0):
                    oldest, future = waiting.popleft()
                    yield oldest, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _check_memory(grid: Grid, feed: Feed, mesh: Mesh, pairings: Pairings, at_once: int) -> None:
    """Refuse what cannot fit before anything is spent on it; other devices tell by themselves."""
    if mesh.devices.flat[0].platform != "cpu":
        return
    made, rows = grid.program(pairings, feed.size), pairings.size * feed.size
    needed = mesh.size * memory.bytes_needed(grid.net, made, rows, at_once)
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise PropagateError(
            f"this needs about {needed / 1e9:.0f} GB and the machine has {free / 1e9:.0f} GB: "
            "use a smaller width, batch or block"
        )


def _run(executable: Callable, block: Numbers) -> dict:
    return jax.device_get(executable(block))


def _executable(program: StackProgram, mesh: Mesh, block: Numbers) -> Callable:
    sharding = NamedSharding(mesh, PartitionSpec("slot"))

    def like(a: Array | np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)

    leaves, form = jax.tree.flatten(jax.tree.map(like, block))
    return _compiled(program, mesh, form, tuple(leaves))


@functools.lru_cache(maxsize=32)
def _compiled(program: StackProgram, mesh: Mesh, form: Any, leaves: tuple) -> Callable:
    return jitted(program, mesh).lower(jax.tree.unflatten(form, leaves)).compile()


def jitted(program: StackProgram, mesh: Mesh) -> Callable[[Numbers], dict]:
    """Return `engine.run` under jit, for a block per device along a leading axis."""
    return jax.jit(_per_slot(functools.partial(engine.run, program), mesh))


def _per_slot(fn: Callable, mesh: Mesh) -> Callable:
    def local(tree: Any) -> Any:
        out = fn(jax.tree.map(lambda a: a[0], tree))
        return jax.tree.map(lambda a: a[None], out)

    spec = PartitionSpec("slot")
    return jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def _blocks(
    grid: Grid, feed: Feed, mesh: Mesh, steps: list[Turn]
) -> Iterator[tuple[StackProgram, Numbers]]:
    """Make the numbers of each step; weights are drawn once for all steps that share them."""
    sharding = NamedSharding(mesh, PartitionSpec("slot"))
    drawn, weights, shared, feeds = None, (), {}, ()
    for step in steps:
        program = grid.program(step.slots[0][1], feed.size)
        seeds = tuple(seed for seed, _ in step.slots)
        base = step.slots[0][1].base
        if drawn != (base, seeds):
            weights = ()  # let go of the last ones before drawing the next
            weights, shared = _weights(program, base, feed, mesh, seeds, sharding)
            stacked = [[fn(s) for s in seeds] for fn in (feed.inputs, feed.target)]
            feeds = [jax.device_put(jnp.stack(a), sharding) for a in stacked]
            drawn = (base, seeds)
        numbers = [numbers_of(grid, program, feed, pairings) for _, pairings in step.slots]
        numbers = jax.tree.map(lambda *a: np.stack(a), *numbers)
        layers = [Layer(w, *own) for w, own in zip(weights, numbers.per_run, strict=True)]
        yield program, Numbers(tuple(layers), shared, numbers.homogeneous, *feeds)


class _OfPairings(NamedTuple):
    per_run: tuple  # scale (l, C), and phi, raw and index (l,) of each run
    homogeneous: np.ndarray  # (C,)


def numbers_of(grid: Grid, program: StackProgram, feed: Feed, pairings: Pairings) -> _OfPairings:
    """Return what tells the configurations of a block from those of another."""
    laws = pairings.filled(grid.laws)
    phi = np.full(grid.net.depth, pairings.phi, np.int32)
    index = np.arange(1, grid.net.depth + 1, dtype=np.int32)
    per_layer = plan.scales(grid.net, laws, feed.size), phi, feed.raw & (index == 1), index
    per_run = [jax.tree.map(lambda a, rows=rows: a[rows], per_layer) for rows in rows_of(program)]
    return _OfPairings(tuple(per_run), plan.homogeneous(grid.net, grid.phis[pairings.phi], laws))


def rows_of(program: StackProgram) -> list[slice]:
    """Return which layers each stretch of the program consists of."""
    ends = np.cumsum([0, *(part.layers for part in program.runs)])
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _weights(program, base: Base, feed: Feed, mesh: Mesh, seeds: tuple[int, ...], sharding):
    """Return each run's base weights, or the keys to draw them with, and what all layers share;
    one set per slot."""
    keys = jax.device_put(jnp.stack([feed.layer_keys(seed) for seed in seeds]), sharding)
    sampler = functools.partial(_sampler, mesh, base, program)
    together = {}
    if program.parameters(program.runs[0], shared=True):
        shared_keys = jnp.stack([feed.shared_key(seed)[None] for seed in seeds])
        drawn = sampler(program.runs[0], shared=True)(jax.device_put(shared_keys, sharding))
        together = jax.tree.map(lambda a: a[:, 0], drawn)
    runs = [keys[:, rows] for rows in rows_of(program)]
    if program.base is None:
        samplers = [sampler(part, shared=False) for part in program.runs]
        runs = [sample(own) for sample, own in zip(samplers, runs, strict=True)]
    return tuple(runs), together


def _sampler(
    mesh: Mesh, base: Base, program: StackProgram, part: Stretch, shared: bool
) -> Callable[[Array], Draw]:
    """Return a function that draws the weights of many layers, per slot."""
    parameters = program.parameters(part, shared)
    return _drawer(mesh, base, tuple(parameters.items()), program.dtype)


@functools.lru_cache(maxsize=32)
def _drawer(mesh: Mesh, base, parameters: tuple, dtype: str) -> Callable[[Array], Draw]:
    one = functools.partial(draw, base, dict(parameters), dtype)
    return jax.jit(_per_slot(lambda keys: jax.lax.map(one, keys), mesh))
