"""Trees of parameters and of data: paths of parameters, random keys, how many inputs there are.

A program is traced with its arguments flat, parameters first:

    >>> params = {"layers": [np.zeros((4, 4)), np.zeros((4, 4))], "head": np.zeros((4, 2))}
    >>> parameter_paths(params)
    ['head', 'layers.0', 'layers.1']
    >>> [x.shape for x in arguments(params, np.ones((8, 4)))]
    [(4, 2), (4, 4), (4, 4), (8, 4)]

and `ParameterTable` has what is known of the parameters: of the two of one shape, sums are taken
together.

    >>> ParameterTable.of(params, stacked=(0, 0, 0)).bundles
    ((0,), (1, 2))
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate.record.kept_values import Kept, reduced
from propagate.record.measures import Measure
from propagate.record.sums import Layout, Sizes, finish, needed, reduce
from propagate.types import Array, Tree, UnusableInput

SMALL = 2**19  # elements: below it, a copy costs less than code of its own


def arguments(params: Tree, data: Tree) -> list[Any]:
    """Return the arguments of a traced program, parameters first."""
    return [*jax.tree.leaves(params), *jax.tree.leaves(data)]


def parameter_paths(params: Tree) -> list[str]:
    """Return the dotted path of every parameter, in the order of `arguments`.

    Example:
        >>> parameter_paths({"params": {"Dense_0": {"kernel": 1.0}}, "mlp/~/linear_0": {"w": 2.0}})
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


def brackets(index: tuple[int, ...]) -> str:
    """Return the numbers of a layer as they follow a name: `[3][0]`."""
    return "".join(f"[{k}]" for k in index)


@dataclass(frozen=True)
class ParameterTable:
    """What is known of the parameters of a program, in the order of its flat arguments.

    Attributes:
        paths: the dotted path of each.
        shapes: of each.
        stacked: of each, how many leading axes number its layers.
        bundles: numbers of those whose sums are taken together: small ones of a shape, any other
            alone.
    """

    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    stacked: tuple[int, ...]
    bundles: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, params: Tree, stacked: Sequence[int]) -> "ParameterTable":
        """Return the table of a tree of arrays."""
        arrays = jax.tree.leaves(params)
        alike: dict[Any, list[int]] = {}
        for k, (x, axes) in enumerate(zip(arrays, stacked, strict=True)):
            shape, small = np.shape(x), np.size(x) <= SMALL
            alike.setdefault((shape, jnp.result_type(x), axes) if small else k, []).append(k)
        shapes, bundles = tuple(map(np.shape, arrays)), tuple(map(tuple, alike.values()))
        return cls(tuple(parameter_paths(params)), shapes, tuple(stacked), bundles)

    def rows(self) -> list[tuple[int, tuple[int, ...]]]:
        """Return the number of each parameter with the index of each of its layers."""
        layers = (s[:axes] for s, axes in zip(self.shapes, self.stacked, strict=True))
        return [(k, index) for k, axes in enumerate(layers) for index in np.ndindex(*axes)]

    def names(self) -> list[str]:
        """Return the path of each row, with the number of its layer."""
        return [self.paths[k] + brackets(index) for k, index in self.rows()]

    def size(self, number: int) -> int:
        """Return how many elements one layer of a parameter has."""
        return math.prod(self.shapes[number][self.stacked[number] :])

    def sums(self, tree: Tree, measures: Iterable[Measure]) -> tuple[dict[str, Array], ...]:
        """Return the sums that measures need over each layer, for each bundle.

        Args:
            tree: of the parameters, or another of their shapes: their gradients, their updates.
            measures: of `record.measures`.
        """
        arrays, wanted = jax.tree.leaves(tree), needed(measures)
        if not any(map(compat.is_traced, arrays)):
            each = zip(arrays, self.stacked, strict=True)
            own = reduced([Kept(x, wanted, Layout(None, 0), axes) for x, axes in each])
            rows = [[own[k] for k in bundle] for bundle in self.bundles]
            return tuple(jax.tree.map(lambda *v: np.stack(v), *row) for row in rows)
        return tuple(
            _sums([arrays[k] for k in bundle], self.stacked[bundle[0]], wanted)
            for bundle in self.bundles
        )

    def column(self, measure: Measure, taken: Sequence[dict[str, Any]]) -> np.ndarray:
        """Return a statistic of every row, from what `sums` returned."""
        of: dict[int, np.ndarray] = {}
        for bundle, sums in zip(self.bundles, taken, strict=True):
            for i, k in enumerate(bundle):
                own = jax.tree.map(lambda v, i=i: np.asarray(v)[i], sums)
                of[k] = finish(measure, own, Sizes(self.size(k), 1, 1))
        return np.array([of[k][index] for k, index in self.rows()])


@functools.partial(jax.jit, static_argnums=(1, 2))
def _sums(alike: list[Array], stacked: int, sums: tuple[str, ...]) -> dict[str, Array]:
    taken = functools.partial(reduce, sums=sums, layout=Layout(None, 0))
    for _ in range(stacked + 1):
        taken = jax.vmap(taken)
    return taken(jnp.stack(alike))


def partition(tree: Tree, moves: Callable[[Any], bool]) -> tuple[Tree, Callable[[Tree], Tree]]:
    """Return the tree with `None` for what stays, and the function that fills that in again."""
    values, structure = jax.tree.flatten(tree)
    moving = [moves(x) for x in values]
    pairs = list(zip(values, moving, strict=True))
    given = structure.unflatten([x if goes else None for x, goes in pairs])
    expected = jax.tree.structure(given)

    def fill(tree: Tree) -> Tree:
        left = iter(expected.flatten_up_to(tree))
        return structure.unflatten([next(left) if goes else x for x, goes in pairs])

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


def is_array(x: Any) -> bool:
    """Return whether a value is an array of JAX."""
    return isinstance(x, jax.Array)


def is_numeric(array: Any) -> bool:
    """Return whether an array holds numbers, not random keys or truth values."""
    return jnp.issubdtype(array.dtype, jnp.number)


def is_trainable(x: Any) -> bool:
    """Return whether a value is an array that has a gradient."""
    return isinstance(x, (jax.Array, np.ndarray)) and jnp.issubdtype(x.dtype, jnp.inexact)
