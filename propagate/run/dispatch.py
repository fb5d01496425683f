"""Turns to devices: weights drawn once, programs compiled once, a few turns in flight.

    turns = [Turn(slots=(((0, block),),)), …]    which blocks of which seeds, per device
    draws = (slots, jobs, …)                     weights, inputs and targets of each job
    run(numbers) -> statistics                   one compiled program for all turns of a kind

Arrays have a leading axis of devices (*slots*) and one of the jobs of a device that run side by
side; draws of layers, which are scanned, have their layers between the two.
"""

import collections
import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from threadpoolctl import ThreadpoolController

from propagate.distributions import Base
from propagate.run import engine, memory, plan
from propagate.run.feed import Feed, Recipe, layer_keys, shared_key
from propagate.run.grid import Grid
from propagate.run.pairings import Turn
from propagate.run.program import Draw, Layer, Numbers, StackProgram, Stretch, draw
from propagate.types import Array, Tree

MOST_AT_ONCE = 8  # turns in flight
COMPILERS = ThreadPoolExecutor(2)
FLOAT32_ON_GPU = {"xla_gpu_enable_triton_gemm": False}
"""What XLA is asked for where products of float32 run on a GPU: those of its libraries alone.

The search among its own takes most of the first call: 14.5 s with it, 5.0 s without for 36 pairings
× 50 × 2048 × 512 on one H200, and then 320 and 315 ms (jax 0.11.2). Of lower precision its own are
faster: 78 ms against 104.
"""

LEVEL = "xla_backend_optimization_level"
"""How far XLA optimises: 1 of 3 where random draws run on a CPU, unless `XLA_FLAGS` says it.

At 3 the draws of a transformer's layer compile in 3.1 s on jax 0.12, at 1 in 0.55 s, and then take
as long. A first sweep comes to 0.55 (transformer), 0.60 (LSTM) and 0.61 (plain) of its time so, and
on 0.10 to 0.9 (two runs on two cores).
"""


class Drawn(NamedTuple):
    """What is drawn for a turn; leading axes are slots and jobs, of weights slots, layers, jobs."""

    weights: tuple[Draw | Array, ...]  # of each stretch, or the keys to draw them with
    shared: Draw  # what all layers have in common
    inputs: Array
    target: Array


def results(grid: Grid, feed: Feed, mesh: Mesh, turns: list[Turn]) -> Iterator[tuple[Turn, dict]]:
    """Run the turns, a few at a time, and yield them with their statistics in order."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    processors = os.cpu_count() or 1 if on_cpu else 2
    at_once = min(len(turns), processors, MOST_AT_ONCE) if mesh.size == 1 else 1
    if on_cpu:
        program, rows = _program(grid, feed, mesh, turns[0]), turns[0].slots[0][0][1].configs
        memory.check_fits(grid.net, program, rows * feed.size, at_once, mesh.size)
    waiting: collections.deque = collections.deque()
    pool = ThreadPoolExecutor(at_once)
    with lapack_on_one_thread() if on_cpu else contextlib.nullcontext():
        try:
            for turn, (program, numbers) in zip(turns, _fed(grid, feed, mesh, turns), strict=True):
                run = _executable(program, mesh, numbers)
                waiting.append((turn, pool.submit(_run, run, numbers)))
                while len(waiting) > (at_once if turn is not turns[-1] else 0):
                    oldest, future = waiting.popleft()
                    yield oldest, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def lapack_on_one_thread() -> contextlib.AbstractContextManager:
    """Keep LAPACK's own threads (orthogonal draws) from fighting with XLA's.

    50 layers of 256 take 0.2 s so, and 1 s without; a busy machine makes that 10 s.
    """
    return _libraries().limit(limits=1, user_api="blas")


@functools.cache  # to look for them takes 2 ms
def _libraries() -> ThreadpoolController:
    """Return the libraries that are loaded; JAX loads SciPy's only with the first factorisation."""
    import scipy.linalg.cython_lapack  # noqa: F401

    return ThreadpoolController()


