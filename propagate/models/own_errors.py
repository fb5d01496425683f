"""Errors that a model itself raises, with what it was called on: their class and message stay.

    >>> import numpy as np
    >>> w, x = np.ones((3, 2), "float32"), np.ones((5, 4), "float32")
    >>> try:
    ...     with told("the model", {"w": w}, (x,)):
    ...         x @ w
    ... except ValueError as error:
    ...     print(*notes_of(error))
    The model itself fails on the parameters w float32[3,2] and the inputs float32[5,4]

No framework is imported here.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import jax

from propagate.tracing.trees import is_data, parameter_paths
from propagate.types import PropagateError, Tree, UnusableInput

MOST = 8  # shapes that are written out


@contextlib.contextmanager
def told(what: str, params: Tree, inputs: Tree) -> Iterator[None]:
    """Add a note to an error that is raised within: which shapes arrived.

    Args:
        what: raises it: `"the model"`.
        params: its parameters, or None before there are any.
        inputs: that it is called on.
    """
    try:
        yield
    except PropagateError:
        raise
    except Exception as error:  # whatever a model raises
        named = zip(parameter_paths(params), jax.tree.leaves(params), strict=True)
        own = _listed([f"{name} {_shape(x)}" for name, x in named])
        given = _listed([_shape(x) for x in jax.tree.leaves(inputs) if is_data(x)])
        of = f"the parameters {own} and " if own else ""
        error.add_note(f"{what[0].upper()}{what[1:]} itself fails on {of}the inputs {given}")
        raise


def _shape(x: Any) -> str:
    shape = ",".join(map(str, getattr(x, "shape", ())))
    return f"{getattr(x, 'dtype', type(x).__name__)}[{shape}]"


def _listed(words: list[str]) -> str:
    more = len(words) - MOST
    return ", ".join(words[:MOST]) + (f" and {more} more" if more > 0 else "")


def notes_of(error: BaseException) -> list[str]:
    """Return the notes of an error that are not JAX's own."""
    return [note for note in getattr(error, "__notes__", ()) if not note.startswith("---")]


def of_one_example(module: Any, inputs: tuple[Any, ...]) -> str:
    """Return how to call an Equinox module on a batch, with its state if it has one."""
    names = _axis_names(module)
    stateful = len(inputs) > 1 and any(_is_state(x) for x in inputs)
    if not (names or stateful):
        return "Equinox modules take one example: for a batch pass vmap=True"
    axis = f"axis_name={names[0]!r}, " if names else ""
    return (
        "Equinox modules take one example, and this one its state: pass diagnose(lambda "
        f"module, x: jax.vmap(module, {axis}in_axes=(0, None), out_axes=(0, None))(x, state)[0], "
        "module, x)"
    )


def check_no_state(module: Any, inputs: tuple[Any, ...]) -> None:
    """Raise `UnusableInput` if a state is among the inputs that are to be mapped over the batch."""
    if any(map(_is_state, inputs)):
        raise UnusableInput(
            "vmap maps all inputs over axis 0, and a state has no such axis. "
            + of_one_example(module, inputs)
        )


def _is_state(x: Any) -> bool:
    nn = getattr(sys.modules.get("equinox"), "nn", None)
    return nn is not None and isinstance(x, nn.State)


def _axis_names(module: Any) -> list[Any]:
    """Return the axes over which batch norms of a module take their statistics."""
    named = lambda x: hasattr(x, "axis_name") and not isinstance(x, type)  # noqa: E731
    leaves = jax.tree.leaves(module, is_leaf=named)
    return [x.axis_name for x in leaves if named(x)]
