"""`measure` and `sweep`: initialisers × activations × seeds through a deep stack, to a record.

Blocks of pairings are independent, so a few are in flight at once: while one is in a matrix
product the other applies its activation. With several devices each takes its own seeds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax.sharding import AxisType, Mesh

from propagate import activations, batches, checks
from propagate.batches import Batch, as_batch, output_size
from propagate.blocks.contract import Family
from propagate.checks import random_key
from propagate.initializers import initializer
from propagate.network import Network
from propagate.record import dataset, provenance
from propagate.record.measures import select
from propagate.run import memory, plan
from propagate.run.dispatch import results
from propagate.run.feed import Feed
from propagate.run.grid import Grid, expect, listed, unique, write
from propagate.run.memory import explained
from propagate.run.pairings import Turn, blocks_of, grouping, turns
from propagate.types import Array, ArrayLike, InputKind, JaxDevice, LossKind, UnusableInput

Progress = Callable[[int, int], None]


class Interrupted(KeyboardInterrupt):
    """A sweep or training that was stopped; `record` holds what was measured, NaN elsewhere."""

    def __init__(self, partial: xr.Dataset, done: int, total: int, unit: str = "blocks") -> None:
        super().__init__(f"stopped after {done} of {total} {unit}")
        self.record = partial


def measure(net: Network, key: Array, *, seeds: int = 8, **options: Any) -> xr.Dataset:
    """Measure one network: the record of `sweep` with dims (seed, layer).

    Args:
        net: the network.
        key: a JAX random key; weights, inputs and cotangents of all seeds follow from it.
        seeds: number of independent draws.
        **options: `batch`, `measures`, `inputs`, `labels`, `loss` and the others of `sweep`.

    Returns:
        The record, dims (seed, layer).

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
    compile_for: Sequence[activations.ActivationLike] = (),
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
        devices: the devices to use; by default `jax_default_device` if set, or all local ones.
        compile_for: activations that programs are compiled for besides. On a CPU a later call
            with any of them, and the same `compile_for`, compiles nothing.
        progress: called with (blocks done, blocks in all).

    Returns:
        The record, dims (init, activation, seed, layer). Where the seeds do not settle whether a
        growth is fine, it also holds what theory expects: `log10_forward_q_expected`, and
        `log10_forward_q_expected_sd` over draws; likewise backward.

    Raises:
        UnusableInput: an argument that cannot be used, or an initialiser that does not draw from
            the key that it is given.
        PropagateError: the run does not fit in memory.
        Interrupted: stopped by the user; carries what was measured.

    Example:
        >>> net, key = Network(depth=3, width=16), jax.random.key(0)
        >>> found = sweep(net, init=["he_normal", "zeros"], key=key, measures=("q",))
        >>> float(found.log10_forward_q.sel(init="zeros").max("seed").squeeze()[1])
        -inf
    """
    counts = {"seeds": seeds, "batch": batch, "block": 1 if block is None else block}
    for name, count in counts.items():
        checks.check_count(name, count)
    batches.check_random(input, cosine)
    data = as_batch(inputs, labels, loss)
    net = fitted(net, data, loss)
    grid = Grid(
        net,
        unique("init", [initializer(spec) for spec in listed(init) or [net.init]]),
        unique(
            "activation",
            [activations.activation(spec) for spec in listed(activation) or [net.activation]],
        ),
        select(measures, net.family.table),
        loss,
        tuple(activations.activation(spec) for spec in compile_for),
    )
    for one in grid.inits:
        net.check(one)
    variables = sum(len(wanted) for _, wanted in grid.selection)
    memory.check_record(len(grid.inits) * len(grid.activations), seeds, net.depth, variables)
    parameters = plan.facts(net, grid.inits, grid.activations)
    feed = Feed(net, random_key(key), data, input, batch, cosine, loss)
    several = checks.several_devices(devices)
    planned = _turns(grid, feed, several, seeds, block)
    used = several[: len(planned[0].slots)]
    mesh = Mesh(np.asarray(used), "slot", (AxisType.Auto,))
    found = dataset.new(grid.selection, grid.coords, seeds, net.depth)
    found.attrs = _attrs(grid, feed, mesh, parameters)
    done = 0
    try:
        for done, (turn, raw) in enumerate(results(grid, feed, mesh, planned), 1):
            write(found, grid.selection, turn, raw)
            if progress:
                progress(done, len(planned))
    except KeyboardInterrupt:
        raise Interrupted(found, done, len(planned)) from None
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        raise explained(error) from error
    return expect(found, grid, feed)


def _turns(
    grid: Grid, feed: Feed, devices: Sequence[JaxDevice], seeds: int, block: int | None
) -> list[Turn]:
    """Return what runs at once, turn by turn."""
    together = grouping(devices[0].platform, block)
    blocks = blocks_of(grid.net, grid.inits, len(grid.activations), together)
    if not together.activations:
        return turns(blocks, seeds, len(devices))
    kept = memory.limits(devices[0])
    most = plan.side_by_side(grid.net, blocks[0], grid.selection, feed.size, kept)
    return turns(blocks, seeds, len(devices), most)


def fitted(net: Network, data: Batch | None, loss: LossKind) -> Network:
    """Return the network with its input and output sizes taken from the data."""
    if data is None:
        return net
    units = _units(net.family, data.inputs.shape[1])
    if net.input_size not in (None, units):
        raise UnusableInput(f"the network takes {net.input_size} features, got {units}")
    same = None if net.family.resizes else net.width  # such layers have as many outputs as inputs
    if same not in (None, units):
        raise UnusableInput(_narrow(net, data, units))
    net = replace(net, input_size=units, output_size=net.output_size or same)
    if loss == "gaussian":
        return net
    outputs = output_size(data, loss)
    enough = net.output_size is None or net.output_size == outputs
    if loss == "cross_entropy" and net.output_size is not None:
        enough = net.output_size >= outputs
    if not enough:
        raise UnusableInput(
            f"these labels need {outputs} outputs, the network has {net.output_size}"
        )
    return replace(net, output_size=net.output_size or outputs)


def _narrow(net: Network, data: Batch, units: int) -> str:
    """Say which width a family takes whose layers have as many outputs as inputs."""
    positions, features = math.prod(net.family.signal(1)), data.inputs.shape[1]
    each = "" if positions == 1 else f", {units} for each of {positions} positions"
    fewer = "" if positions == 1 else ", or fewer positions of more units"
    return (
        f"{data.origin} has {features} inputs{each}, and a layer of {net.family.name} has as many "
        f"outputs as inputs: use width {units}{fewer}, got width {net.width}"
    )


def _units(block: Family, features: int) -> int:
    """Return the units of each position of an input."""
    positions = math.prod(block.signal(1))
    if features % positions:
        raise UnusableInput(
            f"a signal of {block} has {positions} positions, which {features} features do not fill"
        )
    return features // positions


def _attrs(grid: Grid, feed: Feed, mesh: Mesh, parameters: dict[str, Any]) -> dict[str, str]:
    device = mesh.devices.flat[0]
    return provenance.provenance(
        network=grid.net.describe(),
        input=feed.kind if feed.data is None else feed.data.origin,
        cosine=feed.cosine if feed.data is None and feed.kind == "pairs" else None,
        batch=feed.size,
        loss=feed.loss,
        parameters=parameters,
        critical=grid.critical,
        key=np.asarray(jax.random.key_data(feed.key)).tolist(),
        device=f"{mesh.size} × {device.device_kind} ({device.platform})",
        dtype=str(grid.net.dtype),
    )
