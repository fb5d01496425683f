"""Losses by name, as `sweep` has them: `"mse"` and `"cross_entropy"`."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate.types import Array, Tree, UnusableInput, at_least_float32

Loss = Callable[[Any, Any], Array]
Named = Literal["mse", "cross_entropy"]


def loss_of(loss: Loss | str | None, labels: Any) -> Loss | None:
    """Return the function that a loss means; None if there is none.

    Args:
        loss: a function of (outputs, labels), a name, or None.
        labels: for it.

    Raises:
        UnusableInput: no such loss, a name without labels, or labels without a loss.

    Example:
        >>> float(loss_of("mse", jnp.zeros(2))(jnp.ones((2, 1)), jnp.zeros(2)))
        1.0
    """
    if loss is None and labels is not None:
        raise UnusableInput(
            "labels have no effect without a loss: pass loss='cross_entropy', loss='mse' or a "
            "function of (outputs, labels), or leave them out"
        )
    if not isinstance(loss, str):
        return loss
    if loss not in get_args(Named):
        raise UnusableInput(
            f"loss must be {' or '.join(map(repr, get_args(Named)))}, or a function of "
            f"(outputs, labels), got {loss!r}"
        )
    if labels is None:
        raise UnusableInput(f"loss {loss!r} needs labels, one for each input; got none")
    return mse if loss == "mse" else cross_entropy


def mse(outputs: Tree, labels: Any) -> Array:
    r"""Return $\frac1{BK}\sum_{bk}(y_{bk} - t_{bk})^2$, the mean over all outputs.

    Args:
        outputs: y, an array.
        labels: t, of the same shape, or (B,) for one output.
    """
    y = _one_array("mse", outputs)
    t = jnp.asarray(labels)
    if t.shape == y.shape[:-1] and y.shape[-1] == 1:
        t = t[..., None]
    if t.shape != y.shape:
        raise UnusableInput(f"mse needs labels of the outputs' shape {y.shape}, got {t.shape}")
    return jnp.mean((y - t.astype(y.dtype)) ** 2)


def cross_entropy(outputs: Tree, labels: Any) -> Array:
    r"""Return $-\frac1B\sum_b\ln\mathrm{softmax}(y_b)_{t_b}$, the mean over all labels.

    Args:
        outputs: the logits y, (…, classes).
        labels: the classes t, whole numbers of shape (…).
    """
    y = _one_array("cross_entropy", outputs)
    t = jnp.asarray(labels)
    if t.shape != y.shape[:-1] or not jnp.issubdtype(t.dtype, jnp.integer):
        raise UnusableInput(
            f"cross_entropy of outputs of shape {y.shape} needs labels of shape {y.shape[:-1]}, "
            f"whole numbers from 0, got {t.dtype} of shape {t.shape}"
        )
    picked = jnp.take_along_axis(jax.nn.log_softmax(y), t[..., None].astype("int32"), axis=-1)
    return -jnp.mean(picked)


def check_classes(loss: Loss | None, labels: Any, outputs: Tree) -> None:
    """Raise `UnusableInput` if `cross_entropy` has labels for which there is no output."""
    if loss is not cross_entropy or compat.is_traced(labels):
        return
    classes, t = jax.tree.leaves(outputs)[0].shape[-1], np.asarray(labels)
    if t.size and not 0 <= t.min() <= t.max() < classes:
        raise UnusableInput(
            f"labels must be from 0 to {classes - 1}, as the model has {classes} outputs; they "
            f"are from {t.min()} to {t.max()}"
        )


def _one_array(name: str, outputs: Tree) -> Array:
    leaves = jax.tree.leaves(outputs)
    if len(leaves) != 1 or jnp.ndim(leaves[0]) < 1:
        shapes = ", ".join(str(jnp.shape(x)) for x in leaves)
        raise UnusableInput(
            f"{name} needs a model with one output, (batch, …), got {shapes or 'none'}: pass a "
            "function of (outputs, labels) as loss"
        )
    y = jnp.asarray(leaves[0])
    return y.astype(at_least_float32(y.dtype))
