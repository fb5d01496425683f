"""One adapter per framework: Flax (Linen, NNX), Equinox, Haiku, Keras on JAX, plain functions.

An adapter turns a model into `call(params, key, *inputs) -> outputs` and its current parameters.
No framework is imported here: whoever made the model has imported its framework.

Sharp edges:

* An NNX or Keras model draws its dropout from streams of its own, not from `key`.
* A Keras model that is not built yet gets built, by Keras and from Keras's seed.
* State (running averages, caches) is read but never carried from one call to the next.
* Equinox modules that take and return their state: write a function, `pure(fn, module, x)`.
"""

import inspect
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from propagate import _jax_compat as compat
from propagate.tracing.trees import is_array
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
    """

    model: Any
    inputs: tuple[Any, ...]
    key: Array
    variables: Any
    kwargs: dict[str, Any]


def adapted(arguments: Arguments) -> tuple[_Call, Tree]:
    """Return `call(params, key, *inputs) -> outputs` and the parameters.

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


def kind(value: Any) -> str:
    """Return the name of the value's type, for messages."""
    return type(value).__name__


def _function(arguments: Arguments) -> tuple[_Call, Tree]:
    model, kwargs = arguments.model, arguments.kwargs
    if arguments.variables is None:
        return lambda _params, _key, *inputs: model(*inputs, **kwargs), {}
    return lambda params, _key, *inputs: model(params, *inputs, **kwargs), arguments.variables


def _linen(arguments: Arguments) -> tuple[_Call, Tree]:
    core, model, variables = sys.modules["flax.core"], arguments.model, arguments.variables

    if variables is None:
        variables = _drawn(_linen_init, arguments)
    elif not isinstance(variables, Mapping) or "params" not in variables:
        got = list(variables) if isinstance(variables, Mapping) else kind(variables)
        raise UnusableInput(f"variables must hold 'params', got {got}: pass {{'params': …}}")
    elif len(variables) == 1:
        others = _drawn(_linen_state, arguments)
        variables = {**others, **variables}
    state = core.unfreeze(core.meta.unbox(variables))
    params = state.pop("params", {})

    def call(params: Tree, key: Array, *inputs: Any) -> Any:
        full = {"params": params, **state}
        streams = _streams(key)
        return model.apply(full, *inputs, rngs=streams, mutable=list(state), **arguments.kwargs)[0]

    return call, params


