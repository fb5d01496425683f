"""`measure` and `sweep`: initialisers × activations × seeds through a deep stack, to a record.

Blocks of pairings are independent, so a few are in flight at once: while one is in a matrix
product the other applies its activation. With several devices each takes its own seeds.
"""

import collections
import functools
import itertools
import math
import numbers
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from threadpoolctl import threadpool_limits

from propagate import activations, batches, engine, plan, record, registry
from propagate.activations import Activation
from propagate.batches import Batch
from propagate.blocks import Family
from propagate.engine import Block, Draw, Layer, Program, Run
from propagate.initializers import Base, Initializer, initializer
from propagate.measures import Selection, decades, select
from propagate.network import Network
from propagate.plan import Pairings
from propagate.types import (
    OWN,
    Array,
    ArrayLike,
    InputKind,
    JaxDevice,
    LossKind,
    PropagateError,
    UnusableInput,
)

Progress = Callable[[int, int], None]
MOST_AT_ONCE = 8  # blocks in flight


class Interrupted(KeyboardInterrupt):
    """A sweep that was stopped; `record` holds what was measured, NaN elsewhere."""

    def __init__(self, partial: xr.Dataset, done: int, total: int) -> None:
        super().__init__(f"stopped after {done} of {total} blocks")
        self.record = partial


def measure(net: Network, key: Array, *, seeds: int = 8, **options: Any) -> xr.Dataset:
    """Measure one network: the record of `sweep` with dims (seed, layer).

    Args:
        net: the network.
        key: a JAX random key; weights, inputs and cotangents of all seeds follow from it.
        seeds: number of independent draws.
        **options: `batch`, `measures`, `inputs`, `labels`, `loss` and the others of `sweep`.

    Example:
        >>> net = Network(depth=4, width=32, activation="relu", init="he_normal")
        >>> found = measure(net, jax.random.key(0), batch=16, seeds=2)
        >>> dict(found.sizes)
        {'seed': 2, 'layer': 5}
    """
    if not {"init", "activation"}.isdisjoint(options):
        raise UnusableInput("measure takes one network; for several init or activation use sweep")
    return sweep(net, key=key, seeds=seeds, **options).squeeze(("init", "activation"), drop=True)


