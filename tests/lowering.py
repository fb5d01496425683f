"""The sweep's program of a network and an abstract block of it, to trace and lower."""

import re

import jax

import propagate as pp
from propagate.record import measures
from propagate.run import plan, program
from propagate.run.pairings import blocks_of

ACTIVATIONS = ("relu", "gelu")
BATCH, CONFIGS = 4, 2


def abstract(net: pp.Network) -> tuple[program.StackProgram, program.Numbers]:
    """Return the program and the shapes and dtypes of what it takes, of one slot."""
    phis = [pp.ACTIVATIONS[name]() for name in ACTIVATIONS]
    pairings = blocks_of(net, [net.init] * CONFIGS, len(phis), CONFIGS)[0]
    selection = measures.select(table=net.family.table)
    program = plan.program(net, phis, pairings, selection, "gaussian", BATCH)
    (part,) = program.runs

    def spec(*shape: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), dtype)

    own, shared = (program.parameters(part, shared=s) for s in (False, True))
    layers = program.Layer(
        {name: spec(net.depth, *p.shape) for name, p in own.items()},
        {name: spec(net.depth, CONFIGS) for name in own | shared},
        *(spec(net.depth, dtype=dtype) for dtype in ("int32", "bool", "int32")),
    )
    batch = spec(BATCH, *net.family.signal(net.width))
    common = {name: spec(*p.shape) for name, p in shared.items()}
    return program, program.Numbers((layers,), common, spec(CONFIGS, dtype="bool"), batch, batch)


def mesh() -> jax.sharding.Mesh:
    """Return a mesh of one device."""
    return jax.make_mesh((1,), ("slot",), axis_types=(jax.sharding.AxisType.Auto,))


def callbacks(fn, *args) -> list[str]:
    """Return the host callbacks of a function lowered for all three platforms."""
    exported = jax.export.export(fn, platforms=("cpu", "cuda", "tpu"))(*args)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    calls = re.findall(r"custom_call *@([\w.]+)", exported.mlir_module())
    return [name for name in calls if "callback" in name]
