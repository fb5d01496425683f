"""Any model as a pure function of its parameters and inputs: `pure`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.checks import random_key
from propagate.models import adapters, own_errors
from propagate.models.modes import named
from propagate.tracing.trees import batch_size, is_array, is_numeric, is_trainable, partition
from propagate.types import Array, Tree, UnusableInput, at_least_float32

_INTEGERS_BELOW = 64  # stand-ins for tokens and classes: few enough for the smallest vocabulary


class Pure(NamedTuple):
    """A model as a pure function of its parameters and inputs.

    Attributes:
        fn: `fn(params, *inputs) -> outputs`, differentiable in `params`.
        params: the floating-point arrays, in a tree shaped as the framework keeps them.
        inputs: what goes with `params`: the inputs that hold arrays, everything else left out.
        mode: `"training"` or `"inference"`; `""` for a model that has no such switch.
        mapped: whether the model was mapped over the batch without being told to.
        own: from such parameters to the framework's own form: a new module of Equinox or NNX,
            Linen's variables, Haiku's parameters (with its state, unless they were given alone),
            Keras's values by the paths of its variables, a function's tree.
    """

    fn: Callable[..., Any]
    params: Tree
    inputs: tuple[Any, ...]
    mode: str = ""
    mapped: bool = False
    own: Callable[[Tree], Any] = lambda params: params


def pure(
    model: Any,
    *inputs: Any,
    key: Array,
    variables: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    vmap: bool = False,
    training: bool | None = None,
) -> Pure:
    """Return the model as a pure function, with parameters and inputs to call it with.

    Args:
        model: a function, or a model of Flax, Equinox, Haiku or Keras. It stays as it is.
        inputs: arrays in any tree. A `jax.ShapeDtypeStruct` becomes a Gaussian array of unit
            variance, integers from [0, 64) or coin flips, by its dtype; what is not an array
            (`is_training=True`) is passed on as it is. The first of several inputs of a
            function is its parameters.
        key: for all that is random: inputs, initial weights, dropout.
        variables: the weights of a Linen or Haiku model, drawn from `key` by default: Linen's
            collections, with or without those beside `"params"`; Haiku's params, or the pair
            (params, state).
        kwargs: keyword arguments of every call, such as `{"train": True}`.
        vmap: whether the model takes one example; all inputs are then mapped over axis 0. An
            Equinox module that takes no batch, but each of its examples, is mapped by itself.
        training: whether the model is in training (batch statistics, dropout) or in inference;
            by default what a training step does. A switch among `inputs` or `kwargs` decides.

    Raises:
        UnusableInput: not a model, no data, an empty batch, no key, or weights that are not arrays.

    Example:
        >>> linear = pure(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((5, 3)),
        ...               key=jax.random.key(0))
        >>> linear.fn(linear.params, *linear.inputs).shape
        (5, 2)
    """
    for_data, for_weights, for_calls = jax.random.split(random_key(key), 3)
    if adapters.is_function(model) and variables is None and len(inputs) > 1:
        variables, inputs = inputs[0], inputs[1:]
    data = _filled(inputs, for_data)
    if vmap:
        own_errors.check_no_state(model, inputs)
    sample = _first(data) if vmap else data
    own = dict(kwargs or {})
    given = adapters.Arguments(model, sample, for_weights, variables, own, training)
    with own_errors.told("initialising the model", None, sample):
        call, weights, mode, own_form = adapters.adapted(given)
    params, with_params = partition(_concrete(weights), is_trainable)
    arrays, with_inputs = partition(data, is_array)
    slots = [i for i, x in enumerate(arrays) if jax.tree.leaves(x)]

    def once(params: Tree, key: Array, *inputs: Any) -> Any:
        full = dict(enumerate(arrays)) | dict(zip(slots, inputs, strict=True))
        return call(with_params(params), key, *with_inputs(tuple(full.values())))

    def whole(params: Tree, *inputs: Any) -> Any:
        return once(params, for_calls, *inputs)

    def each(params: Tree, *inputs: Any) -> Any:
        keys = jax.random.split(for_calls, len(jax.tree.leaves(inputs)[0]))
        return jax.vmap(partial(once, params))(keys, *inputs)

    ready = tuple(arrays[i] for i in slots)
    mapped = (
        not vmap and adapters.takes_one_example(model) and _by_example(whole, each, params, ready)
    )
    own_of = lambda params: own_form(with_params(params))  # noqa: E731
    return Pure(each if vmap or mapped else whole, params, ready, named(mode), mapped, own_of)


def _by_example(
    whole: Callable[..., Any], each: Callable[..., Any], params: Tree, inputs: tuple[Any, ...]
) -> bool:
    """Whether a model refuses a batch and takes its examples, told by a batch of one more.

    A batch that happens to be as long as an example would be taken, and read across.
    """
    shapes = {np.shape(x)[:1] for x in jax.tree.leaves(inputs)}
    if len(shapes) != 1 or () in shapes:
        return False
    longer = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(x) + 1, *x.shape[1:]), x.dtype), inputs
    )
    return not _runs(whole, params, *longer) and _runs(each, params, *longer)


def _runs(fn: Callable[..., Any], *shapes: Any) -> bool:
    try:
        jax.eval_shape(fn, *shapes)
    except Exception:  # whatever a model raises about shapes that it was not made for
        return False
    return True


def _filled(inputs: tuple[Any, ...], key: Array) -> tuple[Any, ...]:
    given, structure = jax.tree.flatten(inputs)
    arrays = [_array(x, jax.random.fold_in(key, i)) for i, x in enumerate(given)]
    if not any(is_array(x) and is_numeric(x) for x in arrays):
        raise UnusableInput(
            "inputs must hold an array of floating-point numbers or integers, got "
            f"{', '.join(map(adapters.kind, given)) or 'nothing'}: pass the data, or its "
            "jax.ShapeDtypeStruct(shape, dtype)"
        )
    batch_size(arrays)
    return structure.unflatten(arrays)


def _array(x: Any, key: Array) -> Any:
    """Return an array for a shape or a numpy array, and anything else as it is."""
    if isinstance(x, np.ndarray) and x.dtype.kind not in "OSUMm":
        return jnp.asarray(x)
    if not isinstance(x, jax.ShapeDtypeStruct):
        return x
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    if jnp.issubdtype(dtype, jnp.inexact):
        return jax.random.normal(key, x.shape, at_least_float32(dtype)).astype(dtype)
    if jnp.issubdtype(dtype, jnp.bool_):
        return jax.random.bernoulli(key, shape=x.shape)
    return jax.random.randint(key, x.shape, 0, _INTEGERS_BELOW).astype(dtype)


def _concrete(weights: Tree) -> Tree:
    shapes = [x for x in jax.tree.leaves(weights) if isinstance(x, jax.ShapeDtypeStruct)]
    if shapes:
        raise UnusableInput(
            f"parameters must be arrays, got {len(shapes)} shapes without values, the first "
            f"{shapes[0]}: initialise the model"
        )
    return jax.tree.map(lambda x: jnp.asarray(x) if is_trainable(x) else x, weights)


def _first(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    arrays = [x for x in jax.tree.leaves(inputs) if is_array(x)]
    if any(array.ndim == 0 for array in arrays) or len({len(array) for array in arrays}) > 1:
        raise UnusableInput(
            "vmap maps all inputs over axis 0, which must have one length, got shapes "
            f"{', '.join(str(array.shape) for array in arrays)}"
        )
    return jax.tree.map(lambda x: x[0] if is_array(x) else x, inputs)
