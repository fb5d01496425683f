"""`value_and_grad` of a function whose parameters may be an NNX or Equinox module.

A module is taken apart into its parameters and the rest, and put together within the function:

    fun(module, x)  ──▶  fun(together(params), x)  ──tracing──▶  grads, in the framework's own form

NNX's state, such as running averages and the counts of random streams, is written back to the
module after the call, as `nnx.value_and_grad` does. No framework is imported here.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from propagate.tracing import value_and_grad as of_arrays
from propagate.tracing.trace import Trace
from propagate.tracing.trees import is_trainable, partition
from propagate.types import Tree, UnusableInput


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    **options: Any,
) -> Callable[..., tuple[tuple[Any, Any], Trace]]:
    """Return a function like `jax.value_and_grad(fun)` that also returns a `Trace`.

    It may be jitted, and holds no callback. The value and the gradients are those of `fun`. An NNX
    module has the gradients of `nnx.value_and_grad`, an `nnx.State`; an Equinox module those of
    `eqx.filter_value_and_grad`, a module with None for what is no floating-point array.

    Args:
        fun: a function to a scalar, or to a pair (scalar, anything) with `has_aux`.
        argnums: what to differentiate by: the parameters. The other arguments are the data.
        has_aux: whether `fun` returns a pair.
        **options: `measures`, endings of the variables to record, such as `("mean", "q")`, all by
            default; `sites="all"` for every floating-point operation; `only`, a pattern for the
            names of sites, such as `"blocks.*"`; `sample`, how many numbers of each site to look
            at, None for all; `kept_bytes`, how much of these may be held at once.

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
    plain = of_arrays.value_and_grad(fun, argnums, has_aux, **options)

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> tuple[tuple[Any, Any], Trace]:
        numbers = [k % len(args) for k in np.atleast_1d(argnums)] if args else []
        apart = {k: one for k in numbers if (one := _taken_apart(args[k])) is not None}
        for k in set(numbers) - set(apart):
            _check_arrays(k, args[k])
        if not apart:
            return plain(*args, **kwargs)

        def inner(*own: Any, **kwargs: Any) -> tuple[Any, Any]:
            full = [apart[k].together(x) if k in apart else x for k, x in enumerate(own)]
            out = fun(*full, **kwargs)
            value, aux = out if has_aux else (out, None)
            return value, (aux, {k: one.state(full[k]) for k, one in apart.items()})

        pure = of_arrays.value_and_grad(inner, argnums, True, **options)
        params = [apart[k].params if k in apart else x for k, x in enumerate(args)]
        ((value, (aux, states)), grads), trace = pure(*params, **kwargs)
        for k, one in apart.items():
            one.keep(args[k], states[k])
        return ((value, aux) if has_aux else value, grads), trace

    return run


def _check_arrays(number: int, argument: Any) -> None:
    """Raise if an argument to differentiate by holds what is no array, as a Linen module is."""
    for leaf in jax.tree.leaves(argument):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise UnusableInput(
                f"argument {number} is differentiated by and must hold arrays, or be a module of "
                f"NNX or Equinox, got {type(leaf).__name__}: pass the parameters, and call the "
                "model within the function, as model.apply(params, x)"
            )


@dataclass(frozen=True)
class _Apart:
    """A module in two parts.

    Attributes:
        params: what to differentiate by.
        together: from such parameters to a module.
        state: what a call has changed in a module besides.
        keep: `keep(module, state)` writes that to the user's.
    """

    params: Tree
    together: Callable[[Tree], Any]
    state: Callable[[Any], Tree] = lambda _: ()
    keep: Callable[[Any, Tree], None] = lambda _module, _state: None


def _taken_apart(argument: Any) -> _Apart | None:
    """Return an argument in parts if it is or holds a module; None for any other."""
    if _holds(argument, "flax.nnx"):
        nnx = sys.modules["flax.nnx"]
        graph, params, rest = nnx.split(argument, nnx.Param, ...)
        rest = nnx.to_pure_dict(rest)  # arrays: merge makes new variables, which may be written to
        return _Apart(
            params,
            lambda params: nnx.merge(graph, params, rest),
            lambda module: nnx.split(module, nnx.Param, ...)[2],
            nnx.update,
        )
    if _holds(argument, "equinox"):
        return _Apart(*partition(argument, is_trainable))
    return None


def _holds(argument: Any, framework: str) -> bool:
    """Whether an argument is a module of a framework, or a tree that holds one."""
    cls = getattr(sys.modules.get(framework), "Module", None)
    if cls is None:
        return False
    leaves = jax.tree.leaves(argument, is_leaf=lambda x: isinstance(x, cls))
    return any(isinstance(x, cls) for x in leaves)
