"""Initial weights of models that keep them outside: drawn by a program that is compiled once."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from propagate import _jax_compat as compat
from propagate.tracing.trees import is_array
from propagate.types import Array, Tree

_Init = Callable[[Any, Array, tuple[Any, ...], dict[str, Any]], Tree]
INITIALISERS = 8  # programs that are kept, each with its model
_initialisers: dict[Any, Callable[..., Tree]] = {}


def drawn(
    init: _Init, model: Any, key: Array, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tree:
    """Return `init(model, key, inputs, kwargs)`, without running the forward pass that it traces.

    It is compiled once for a model, and anew only for other shapes or keyword arguments.
    """
    arrays = jax.tree.map(lambda x: x if is_array(x) else None, inputs)
    fixed = jax.tree.map(lambda x: None if is_array(x) else x, inputs)
    leaves, structure = jax.tree.flatten((fixed, kwargs))
    known = init, _same(model), structure, *((type(x), x) for x in leaves)

    def whole(arrays: Tree) -> Tree:
        either = lambda a, b: b if a is None else a  # noqa: E731
        return jax.tree.map(either, arrays, fixed, is_leaf=lambda x: x is None)

    try:
        if known not in _initialisers:
            _initialisers[known] = _quick(lambda key, given: init(model, key, whole(given), kwargs))
        found = _initialisers[known](key, arrays)
    except (TypeError, jax.errors.ConcretizationTypeError):
        # an argument that has no hash, or a model that looks at the numbers of an input
        return _quick(lambda key: init(model, key, inputs, kwargs))(key)
    while len(_initialisers) > INITIALISERS:
        del _initialisers[next(iter(_initialisers))]
    return found


def _same(model: Any) -> Any:
    """Return what equal models share: themselves, or of one without a hash its identity."""
    try:
        hash(model)
    except TypeError:
        return id(model)  # which is no other's as long as its program is kept
    return model


def _quick(init: Callable[..., Tree]) -> Callable[..., Tree]:
    # compiled for the least time on a CPU: it runs once, and compiling is what takes long there
    return jax.jit(init, compiler_options=compat.quick_compilation(jax.default_backend()) or None)


def linen_init(model: Any, key: Array, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
    """Return the variables of a Linen module."""
    return sys.modules["flax.core"].unfreeze(model.init(streams(key), *inputs, **kwargs))


def linen_state(*arguments: Any) -> Tree:
    """Return those beside the parameters."""
    return {k: v for k, v in linen_init(*arguments).items() if k != "params"}


def haiku_init(model: Any, key: Array, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
    """Return the parameters, and perhaps the state, of a Haiku model."""
    return model.init(key, *inputs, **kwargs)


def haiku_state(*arguments: Any) -> Tree:
    """Return the state alone."""
    return haiku_init(*arguments)[1]


def streams(key: Array) -> dict[str, Array]:
    """Return the random streams of a Linen call."""
    return dict(zip(("params", "dropout"), jax.random.split(key), strict=True))


def renewed(streams: Tree, key: Array) -> Tree:
    """Return other keys in place of the given ones, of their shapes and generators."""
    number = jax.random.bits(key, (), "uint32")

    def folded(old: Any) -> Any:
        if not jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
            return old  # in the older form of a few uint32
        fold = jax.random.fold_in
        for _ in range(old.ndim):
            fold = jax.vmap(fold, in_axes=(0, None))
        return fold(old, number)

    return jax.tree.map(folded, streams)
