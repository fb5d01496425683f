"""What is refused, since nothing can be said about it: data that is not finite, no gradient."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from propagate.tracing.trees import is_data
from propagate.types import PropagateError, Tree, UnusableInput


def check_finite(what: str, tree: Tree) -> None:
    """Raise unless data is finite; an array of 0 or less with -inf is a mask, and passes.

    Args:
        what: the data are called: `"inputs"`, `"labels"`.
        tree: of them.

    Raises:
        UnusableInput: NaN or infinities.

    Example:
        >>> check_finite("inputs", jnp.array([0.0, -jnp.inf]))
        >>> check_finite("inputs", jnp.array([0.0, jnp.nan, 2.0]))
        Traceback (most recent call last):
        propagate.types.UnusableInput: inputs must be finite, but 1 of 3 values of float32[3] are \
NaN, the first at (1,): replace them or leave these inputs out
    """
    for x in jax.tree.leaves(tree):
        if not (is_data(x) and jnp.issubdtype(x.dtype, jnp.inexact)):
            continue
        bad = ~np.asarray(jnp.isfinite(x))
        if not bad.any():
            continue
        values = np.asarray(x)
        values = values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)
        if not np.iscomplexobj(values) and (values <= 0).all():
            continue  # a mask to add to scores
        kinds = {"NaN": np.isnan(values).any(), "infinite": np.isinf(values).any()}
        words = " or ".join(word for word, there in kinds.items() if there)
        first = tuple(map(int, np.argwhere(bad)[0]))
        raise UnusableInput(
            f"{what} must be finite, but {bad.sum()} of {bad.size} values of "
            f"{x.dtype}{list(x.shape)} are {words}, the first at {first}: replace them or leave "
            "these inputs out"
        )


def check_outputs(results: Sequence[Any], structure: Any, loss: Any) -> None:
    """Raise unless a result of the model, or its loss, has a dtype that has gradients.

    Args:
        results: shapes and dtypes of the loss, if there is one, and of the model's results.
        structure: of both, a pair.
        loss: the function; None without one.

    Raises:
        UnusableInput: integers, truth values, None; a loss that is no scalar.
    """
    value, outputs = structure.unflatten(results)
    whose, own, remedy = "the output", outputs, "return what it is made from, such as the logits"
    if loss is not None:
        whose, own, remedy = "the loss", value, "return a mean of floating-point numbers"
    leaves = jax.tree.leaves(own)
    got = ", ".join(f"{x.dtype}{list(x.shape)}" for x in leaves) or "None"
    if loss is not None and len(leaves) == 1 and leaves[0].shape:
        raise UnusableInput(f"the loss must be a scalar, got {got}: return its mean")
    has = lambda kind: any(jnp.issubdtype(x.dtype, kind) for x in leaves)  # noqa: E731
    if has(jnp.floating):
        return
    kinds = {"complex": jnp.complexfloating, "an integer": jnp.integer, "a truth value": jnp.bool_}
    kind = next((name for name, dtype in kinds.items() if has(dtype)), "no array")
    raise UnusableInput(
        f"{whose} must be of floating-point numbers, got {got}: {whose} is {kind} and has no "
        f"gradient; {remedy}"
    )


def returned(outputs: Tree) -> Tree:
    """Return what a model returned.

    Raises:
        UnusableInput: that is nothing.

    Example:
        >>> returned(None)
        Traceback (most recent call last):
        propagate.types.UnusableInput: the model returned None: return its output
    """
    if not jax.tree.leaves(outputs):
        raise UnusableInput(f"the model returned {outputs!r}: return its output")
    return outputs


def no_gradient(cut: str) -> PropagateError:
    """Return the error for a program through which no gradient flows at all.

    Args:
        cut: what ends it, in words.
    """
    return PropagateError(
        "a gradient must flow from the output, or the loss, to the parameters and sites, but all "
        f"of it is cut off: {cut}. Take that out of the path for the diagnosis"
    )
