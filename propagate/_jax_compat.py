"""The only file that touches what differs between versions of JAX.

Equations are told apart by the names of their primitives; names that changed are listed with all
their spellings. Everything else uses JAX's public functions.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

__all__ = ["ClosedJaxpr", "Frame", "Jaxpr", "JaxprEqn", "Literal", "Var"]

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}
REMATS = {"remat": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr"}
JaxprEqn = Any  # a jax.extend.core.JaxprEqn, of whose values type checkers know no shape
TAG = "name"  # the primitive of `checkpoint_name`
CUSTOM = ("custom_jvp_call", "custom_vjp_call")


def tag(x: Any, name: str) -> Any:
    """Return `x`, which `diagnose` then records under this name.

    It is `jax.ad_checkpoint.checkpoint_name`: the identity, under jit, grad and vmap too.

    Args:
        x: an array of the program.
        name: of its site in the record.

    Example:
        >>> float(tag(1.5, "logits"))
        1.5
    """
    return checkpoint_name(x, name)


class Frame(NamedTuple):
    """A line of somebody's source."""

    file: str
    line: int
    function: str


def is_traced(x: Any) -> bool:
    """Return whether a value stands for one within a program that JAX is tracing."""
    return isinstance(x, Tracer)


@functools.cache
def quick_compilation(platform: str) -> dict[str, Any]:
    """Return the options that compile a program in the least time, for one that runs once.

    On a CPU most of the time goes into optimising kernels, and into their emitters of a second
    generation, which may be turned off up to 0.11.
    """
    if platform != "cpu":
        return {}
    least = {"xla_backend_optimization_level": 0}
    try:
        jax.jit(lambda: 0).lower().compile({"xla_cpu_use_fusion_emitters": False})
    except jax.errors.JaxRuntimeError:
        return least
    return least | {"xla_cpu_use_fusion_emitters": False}


def opened(value: Any) -> tuple[Jaxpr, list[Any]]:
    """Return a jaxpr and its constants, whether it came closed or not (one class since 0.11)."""
    consts = list(getattr(value, "consts", ()))
    return getattr(value, "jaxpr", value), consts


def inner(eqn: JaxprEqn) -> Iterator[Any]:
    """Yield the jaxprs among an equation's parameters."""
    for value in eqn.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, (ClosedJaxpr, Jaxpr)):
                yield one


def scan_split(eqn: JaxprEqn) -> tuple[int, int]:
    """Return how many operands of a scan are constants, and how many are carried."""
    if "ft_in" in eqn.params:  # since 0.11
        consts, carry, _ = map(len, eqn.params["ft_in"].unpack())
        return consts, carry
    return eqn.params["num_consts"], eqn.params["num_carry"]


def bind(eqn: JaxprEqn, args: list[Any]) -> list[Any]:
    """Apply an equation as it stands; rules of custom derivatives stay in force."""
    out = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def function_name(eqn: JaxprEqn) -> str:
    """Return the name of the function that an equation calls, or ''."""
    if "name" in eqn.params:
        return str(eqn.params["name"])
    for jaxpr in inner(eqn):
        name = getattr(getattr(opened(jaxpr)[0], "debug_info", None), "func_name", "")
        return str(name).removeprefix("_")
    return ""


def name_stack(eqn: JaxprEqn) -> str:
    """Return the names of the scopes around an equation, joined by '/'."""
    return str(eqn.source_info.name_stack)


def frames(eqn: JaxprEqn) -> list[Frame]:
    """Return the lines that led to an equation, the innermost first."""
    traceback = eqn.source_info.traceback
    if traceback is None:
        return []
    return [Frame(f.file_name, f.line_num, f.function_name) for f in traceback.frames]
