"""The sweep's program of a network and an abstract block of it, to trace and lower."""

import re
from collections.abc import Callable

import jax
import numpy as np

import propagate as pp
from propagate.activations import activation
from propagate.initializers import initializer
from propagate.network import layer_table
from propagate.record import measures
from propagate.run import dispatch, plan
from propagate.run.pairings import Grouping, Turn, blocks_of, turns
from propagate.run.program import Layer, Numbers, StackProgram

ACTIVATIONS = ("relu", "gelu")
BATCH, CONFIGS = 4, 2


def abstract(net: pp.Network) -> tuple[StackProgram, Numbers]:
    """Return the program and the shapes and dtypes of what it takes, of one slot."""
    block = blocks_of(net, [net.init] * CONFIGS, len(ACTIVATIONS), Grouping(CONFIGS))[0]
    return program_of(net, ACTIVATIONS, block), fed(net, Turn((((0, block),),)))


def whole_grid(
    net: pp.Network, inits: list[str], activations: list[str]
) -> tuple[Callable, Numbers]:
    """Return what an accelerator runs for a grid, and the shapes of what it takes."""
    made = [initializer(name) for name in inits]
    blocks = blocks_of(net, made, len(activations), Grouping(activations=True))
    (turn,) = turns(blocks, 1, 1, len(blocks))
    return dispatch.jitted(program_of(net, activations, blocks[0]), mesh()), fed(net, turn)


def program_of(net: pp.Network, activations, block) -> StackProgram:
    phis = [activation(name) for name in activations]
    selection = measures.select(table=net.family.table)
    return plan.program(net, phis, block, selection, "gaussian", BATCH)


def fed(net: pp.Network, turn: Turn) -> Numbers:
    """Return the shapes and dtypes of what a turn of one device takes."""
    jobs, block, spec = len(turn.bases), turn.slots[0][0][1], layer_table(net, BATCH)[0]

    def of(*shape: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), np.dtype(dtype))

    own, shared = (spec.own(shared=s) for s in (False, True))
    phi = (net.depth,) if block.alone else (net.depth, block.configs)
    layers = Layer(
        {name: of(net.depth, jobs, *p.shape) for name, p in own.items()},
        {name: of(jobs, net.depth, block.configs) for name in own | shared},
        of(jobs, *phi, dtype="int32"),
        *(of(jobs, net.depth, dtype=dtype) for dtype in ("bool", "int32")),
    )
    batch = of(jobs, BATCH, *net.family.signal(net.width))
    common = {name: of(jobs, *p.shape) for name, p in shared.items()}
    return Numbers((layers,), common, of(jobs, block.configs, dtype="bool"), batch, batch)


def mesh() -> jax.sharding.Mesh:
    """Return a mesh of one device."""
    return jax.make_mesh((1,), ("slot",), axis_types=(jax.sharding.AxisType.Auto,))


def callbacks(fn, *args) -> list[str]:
    """Return the host callbacks of a function lowered for all three platforms."""
    exported = jax.export.export(fn, platforms=("cpu", "cuda", "tpu"))(*args)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    calls = re.findall(r"custom_call *@([\w.]+)", exported.mlir_module())
    return [name for name in calls if "callback" in name]
