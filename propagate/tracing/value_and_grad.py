"""`value_and_grad`: `jax.value_and_grad` that also returns statistics of signals and gradients."""

import functools
import gc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from propagate.tracing.probe import Options, Sites, probe, weigh
from propagate.tracing.trace import Trace
from propagate.tracing.trees import split
from propagate.types import Array, Tree


def _uncollected(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Hold the garbage collector back: tracing makes a million objects, none of them garbage."""

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not gc.isenabled():
            return fn(*args, **kwargs)
        gc.disable()
        try:
            return fn(*args, **kwargs)
        finally:
            gc.enable()

    return run


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    measures: Sequence[str] | None = None,
    sites: Sites = "default",
    only: str | None = None,
) -> Callable[..., tuple[tuple[Any, Any], Trace]]:
    """Return a function like `jax.value_and_grad(fun)` that also returns a `Trace`.

    It may be jitted, and holds no callback. The value and the gradients are those of `fun`.

    Args:
        fun: a function to a scalar, or to a pair (scalar, anything) with `has_aux`.
        argnums: what to differentiate by: the parameters. The other arguments are the data.
        has_aux: whether `fun` returns a pair.
        measures: endings of the variables to record, such as `("mean", "q")`; all by default.
        sites: `"default"`, or `"all"` for every floating-point operation.
        only: a pattern for the names of sites, such as `"blocks.*"`.

    Returns:
        A function to `((value, grads), trace)`; `trace.record()` is the labelled record. It raises
        `PropagateError` where no value depends on the data and can be recorded.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2)
        >>> (value, grads), trace = value_and_grad(loss)(jnp.eye(3), jnp.ones((2, 3)))
        >>> trace.record()["label"].values.tolist()
        ['matmul', 'tanh', 'integer_pow']
    """
    options = Options(None if measures is None else tuple(measures), sites, only)

    @functools.wraps(fun)
    @_uncollected
    def run(*args: Any, **kwargs: Any) -> tuple[tuple[Any, Any], Trace]:
        numbers = [k % len(args) for k in np.atleast_1d(argnums)]
        params = tuple(args[k] for k in numbers)
        rest = [None if k in numbers else arg for k, arg in enumerate(args)]
        data, fill = split((rest, kwargs), lambda x: isinstance(x, (jax.Array, np.ndarray)))

        def program(params: Any, data: Tree) -> Any:
            full, kwargs = fill(data)
            for k, arg in zip(numbers, params if several else (params,), strict=True):
                full[k] = arg
            return fun(*full, **kwargs)

        several = not isinstance(argnums, int)
        head = (lambda out: out) if has_aux else (lambda out: (out, None))
        done = traced(program, params if several else params[0], data, options, head)
        return (((done.value, done.aux) if has_aux else done.value), done.grads), done.trace

    return run


class Traced(NamedTuple):
    """A program's value, what else it returned, its gradients, the statistics, and its jaxpr."""

    value: Array
    aux: Any
    grads: Tree | None
    trace: Trace
    jaxpr: Any


def traced(
    program: Callable[[Tree, Tree], Any],
    params: Tree,
    data: Tree,
    options: Options,
    head: Callable[[Any], tuple[Array, Any]],
    *,
    backward: bool = True,
) -> Traced:
    """Run `program(params, data)` and record its sites.

    Args:
        program: any function.
        params: what to differentiate by, and to name layers after.
        data: the batch and whatever else the program takes.
        options: what to look at.
        head: from the program's result to a scalar and anything else.
        backward: whether to record gradients too.
    """
    tapped, meta, structure = probe(program, params, data, options)

    def scalar(params: Tree, slots: Any) -> tuple[Array, Any]:
        outs, seen = tapped([*jax.tree.leaves(params), *jax.tree.leaves(data)], slots)
        value, aux = head(structure.unflatten(outs))
        return value, (aux, seen)

    if not backward:
        value, (aux, seen) = scalar(params, tapped.slots())
        trace = Trace(seen, {}, weigh(meta, params, None), meta)
        return Traced(value, aux, None, trace, tapped.jaxpr)
    pulled = jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True)(params, tapped.slots())
    (value, (aux, seen)), (grads, gradients) = pulled
    trace = Trace(seen, gradients, weigh(meta, params, grads), meta)
    return Traced(value, aux, grads, trace, tapped.jaxpr)