def _program(grid: Grid, feed: Feed, mesh: Mesh, turn: Turn) -> StackProgram:
    """Return the program of a turn; its jobs share what a device may keep."""
    kept = memory.limits(mesh.devices.flat[0])
    kept = kept._replace(signals=kept.signals // len(turn.bases))
    block = turn.slots[0][0][1]
    activations = grid.branches if block.alone else grid.activations
    spec = grid.net, activations, block, grid.selection, grid.loss
    return plan.program(*spec, feed.size, kept)


def _fed(
    grid: Grid, feed: Feed, mesh: Mesh, turns: list[Turn]
) -> Iterator[tuple[StackProgram, Numbers]]:
    """Make the numbers of each turn; what is drawn serves all turns of these bases and seeds."""
    held: tuple[Any, Drawn | None] = None, None
    for turn in turns:
        program = _program(grid, feed, mesh, turn)
        wanted = turn.bases, turn.seeds
        if held[0] != wanted:
            held = None, None  # let go of the last draws before the next ones are made
            held = wanted, _drawn(program, feed, mesh, turn)
        assert held[1] is not None
        yield program, numbers_of(grid, feed, program, turn, held[1])


def numbers_of(grid: Grid, feed: Feed, program: StackProgram, turn: Turn, drawn: Drawn) -> Numbers:
    """Return what a turn's program is fed."""
    spec, size = (grid.net, grid.inits, grid.activations), feed.size
    each = [
        [plan.configurations(*spec, block, size, grid.branches) for _, block in jobs]
        for jobs in turn.slots
    ]
    jobs = [jax.tree.map(lambda *a: np.stack(a), *own) for own in each]
    own = jax.tree.map(lambda *a: np.stack(a), *jobs)  # (slots, jobs, L, …)
    index = np.arange(1, grid.net.depth + 1, dtype=np.int32)
    index = np.broadcast_to(index, (*own.homogeneous.shape[:2], grid.net.depth))
    per_layer = own.scale, own.phi, feed.raw & (index == 1), index
    layers = [
        Layer(weights, *jax.tree.map(lambda a, rows=rows: a[:, :, rows], per_layer))
        for weights, rows in zip(drawn.weights, rows_of(program.stretches), strict=True)
    ]
    return Numbers(tuple(layers), drawn.shared, own.homogeneous, drawn.inputs, drawn.target)


def rows_of(stretches: tuple[Stretch, ...]) -> list[slice]:
    """Return which layers each stretch of a program consists of."""
    ends = np.cumsum([0, *(part.layers for part in stretches)])
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _run(executable: Future, numbers: Numbers) -> dict:
    return jax.device_get(executable.result()(numbers))


def _executable(program: StackProgram, mesh: Mesh, numbers: Numbers) -> Future:
    sharding = NamedSharding(mesh, PartitionSpec("slot"))

    def like(a: Array | np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)

    leaves, form = jax.tree.flatten(jax.tree.map(like, numbers))
    return _compiled(program, mesh, form, tuple(leaves))


@functools.lru_cache(maxsize=32)
def _compiled(program: StackProgram, mesh: Mesh, form: Any, leaves: tuple) -> Future:
    """Return the executable to come: it is compiled while the next turn is drawn."""
    lowered = jitted(program, mesh).lower(jax.tree.unflatten(form, leaves))
    exact = program.precision == "highest" and mesh.devices.flat[0].platform == "gpu"
    return COMPILERS.submit(lowered.compile, FLOAT32_ON_GPU if exact else None)


def jitted(program: StackProgram, mesh: Mesh) -> Callable[[Numbers], dict]:
    """Return `engine.run` under jit, for the jobs of every device."""
    return jax.jit(_per_slot(functools.partial(_side_by_side, program), mesh))


def _side_by_side(program: StackProgram, numbers: Numbers) -> dict:
    """Run the jobs of one device as one batch."""
    layer: Any = Layer._make((1, 0, 0, 0, 0))  # the axis of jobs, behind the layers of draws
    axes: Any = Numbers._make(((layer,) * len(program.stretches), 0, 0, 0, 0))
    run = functools.partial(engine.run, program)
    if numbers.homogeneous.shape[0] > 1:
        return jax.vmap(run, in_axes=(axes,))(numbers)
    alone = lambda axis, part: jax.tree.map(lambda a: jnp.squeeze(a, axis), part)  # noqa: E731
    return jax.tree.map(lambda a: a[None], run(jax.tree.map(alone, axes, numbers)))


def _per_slot(fn: Callable, mesh: Mesh) -> Callable:
    def local(tree: Any) -> Any:
        out = fn(jax.tree.map(lambda a: a[0], tree))
        return jax.tree.map(lambda a: a[None], out)

    spec = PartitionSpec("slot")
    return jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def _drawn(program: StackProgram, feed: Feed, mesh: Mesh, turn: Turn) -> Drawn:
    """Draw what the jobs of a turn need; data is the same for all."""
    sharding = NamedSharding(mesh, PartitionSpec("slot"))
    keys = jax.device_put(feed.seed_keys(turn.seeds), sharding)
    stored, platform = program.base is None, mesh.devices.flat[0].platform
    drawer = _drawer(mesh, turn.bases, program.stretches, program.dtype, stored, platform)
    weights, shared = drawer(keys)
    ends = _ends(mesh, feed.recipe)(keys)

    def given(values: Array) -> Array:
        return jax.device_put(jnp.broadcast_to(values, (*keys.shape, *values.shape)), sharding)

    inputs = ends[0] if feed.data is None else given(feed.inputs(0))
    target = ends[1] if feed.loss == "gaussian" else given(feed.target(0))
    return Drawn(weights, shared, inputs, target)


@functools.lru_cache(maxsize=32)
def _ends(mesh: Mesh, recipe: Recipe) -> Callable[[Array], tuple[Tree, Tree]]:
    """Return what draws inputs and cotangents of each seed, where they are random."""

    def one(key: Array) -> tuple[Tree, Tree]:
        inputs = None if recipe.kind is None else recipe.inputs(key)
        return inputs, recipe.target(key) if recipe.cotangent else None

    options = _for_draws(mesh.devices.flat[0].platform)
    return jax.jit(_per_slot(jax.vmap(one), mesh), compiler_options=options)


def _for_draws(platform: str) -> dict[str, int] | None:
    asked = platform != "cpu" or LEVEL in os.environ.get("XLA_FLAGS", "")
    return None if asked else {LEVEL: 1}


@functools.lru_cache(maxsize=32)
def _drawer(
    mesh: Mesh,
    bases: tuple[Base, ...],
    stretches: tuple[Stretch, ...],
    dtype: str,
    stored: bool,
    platform: str,
) -> Callable[[Array], tuple[tuple, Draw]]:
    """Return what draws the parameters of all jobs: of layers (layers, jobs, …), and shared."""
    depth = sum(part.layers for part in stretches)

    def of_base(base: Base, keys: Array) -> tuple[tuple, Draw]:
        layers = jax.vmap(lambda key: layer_keys(key, depth), out_axes=1)(keys)
        own = tuple(layers[rows] for rows in rows_of(stretches))
        if stored:
            own = tuple(map(functools.partial(many, base), stretches, own))
        common = functools.partial(draw, base, stretches[0].spec.own(shared=True), dtype)
        return own, jax.vmap(lambda key: common(shared_key(key)))(keys)

    def many(base: Base, part: Stretch, keys: Array) -> Draw:
        one = functools.partial(draw, base, part.spec.own(shared=False), dtype)
        if platform == "cpu":  # one after another: a factorisation has threads of its own
            return jax.lax.map(jax.vmap(one), keys)
        return jax.vmap(jax.vmap(one))(keys)

    def every(keys: Array) -> tuple[tuple, Draw]:
        kinds = list(dict.fromkeys(bases))
        rows = [[k for k, base in enumerate(bases) if base == kind] for kind in kinds]
        found = [of_base(kind, keys[np.asarray(k)]) for kind, k in zip(kinds, rows, strict=True)]
        own, common = zip(*found, strict=True)
        join = functools.partial(_joined, order=np.argsort(np.concatenate(rows)))
        return (
            jax.tree.map(lambda *a: join(a, axis=1), *own),
            jax.tree.map(lambda *a: join(a, axis=0), *common),
        )

    return jax.jit(_per_slot(every, mesh), compiler_options=_for_draws(platform))


def _joined(parts: tuple[Array, ...], *, order: np.ndarray, axis: int) -> Array:
    """Put the jobs of several bases together, in the order of the jobs."""
    whole = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)
    return whole if (order == np.arange(len(order))).all() else jnp.take(whole, order, axis)
