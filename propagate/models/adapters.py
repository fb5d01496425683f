"""One adapter per framework: Flax (Linen, NNX), Equinox, Haiku, Keras on JAX, plain functions.

An adapter turns a model into `call(params, key, *inputs) -> outputs` and its current parameters.
No framework is imported here: whoever made the model has imported its framework.

Sharp edges:

* A model is put into training mode unless it is told otherwise (`modes`); what a layer is told by
  its own configuration, such as a frozen norm beside others that are not, stays.
* The random streams that an NNX or Keras model holds start from `key`, in a copy.
* A Keras model that is not built yet gets built, by Keras and from Keras's seed.
* State (running averages, caches) is read but never carried from one call to the next.
* Equinox modules that take and return their state: write a function, `pure(fn, module, x)`.
"""

import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from propagate.models import modes, own_errors, own_form
from propagate.models.initial_weights import (
    drawn,
    haiku_init,
    haiku_state,
    linen_init,
    linen_state,
    renewed,
    streams,
)
from propagate.models.modes import Mode
from propagate.types import Array, Tree, UnusableInput

_Call = Callable[..., Any]  # (params, key, *inputs) -> outputs


@dataclass(frozen=True)
class Arguments:
    """The arguments of `pure`, with random data in place of shapes.

    Attributes:
        model: a function or a framework's model.
        inputs: what the model is called on, all arrays concrete.
        key: for the initial parameters.
        variables: parameters and state kept outside the model, a function's, Linen's or Haiku's;
            None if it has none or they are to be drawn.
        kwargs: keyword arguments of every call.
        training: whether to train; None for what a training step does.
    """

    model: Any
    inputs: tuple[Any, ...]
    key: Array
    variables: Any
    kwargs: dict[str, Any]
    training: Mode = None


class Adapted(NamedTuple):
    """A model as a function.

    Attributes:
        call: `call(params, key, *inputs) -> outputs`.
        weights: the parameters, with whatever else the model keeps among them.
        mode: whether it is training; None if the model has no such switch.
        own: from such weights to the form in which the framework keeps them.
    """

    call: _Call
    weights: Tree
    mode: Mode
    own: Callable[[Tree], Any] = own_form.same


def adapted(arguments: Arguments) -> Adapted:
    """Return `call(params, key, *inputs) -> outputs`, the parameters and the mode.

    Raises:
        UnusableInput: not a model, or parameters that do not belong to one.
    """
    adapt = _adapter(arguments.model)
    if arguments.variables is not None and adapt in (_keras, _nnx, _equinox):
        raise UnusableInput(
            f"variables are for Linen and Haiku models, {kind(arguments.model)} holds its own "
            "weights: set them there and leave variables out"
        )
    return adapt(arguments)


def is_function(model: Any) -> bool:
    """Whether the model is a plain function, which takes its parameters as an argument.

    Raises:
        UnusableInput: it is not a model at all.
    """
    return _adapter(model) is _function


def framework(model: Any) -> str:
    """Return `"function"`, `"linen"`, `"nnx"`, `"equinox"`, `"haiku"` or `"keras"`."""
    return _adapter(model).__name__.split("_")[1]


def kind(value: Any) -> str:
    """Return the name of the value's type, for messages."""
    return type(value).__name__


def takes_one_example(model: Any) -> bool:
    """Whether models of this kind are written for one example, not for a batch: Equinox's are."""
    return _adapter(model) is _equinox


def _function(arguments: Arguments) -> Adapted:
    model, variables = arguments.model, arguments.variables
    given = arguments.inputs if variables is None else (variables, *arguments.inputs)
    kwargs, mode = modes.by_arguments(model, given, arguments.kwargs, arguments.training)
    if variables is None:
        return Adapted(lambda _params, _key, *inputs: model(*inputs, **kwargs), {}, mode)
    return Adapted(lambda params, _key, *inputs: model(params, *inputs, **kwargs), variables, mode)


