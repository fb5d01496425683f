"""Multipliers of single parameters, applied to a tree: every other leaf stays the same object.

A parameter is named as in the records: by its path, and within a stack that a scan runs over by
the number of its layer besides. A multiplier is counted in decades of the second moment: +2 is ten
times as large. Leaves that are one and the same array stay so.

    >>> import jax.numpy as jnp
    >>> params = {"a": jnp.ones(2), "stack": jnp.ones((2, 3))}
    >>> table = ParameterTable.of(params, (0, 1))
    >>> scaled(params, table, {"stack[1]": 2.0})["stack"].tolist()
    [[1.0, 1.0, 1.0], [10.0, 10.0, 10.0]]
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from propagate.tracing.trees import ParameterTable
from propagate.types import Array, Tree

Row = tuple[int, tuple[int, ...]]


def rows_by_name(table: ParameterTable) -> dict[str, Row]:
    """Return the number of the leaf, and the index within it, of every parameter."""
    return dict(zip(table.names(), table.rows(), strict=True))


def scaled(params: Tree, table: ParameterTable, decades: Mapping[str, float]) -> Tree:
    """Return the parameters with some of them multiplied.

    Args:
        params: of the model.
        table: what is known of them.
        decades: by name, of the second moment.
    """
    times = lambda x, index, name: x.at[index].multiply(10 ** (decades[name] / 2))  # noqa: E731
    return changed(params, table, {n: times for n, d in decades.items() if d})


def changed(params: Tree, table: ParameterTable, changes: Mapping[str, Any]) -> Tree:
    """Return the parameters with some of them changed.

    Args:
        params: of the model.
        table: what is known of them.
        changes: by name, `change(leaf, index, name) -> leaf`.
    """
    leaves, structure = jax.tree.flatten(params)
    new, rows = list(leaves), rows_by_name(table)
    for name, change in changes.items():
        number, index = rows[name]
        made = change(jnp.asarray(new[number]), index, name)
        for k in _tied(leaves, number):
            new[k] = made
    return structure.unflatten(new)


def _tied(leaves: list[Array], number: int) -> list[int]:
    """Return the numbers of the leaves that are one array with this one."""
    return [k for k, leaf in enumerate(leaves) if leaf is leaves[number]]


def tied(params: Tree, table: ParameterTable) -> dict[str, str]:
    """Return for each parameter the first one that is the same array: itself, if none is."""
    leaves = jax.tree.leaves(params)
    first: dict[Any, str] = {}
    found: dict[str, str] = {}
    for name, (number, index) in rows_by_name(table).items():
        found[name] = first.setdefault((id(leaves[number]), index), name)
    return found
