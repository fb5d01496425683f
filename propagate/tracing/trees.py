"""Trees of parameters and of data: paths of parameters, random keys, how many inputs there are."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from propagate.types import Tree, UnusableInput


def leaf_names(params: Tree) -> list[str]:
    """Return the dotted path of every leaf, in the order of `jax.tree.leaves`.

    Example:
        >>> leaf_names({"params": {"Dense_0": {"kernel": 1.0}}, "mlp/~/linear_0": {"w": 2.0}})
        ['mlp.linear_0.w', 'Dense_0.kernel']
    """
    return [_dotted(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


def _dotted(path: tuple[Any, ...]) -> str:
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):  # an nnx.Variable
        path = path[:-1]
    words = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    words = [word for word in words if word not in ("", "~")]
    if words[:1] == ["params"]:  # Linen's collection
        words = words[1:]
    return ".".join(words) or "params"


def split(tree: Tree, moves: Callable[[Any], bool]) -> tuple[Tree, Callable[[Tree], Tree]]:
    """Return the tree with `None` for what stays, and the function that fills that in again."""
    leaves, structure = jax.tree.flatten(tree)
    moving = [moves(leaf) for leaf in leaves]
    pairs = list(zip(leaves, moving, strict=True))
    given = structure.unflatten([leaf if goes else None for leaf, goes in pairs])
    expected = jax.tree.structure(given)

    def fill(tree: Tree) -> Tree:
        left = iter(expected.flatten_up_to(tree))
        return structure.unflatten([next(left) if goes else leaf for leaf, goes in pairs])

    return given, fill


def is_key(x: Any) -> bool:
    """Return whether an argument holds random keys: typed ones, or one older pair of uint32.

    Example:
        >>> is_key(jax.random.key(0)), is_key(jax.random.PRNGKey(0))
        (True, True)
        >>> is_key(np.ones((16, 2), np.uint32))  # 16 inputs of two tokens
        False
    """
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return False
    return jnp.issubdtype(dtype, jax.dtypes.prng_key) or (dtype == np.uint32 and x.shape == (2,))


def is_data(x: Any) -> bool:
    """Return whether an argument is of the batch: an array, and no random key."""
    return hasattr(x, "dtype") and not is_key(x)


def batch_size(data: Tree) -> int | None:
    """Return the length of the first axis that most arrays of the data share; None without one.

    Raises:
        UnusableInput: it is 0.
    """
    arrays = [x for x in jax.tree.leaves(data) if is_data(x) and np.ndim(x)]
    if not arrays:
        return None
    size = Counter(x.shape[0] for x in arrays).most_common(1)[0][0]
    if not size:
        raise UnusableInput(
            "the batch must hold at least one input along axis 0, got shapes "
            f"{', '.join(str(x.shape) for x in arrays)}: pass the data of one input or more"
        )
    return size


def is_array(leaf: Any) -> bool:
    """Return whether a leaf is an array of JAX."""
    return isinstance(leaf, jax.Array)


def is_numeric(array: Any) -> bool:
    """Return whether an array holds numbers, not random keys or truth values."""
    return jnp.issubdtype(array.dtype, jnp.number)


def is_trainable(leaf: Any) -> bool:
    """Return whether a leaf is an array that has a gradient."""
    return isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.inexact)