def _linen(arguments: Arguments) -> Adapted:
    core = sys.modules["flax.core"]
    unbound, variables = _unbound(arguments)
    model, own_mode = modes.linen(unbound, arguments.training)
    closed = [name for name in modes.SWITCHES if getattr(model, name, None) is not None]
    kwargs, mode = _switched(arguments, model.__call__, closed=closed)
    given = model, arguments.key, arguments.inputs, kwargs
    if variables is None:
        variables = drawn(linen_init, *given)
    elif not isinstance(variables, Mapping) or "params" not in variables:
        got = list(variables) if isinstance(variables, Mapping) else kind(variables)
        raise UnusableInput(f"variables must hold 'params', got {got}: pass {{'params': …}}")
    elif len(variables) == 1:
        variables = drawn(linen_state, *given) | dict(variables)
    state = core.unfreeze(core.meta.unbox(variables))
    params = state.pop("params", {})

    def call(params: Tree, key: Array, *inputs: Any) -> Any:
        full = {"params": params, **state}
        return model.apply(full, *inputs, rngs=streams(key), mutable=list(state), **kwargs)[0]

    own = own_form.linen(variables, state)
    return Adapted(call, params, own_mode if mode is None else mode, own)


def _unbound(arguments: Arguments) -> tuple[Any, Any]:
    """Return a Linen module without variables of its own, and those that it was bound to.

    What was passed beside it decides.
    """
    model, variables = arguments.model, arguments.variables
    if model.scope is None:
        return model, variables
    model, bound = model.unbind()
    return model, bound if variables is None else variables


def _switched(
    arguments: Arguments,
    call: Callable[..., Any],
    *,
    before: int = 0,
    closed: Sequence[str] = (),
    fields: bool = False,
) -> tuple[dict[str, Any], Mode]:
    """Return the keyword arguments of a framework's call, and the mode.

    Args:
        arguments: of the model.
        call: the call.
        before: how many arguments there are in front of the inputs: parameters, a key.
        closed: names of switches that are set elsewhere.
        fields: whether layers have the switch as a field, which None leaves to decide.
    """
    given = (None,) * before + arguments.inputs
    unset = (inspect.Parameter.empty, True, False, *(() if fields else (None,)))
    options = {"unset": unset, "closed": closed}
    return modes.by_arguments(call, given, arguments.kwargs, arguments.training, **options)


def _nnx(arguments: Arguments) -> Adapted:
    nnx = sys.modules["flax.nnx"]
    kwargs, mode = _switched(arguments, arguments.model.__call__, fields=True)
    model, own_mode = modes.nnx(arguments.model, arguments.training if mode is None else mode)
    graph, params, streams, rest = nnx.split(model, nnx.Param, nnx.RngKey, ...)
    # plain arrays: merge makes new variables, not the user's
    streams, rest = nnx.to_pure_dict(streams), nnx.to_pure_dict(rest)
    parameters = inspect.signature(arguments.model.__call__).parameters
    takes_rngs = "rngs" in parameters and "rngs" not in kwargs

    def call(params: Tree, key: Array, *inputs: Any) -> Any:
        own = nnx.merge(graph, params, renewed(streams, key), rest)
        rngs = {"rngs": nnx.Rngs(jax.random.fold_in(key, 1))} if takes_rngs else {}
        return own(*inputs, **rngs | kwargs)

    own = own_form.nnx(arguments.model)
    return Adapted(call, nnx.to_pure_dict(params), own_mode if mode is None else mode, own)


def _equinox(arguments: Arguments) -> Adapted:
    kwargs, mode = _switched(arguments, arguments.model.__call__, fields=True)
    model, own_mode = modes.equinox(arguments.model, arguments.training if mode is None else mode)
    takes_key = "key" in inspect.signature(model).parameters

    def call(module: Any, key: Array, *inputs: Any) -> Any:
        try:
            return module(*inputs, **({"key": key} if takes_key else {}) | kwargs)
        except (TypeError, ValueError) as error:
            error.add_note(own_errors.of_one_example(arguments.model, inputs))
            raise

    own = own_form.equinox(arguments.model)
    return Adapted(call, model, own_mode if mode is None else mode, own)


def _takes_key(apply: Callable[..., Any], position: int) -> bool:
    """Whether a Haiku `apply` takes a key there: not behind `hk.without_apply_rng`."""
    return list(inspect.signature(apply).parameters)[position : position + 1] == ["rng"]