def sweep(
    net: Network,
    *,
    key: Array,
    init: Any = None,
    activation: Any = None,
    seeds: int = 4,
    batch: int = 64,
    measures: Sequence[str] | None = None,
    inputs: ArrayLike | Batch | None = None,
    labels: ArrayLike | None = None,
    input: InputKind = "gaussian",
    cosine: float = 0.5,
    loss: LossKind = "gaussian",
    block: int | None = None,
    devices: Sequence[JaxDevice] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Send batches forward and cotangents backward for every initialiser × activation pairing.

    Pairings share their random draws (weights up to scale, inputs, cotangents), so their
    differences are paired differences. Gradients are those of the loss as it is:
    `"gaussian"` is the sum of h_L · v with v ~ N(0, 1), which is independent for every input.

    Args:
        net: the network; its own `init` and `activation` where the grid has none.
        key: a JAX random key; everything random follows from it.
        init: initialisers, as `Network` takes them; a list, or one alone.
        activation: activations, likewise.
        seeds: number of independent draws of weights, random inputs and cotangents.
        batch: random inputs per seed.
        measures: endings of the variables to measure; all by default.
        inputs: data (B, features) instead of random inputs, the same for every seed.
        labels: (B,) classes for `"cross_entropy"`, (B,) or (B, outputs) targets for `"mse"`.
        input: random inputs: `"gaussian"`, or `"pairs"` of a chosen `cosine`.
        cosine: expected cosine between any two inputs of `"pairs"`.
        loss: where the gradient starts: `"gaussian"`, `"cross_entropy"` (mean over the batch)
            or `"mse"` (mean over batch and outputs).
        block: configurations that go through a layer together; chosen to fit by default.
        devices: the devices to use; all local ones by default.
        progress: called with (blocks done, blocks in all).

    Returns:
        The record, dims (init, activation, seed, layer).

    Raises:
        UnusableInput: an argument that cannot be used.
        PropagateError: the run does not fit in memory.
        Interrupted: stopped by the user; carries what was measured.

    Example:
        >>> net, key = Network(depth=3, width=16), jax.random.key(0)
        >>> found = sweep(net, init=["he_normal", "zeros"], key=key, seeds=2, batch=4)
        >>> float(found.log10_forward_q.sel(init="zeros").max("seed").squeeze()[1])
        -inf
    """
    counts = {"seeds": seeds, "batch": batch, "block": 1 if block is None else block}
    for name, count in counts.items():
        registry.check_count(name, count)
    batches.check_random(input, cosine)
    data = _data(inputs, labels, loss)
    net = _fitted(net, data, loss)
    grid = Grid(
        net,
        _unique("init", [initializer(spec) for spec in _listed(init) or [net.law]]),
        _unique(
            "activation",
            [activations.activation(spec) for spec in _listed(activation) or [net.phi]],
        ),
        select(measures, net.block.table),
        loss,
    )
    for law in grid.laws:
        net.check(law)
    feed = Feed(net, _typed(key), data, input, batch, cosine, loss)
    mesh = Mesh(np.asarray(devices or jax.local_devices()), "slot", (AxisType.Auto,))
    steps = _steps(plan.grid(net, grid.laws, len(grid.phis), block), seeds, mesh.size)
    found = record.new(grid.selection, grid.coords, seeds, net.depth)
    found.attrs = _attrs(grid, feed, mesh)
    done = 0
    try:
        for done, (step, raw) in enumerate(_results(grid, feed, mesh, steps), 1):
            grid.write(found, step, raw)
            if progress:
                progress(done, len(steps))
    except KeyboardInterrupt:
        raise Interrupted(found, done, len(steps)) from None
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        raise _explained(error) from error
    return found


@dataclass(frozen=True)
class Grid:
    """What is swept and what is measured."""

    net: Network
    laws: list[Initializer]
    phis: list[Activation]
    selection: Selection
    loss: LossKind

    @property
    def coords(self) -> dict[str, list[str]]:
        """The labels of the pairings."""
        return {"init": [i.name for i in self.laws], "activation": [a.name for a in self.phis]}

    def program(self, pairings: Pairings, batch: int) -> Program:
        """Return what is compiled for a block."""
        return plan.program(self.net, self.phis, pairings, self.selection, self.loss, batch)

    def write(self, found: xr.Dataset, step: "Step", raw: dict) -> None:
        """Put the statistics of a step's blocks into the record."""
        for place, measures in self.selection:
            for measure in measures:
                if measure.name not in raw.get(place, ()):
                    continue  # a family may have no such place
                value, exponent = raw[place][measure.name], raw[place]["exponent"]
                layers = decades(measure, value, exponent)  # (slot, layers, C)
                into = found[measure.variable(place)].values
                for slot, (seed, pairings) in enumerate(step.slots):
                    for config, same in enumerate(pairings.inits):
                        column = record.along_layers(place, layers[slot, :, config])
                        into[list(same), pairings.phi, seed] = column


@dataclass(frozen=True)
class Feed:
    """Where weights, inputs and targets come from: random keys, or data."""

    net: Network
    key: Array
    data: Batch | None
    kind: InputKind
    batch: int
    cosine: float
    loss: LossKind

    @property
    def size(self) -> int:
        """The number of inputs."""
        return self.batch if self.data is None else len(self.data.inputs)

    @property
    def raw(self) -> bool:
        """Whether the input goes into the first weights as it is, without the activation."""
        activated = self.net.activate_input
        if not self.net.block.starts_with_phi:
            return False
        return self.data is not None if activated is None else not activated

    def layer_keys(self, seed: int) -> Array:
        """Return one key per layer."""
        return _layer_keys(self._seed(seed), self.net.depth)

    def inputs(self, seed: int) -> Array:
        """Return the batch."""
        if self.data is not None:
            return jnp.asarray(self.data.inputs, self.net.dtype)
        key = jax.random.fold_in(self._seed(seed), 1)
        x = batches.random(key, self.kind, self.size, self._features(0), self.cosine)
        return x.astype(self.net.dtype)

    def target(self, seed: int) -> Array:
        """Return the cotangent of the outputs, or what the loss compares them with."""
        if self.loss != "gaussian":
            assert self.data is not None and self.data.labels is not None
            labels = jnp.asarray(self.data.labels)
            return labels if self.loss == "cross_entropy" else labels.reshape(len(labels), -1)
        key = jax.random.fold_in(self._seed(seed), 2)
        return jax.random.normal(key, (self.size, self._features(-1)))

    def shared_key(self, seed: int) -> Array:
        """Return the key of what all layers share."""
        return jax.random.fold_in(self._seed(seed), 3)

    def _features(self, end: int) -> int:
        return math.prod(self.net.block.signal(self.net.shapes[end][end]))

    def _seed(self, seed: int) -> Array:
        return jax.random.fold_in(self.key, seed)


@functools.partial(jax.jit, static_argnums=1)
def _layer_keys(key: Array, depth: int) -> Array:
    key = jax.random.fold_in(key, 0)
    return jax.vmap(lambda layer: jax.random.fold_in(key, layer))(jnp.arange(depth))


class Step(NamedTuple):
    """One block for each device: (seed, pairings) per slot, all of one base."""

    slots: tuple[tuple[int, Pairings], ...]


def _steps(blocks: list[Pairings], seeds: int, slots: int) -> list[Step]:
    """Deal the blocks of every seed to the slots, so that a slot keeps its weights for long."""
    steps = []
    for base in dict.fromkeys(block.base for block in blocks):
        jobs = [(seed, b) for seed in range(seeds) for b in blocks if b.base == base]
        rounds = -(-len(jobs) // slots)
        dealt = [jobs[k * rounds : (k + 1) * rounds] for k in range(slots)]
        dealt = [own + (own or jobs)[-1:] * (rounds - len(own)) for own in dealt]
        steps += [Step(tuple(own[r] for own in dealt)) for r in range(rounds)]
    return steps


def _results(grid: Grid, feed: Feed, mesh: Mesh, steps: list[Step]) -> Iterator[tuple[Step, dict]]:
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
    needed = mesh.size * plan.bytes_needed(grid.net, made, rows, at_once)
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise PropagateError(
            f"this needs about {needed / 1e9:.0f} GB and the machine has {free / 1e9:.0f} GB: "
            "use a smaller width, batch or block"
        )


def _run(executable: Callable, block: Block) -> dict:
    return jax.device_get(executable(block))


def _executable(program: Program, mesh: Mesh, block: Block) -> Callable:
    sharding = NamedSharding(mesh, PartitionSpec("slot"))

    def like(a: Array | np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)

    leaves, form = jax.tree.flatten(jax.tree.map(like, block))
    return _compiled(program, mesh, form, tuple(leaves))


@functools.lru_cache(maxsize=32)
def _compiled(program: Program, mesh: Mesh, form: Any, leaves: tuple) -> Callable:
    return jitted(program, mesh).lower(jax.tree.unflatten(form, leaves)).compile()


def jitted(program: Program, mesh: Mesh) -> Callable[[Block], dict]:
    """Return `engine.run` under jit, for a block per device along a leading axis."""
    return jax.jit(_per_slot(functools.partial(engine.run, program), mesh))


def _per_slot(fn: Callable, mesh: Mesh) -> Callable:
    def local(tree: Any) -> Any:
        out = fn(jax.tree.map(lambda a: a[0], tree))
        return jax.tree.map(lambda a: a[None], out)

    spec = PartitionSpec("slot")
    return jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def _blocks(
    grid: Grid, feed: Feed, mesh: Mesh, steps: list[Step]
) -> Iterator[tuple[Program, Block]]:
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
        numbers = [_numbers(grid, program, feed, pairings) for _, pairings in step.slots]
        numbers = jax.tree.map(lambda *a: np.stack(a), *numbers)
        layers = [Layer(w, *own) for w, own in zip(weights, numbers.per_run, strict=True)]
        yield program, Block(tuple(layers), shared, numbers.homogeneous, *feeds)


class _Numbers(NamedTuple):
    per_run: tuple  # scale (l, C), and phi, raw and index (l,) of each run
    homogeneous: np.ndarray  # (C,)


def _numbers(grid: Grid, program: Program, feed: Feed, pairings: Pairings) -> _Numbers:
    laws = pairings.filled(grid.laws)
    phi = np.full(grid.net.depth, pairings.phi, np.int32)
    index = np.arange(1, grid.net.depth + 1, dtype=np.int32)
    per_layer = plan.scales(grid.net, laws, feed.size), phi, feed.raw & (index == 1), index
    per_run = [jax.tree.map(lambda a, rows=rows: a[rows], per_layer) for rows in _rows(program)]
    return _Numbers(tuple(per_run), plan.homogeneous(grid.net, grid.phis[pairings.phi], laws))


def _rows(program: Program) -> list[slice]:
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
    runs = [keys[:, rows] for rows in _rows(program)]
    if program.base is None:
        samplers = [sampler(part, shared=False) for part in program.runs]
        runs = [sample(own) for sample, own in zip(samplers, runs, strict=True)]
    return tuple(runs), together


def _sampler(
    mesh: Mesh, base: Base, program: Program, part: Run, shared: bool
) -> Callable[[Array], Draw]:
    """Return a function that draws the weights of many layers, per slot."""
    parameters = program.parameters(part, shared)
    return _drawer(mesh, base, tuple(parameters.items()), program.dtype)


@functools.lru_cache(maxsize=32)
def _drawer(mesh: Mesh, base, parameters: tuple, dtype: str) -> Callable[[Array], Draw]:
    one = functools.partial(engine.draw, base, dict(parameters), dtype)
    return jax.jit(_per_slot(lambda keys: jax.lax.map(one, keys), mesh))


def layers_of(
    net: Network, key: Array, *, batch: int, seed: int = 0
) -> tuple[Array, list[Callable[[Array], Array]]]:
    """Return a random input and the layers of a stack as functions from h to h, one by one.

    They are those of `measure` with the same key and seed.
    """
    feed = Feed(net, _typed(key), None, "gaussian", batch, 0.0, "gaussian")
    (pairings,) = plan.grid(net, [net.law], 1, 1)
    grid = Grid(net, [net.law], [net.phi], (), "gaussian")
    program = grid.program(pairings, batch)
    numbers = _numbers(grid, program, feed, pairings)
    own = program.parameters(program.runs[0], shared=True)
    shared = engine.draw(net.law.base, own, program.dtype, feed.shared_key(seed))

    def step(part: Run, key: Array, layer: Layer) -> Callable[[Array], Array]:
        parameters = program.parameters(part, shared=False)
        params = engine.draw(net.law.base, parameters, program.dtype, key)
        apply = functools.partial(engine.layer, program, part, {**params, **shared}, layer)

        def run(h: Array) -> Array:
            out = apply(h[None], {})[0][0].astype(program.dtype)
            # jaxlib 0.12 on a CPU misreads the bias where a caller's sum is fused with it
            return jax.lax.optimization_barrier(out)

        return run

    keys, steps = feed.layer_keys(seed), []
    for part, rows, run in zip(program.runs, _rows(program), numbers.per_run, strict=True):
        for k, key_of in enumerate(keys[rows]):
            layer = Layer({}, *jax.tree.map(lambda a, k=k: jnp.asarray(a[k]), run))
            steps.append(step(part, key_of, layer))
    inputs = feed.inputs(seed)
    return inputs.reshape(batch, *net.block.signal(net.shapes[0][0])), steps


def _data(inputs: ArrayLike | Batch | None, labels: ArrayLike | None, loss: str) -> Batch | None:
    registry.check_choice("loss", loss, LossKind)
    if inputs is None and (labels is not None or loss != "gaussian"):
        raise UnusableInput(
            f"loss {loss!r} with labels needs inputs that they belong to: pass both"
        )
    if inputs is None:
        return None
    if isinstance(inputs, Batch) and labels is not None:
        raise UnusableInput("this Batch takes its own labels: Batch(inputs, labels), not labels=…")
    data = inputs if isinstance(inputs, Batch) else Batch(inputs, labels)
    if loss != "gaussian" and data.labels is None:
        raise UnusableInput(f"loss {loss!r} needs labels, one for each input; got none")
    return data


def _fitted(net: Network, data: Batch | None, loss: LossKind) -> Network:
    """Return the network with its input and output sizes taken from the data."""
    if data is None:
        return net
    units = _units(net.block, data.inputs.shape[1])
    if net.input_size not in (None, units):
        raise UnusableInput(f"the network takes {net.input_size} features, got {units}")
    same = None if net.block.resizes else net.width  # such layers have as many outputs as inputs
    net = replace(net, input_size=units, output_size=net.output_size or same)
    if loss == "gaussian":
        return net
    outputs = _outputs(data, loss)
    enough = net.output_size is None or net.output_size == outputs
    if loss == "cross_entropy" and net.output_size is not None:
        enough = net.output_size >= outputs
    if not enough:
        raise UnusableInput(
            f"these labels need {outputs} outputs, the network has {net.output_size}"
        )
    return replace(net, output_size=net.output_size or outputs)


def _units(block: Family, features: int) -> int:
    """Return the units of each position of an input."""
    positions = math.prod(block.signal(1))
    if features % positions:
        raise UnusableInput(
            f"a signal of {block} has {positions} positions, which {features} features do not fill"
        )
    return features // positions


def _outputs(data: Batch, loss: LossKind) -> int:
    labels = data.labels
    if loss == "mse" and labels.ndim > 2:
        raise UnusableInput(f"mse needs targets (batch,) or (batch, outputs), got {labels.shape}")
    if loss == "mse":
        return 1 if labels.ndim == 1 else labels.shape[1]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UnusableInput(
            "cross_entropy needs labels of shape (batch,), whole numbers from 0, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    classes = data.classes or int(labels.max()) + 1
    if classes < 2:
        raise UnusableInput("cross_entropy needs labels of at least two classes, got only class 0")
    return classes


def _unique(name: str, members: list) -> list:
    """Return the members, each with a name of its own: functions of one name are numbered."""
    seen: dict[str, int] = {}
    named = []
    for member in members:
        seen[member.name] = seen.get(member.name, 0) + 1
        if seen[member.name] > 1 and member.source == OWN:
            member = replace(member, name=f"{member.name}_{seen[member.name]}")
        named.append(member)
    twice = [n for n, k in collections.Counter(m.name for m in named).items() if k > 1]
    if twice:
        raise UnusableInput(f"{name} names must differ, got {', '.join(twice)} more than once")
    return named


def _listed(specs: Any) -> list:
    """Return a list of specifications, also of one alone: a name, a pair of numbers, a function."""
    if isinstance(specs, str) or callable(specs):
        return [specs]
    if isinstance(specs, tuple) and specs and all(isinstance(s, numbers.Real) for s in specs):
        return [specs]
    return list(specs or [])


def _typed(key: Array) -> Array:
    """Return a typed key, also from the older uint32 pair."""
    if not isinstance(key, jax.Array):
        raise UnusableInput(f"key must be a JAX random key such as jax.random.key(0), got {key!r}")
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def _attrs(grid: Grid, feed: Feed, mesh: Mesh) -> dict[str, str]:
    device = mesh.devices.flat[0]
    return record.provenance(
        network=grid.net.describe(),
        input=feed.kind if feed.data is None else feed.data.origin,
        cosine=feed.cosine if feed.data is None and feed.kind == "pairs" else None,
        batch=feed.size,
        loss=feed.loss,
        key=np.asarray(jax.random.key_data(feed.key)).tolist(),
        device=f"{mesh.size} × {device.device_kind} ({device.platform})",
        dtype=str(grid.net.dtype),
    )


def _explained(error: Exception) -> Exception:
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return PropagateError(
            "out of memory: use a smaller width, batch or block; "
            f"the device said: {str(error).splitlines()[0] if str(error) else 'no memory'}"
        )
    return error