def _linen_init(model: Any, key: Array, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
    return sys.modules["flax.core"].unfreeze(model.init(_streams(key), *inputs, **kwargs))


def _linen_state(*arguments: Any) -> Tree:
    return {k: v for k, v in _linen_init(*arguments).items() if k != "params"}


def _haiku_init(model: Any, key: Array, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
    return model.init(key, *inputs, **kwargs)


def _haiku_state(*arguments: Any) -> Tree:
    return _haiku_init(*arguments)[1]


def _drawn(init: _Call, arguments: Arguments) -> Tree:
    """Return `init(model, key, inputs, kwargs)`, without running the forward pass that it traces.

    It is compiled once for a model, and anew only for other shapes or keyword arguments.
    """
    arrays = jax.tree.map(lambda x: x if is_array(x) else None, arguments.inputs)
    fixed = jax.tree.map(lambda x: None if is_array(x) else x, arguments.inputs)
    model, kwargs = arguments.model, arguments.kwargs
    leaves, structure = jax.tree.flatten((fixed, kwargs))
    known = init, _same(model), structure, *((type(x), x) for x in leaves)

    def whole(arrays: Tree) -> Tree:
        either = lambda a, b: b if a is None else a  # noqa: E731
        return jax.tree.map(either, arrays, fixed, is_leaf=lambda x: x is None)

    try:
        if known not in _initialisers:
            _initialisers[known] = _quick(lambda key, given: init(model, key, whole(given), kwargs))
        found = _initialisers[known](arguments.key, arrays)
    except (TypeError, jax.errors.ConcretizationTypeError):
        # an argument that has no hash, or a model that looks at the numbers of an input
        return _quick(lambda key: init(model, key, arguments.inputs, kwargs))(arguments.key)
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


def _quick(init: _Call) -> _Call:
    # compiled for the least time on a CPU: it runs once, and compiling is what takes long there
    return jax.jit(init, compiler_options=compat.quick_compilation(jax.default_backend()) or None)


INITIALISERS = 8  # programs that are kept, each with its model
_initialisers: dict[Any, _Call] = {}


def _streams(key: Array) -> dict[str, Array]:
    return dict(zip(("params", "dropout"), jax.random.split(key), strict=True))


def _nnx(arguments: Arguments) -> tuple[_Call, Tree]:
    nnx = sys.modules["flax.nnx"]
    graph, params, rest = nnx.split(arguments.model, nnx.Param, ...)
    rest = nnx.to_pure_dict(rest)  # plain arrays: merge makes new variables, not the user's

    def call(params: Tree, _key: Array, *inputs: Any) -> Any:
        return nnx.merge(graph, params, rest)(*inputs, **arguments.kwargs)

    return call, nnx.to_pure_dict(params)


def _equinox(arguments: Arguments) -> tuple[_Call, Tree]:
    takes_key = "key" in inspect.signature(arguments.model).parameters

    def call(module: Any, key: Array, *inputs: Any) -> Any:
        try:
            return module(*inputs, **({"key": key} if takes_key else {}) | arguments.kwargs)
        except (TypeError, ValueError) as error:
            error.add_note("Equinox modules take one example: for a batch pass vmap=True")
            raise

    return call, arguments.model


def _haiku(arguments: Arguments) -> tuple[_Call, Tree]:
    def call(params: Tree, key: Array, *inputs: Any) -> Any:
        return arguments.model.apply(params, key, *inputs, **arguments.kwargs)

    weights = arguments.variables
    return call, _drawn(_haiku_init, arguments) if weights is None else weights


def _haiku_with_state(arguments: Arguments) -> tuple[_Call, Tree]:
    if arguments.variables is None:
        params, state = _drawn(_haiku_init, arguments)
    elif isinstance(arguments.variables, tuple):
        params, state = arguments.variables
    else:
        params, state = arguments.variables, _drawn(_haiku_state, arguments)

    def call(params: Tree, key: Array, *inputs: Any) -> Any:
        return arguments.model.apply(params, state, key, *inputs, **arguments.kwargs)[0]

    return call, params


def _keras(arguments: Arguments) -> tuple[_Call, Tree]:
    keras, model = sys.modules["keras"], arguments.model
    if (backend := keras.backend.backend()) != "jax":
        raise UnusableInput(
            f"Keras must run on JAX, it runs on {backend}: set the environment variable "
            "KERAS_BACKEND=jax before importing keras"
        )
    if not model.built:
        model(*arguments.inputs, **arguments.kwargs | {"training": False})
    trained, others = model.trainable_variables, model.non_trainable_variables
    names, state = _distinct([v.path for v in trained]), [v.value for v in others]

    def call(params: Tree, _key: Array, *inputs: Any) -> Any:
        values = [*(params[name] for name in names), *state]
        mapping = list(zip([*trained, *others], values, strict=True))
        # not stateless_call: it goes round __call__, and so round casts, masks and `training`
        with keras.StatelessScope(state_mapping=mapping):
            return model(*inputs, **arguments.kwargs)

    # jax sorts the keys of a dict; an OrderedDict stays in the order of the layers
    return call, OrderedDict(zip(names, (v.value for v in trained), strict=True))


def _distinct(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[i] = f"{name}_{seen[name]}"
    return names


_ADAPTERS = (  # module, class, adapter; Keras first: its layers can be NNX modules as well
    ("keras", "Layer", _keras),
    ("haiku", "TransformedWithState", _haiku_with_state),
    ("haiku", "Transformed", _haiku),
    ("flax.linen", "Module", _linen),
    ("flax.nnx", "Module", _nnx),
    ("equinox", "Module", _equinox),
)


def _adapter(model: Any) -> Callable[[Arguments], tuple[_Call, Tree]]:
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