def _haiku(arguments: Arguments) -> Adapted:
    model, takes_key = arguments.model, _takes_key(arguments.model.apply, 1)
    kwargs, mode = _switched(arguments, model.apply, before=1 + takes_key)
    given = model, arguments.key, arguments.inputs, modes.in_training(kwargs)
    weights = arguments.variables
    if weights is None:
        weights = drawn(haiku_init, *given)

    def call(params: Tree, key: Array, *inputs: Any) -> Any:
        return model.apply(params, *((key,) if takes_key else ()), *inputs, **kwargs)

    return Adapted(call, weights, mode)


def _haiku_with_state(arguments: Arguments) -> Adapted:
    model, takes_key = arguments.model, _takes_key(arguments.model.apply, 2)
    kwargs, mode = _switched(arguments, model.apply, before=2 + takes_key)
    # running averages are made in training
    given = model, arguments.key, arguments.inputs, modes.in_training(kwargs)
    if arguments.variables is None:
        params, state = drawn(haiku_init, *given)
    elif isinstance(arguments.variables, tuple):
        params, state = arguments.variables
    else:
        params, state = arguments.variables, drawn(haiku_state, *given)

    def call(params: Tree, key: Array, *inputs: Any) -> Any:
        return model.apply(params, state, *((key,) if takes_key else ()), *inputs, **kwargs)[0]

    alone = arguments.variables is not None and not isinstance(arguments.variables, tuple)
    return Adapted(call, params, mode, own_form.same if alone else lambda p: (p, state))


def _keras(arguments: Arguments) -> Adapted:
    keras, model = sys.modules["keras"], arguments.model
    if (backend := keras.backend.backend()) != "jax":
        raise UnusableInput(
            f"Keras must run on JAX, it runs on {backend}: set the environment variable "
            "KERAS_BACKEND=jax before importing keras"
        )
    kwargs, mode = _switched(arguments, model.call)
    if mode is None:  # every call of a Keras layer takes it, whatever the layer's own says
        kwargs = {"training": arguments.training is not False} | kwargs
        mode = bool(kwargs["training"])
    if not model.built:
        model(*arguments.inputs, **kwargs | {"training": False})
    trained, others = model.trainable_variables, model.non_trainable_variables
    names, state = own_form.distinct([v.path for v in trained]), [v.value for v in others]
    streams = [k for k, v in enumerate(others) if v.path.endswith("seed_generator_state")]

    def call(params: Tree, key: Array, *inputs: Any) -> Any:
        values = [*(params[name] for name in names), *state]
        for k in streams:
            values[len(names) + k] = jax.random.bits(jax.random.fold_in(key, k), (2,), "uint32")
        mapping = list(zip([*trained, *others], values, strict=True))
        # not stateless_call: it goes round __call__, and so round casts, masks and `training`
        with keras.StatelessScope(state_mapping=mapping):
            return model(*inputs, **kwargs)

    # jax sorts the keys of a dict; an OrderedDict stays in the order of the layers
    weights = OrderedDict(zip(names, (v.value for v in trained), strict=True))
    return Adapted(call, weights, mode)


_ADAPTERS = (  # module, class, adapter; Keras first: its layers can be NNX modules as well
    ("keras", "Layer", _keras),
    ("haiku", "TransformedWithState", _haiku_with_state),
    ("haiku", "Transformed", _haiku),
    ("flax.linen", "Module", _linen),
    ("flax.nnx", "Module", _nnx),
    ("equinox", "Module", _equinox),
)


def _adapter(model: Any) -> Callable[[Arguments], Adapted]:
    adapt = next(
        (adapt for module, name, adapt in _ADAPTERS if _is_a(model, module, name)), _function
    )
    called = adapt in (_function, _keras, _nnx, _equinox)  # the others go through apply
    if isinstance(model, type) or (called and not callable(model)):
        what = f"the class {model.__name__}" if isinstance(model, type) else kind(model)
        raise UnusableInput(
            f"a model must be a function or an object to call, got {what}: pass an instance, or "
            "a function of it, pure(lambda model, x: …, model, x)"
        )
    return adapt


def _is_a(model: Any, module: str, name: str) -> bool:
    cls = getattr(sys.modules.get(module), name, ())
    # unwrapped, because eqx.filter_jit(function) is an Equinox module too
    return isinstance(model, cls) and isinstance(inspect.unwrap(model), cls)
