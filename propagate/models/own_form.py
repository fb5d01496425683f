"""Parameters in the form in which a framework keeps them; the model that was given stays as it is.

    weights ──own──▶ a new module (Equinox, NNX), variables (Linen), a tree (functions, Haiku)

No framework is imported here.
"""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax

from propagate.tracing.trees import is_trainable, partition
from propagate.types import Tree

Own = Callable[[Tree], Any]


def same(weights: Tree) -> Tree:
    """Return the weights: the form of functions, Haiku and Keras."""
    return weights


def linen(variables: Any, state: Tree) -> Own:
    """Return what makes variables like the given ones, frozen and boxed as they are."""

    def own(params: Tree) -> Any:
        leaves = jax.tree.leaves({"params": params, **state})
        return jax.tree.unflatten(jax.tree.structure(variables), leaves)

    return own


def nnx(model: Any) -> Own:
    """Return what makes a copy of an NNX module that holds other parameters."""

    def own(params: Tree) -> Any:
        nnx = sys.modules["flax.nnx"]
        made = nnx.clone(model)
        state = nnx.state(made, nnx.Param)
        nnx.replace_by_pure_dict(state, params)
        nnx.update(made, state)
        return made

    return own


def equinox(model: Any) -> Own:
    """Return what makes an Equinox module that holds the arrays of another, in its own mode."""

    def own(module: Any) -> Any:
        given, fill = partition(model, is_trainable)
        leaves = jax.tree.leaves(partition(module, is_trainable)[0])
        return fill(jax.tree.unflatten(jax.tree.structure(given), leaves))

    return own


def distinct(names: list[str]) -> list[str]:
    """Return names of which each that has been there is numbered."""
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[i] = f"{name}_{seen[name]}"
    return names
