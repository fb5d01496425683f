"""Training or inference: how a model is told, and which of the two it does.

Frameworks write the switch as an argument of the call (`train`, `deterministic`), as a field of
layers (`inference`), or as both. What the user passed by hand stays as it is, and decides.

    >>> def net(params, x, train=False):
    ...     return x
    >>> by_arguments(net, ({}, 1.0), {}, None)
    ({'train': True}, True)
    >>> by_arguments(net, ({}, 1.0), {"train": False}, None)
    ({'train': False}, False)
    >>> by_arguments(lambda params, x: x, ({}, 1.0), {}, None)
    ({}, None)
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

SWITCHES = {
    **dict.fromkeys(("train", "training", "is_training", "is_train", "enable_dropout"), True),
    **dict.fromkeys(("deterministic", "use_running_average", "inference", "eval_mode"), False),
}
"""What frameworks and their examples call the switch, with its value in training."""

Mode = bool | None  # whether it is training; None where a model has no switch


def named(mode: Mode) -> str:
    """Return the word for a mode: `"training"`, `"inference"`, or `""` for a model without one."""
    return "" if mode is None else "training" if mode else "inference"


def by_arguments(
    call: Callable[..., Any],
    given: tuple[Any, ...],
    kwargs: dict[str, Any],
    training: Mode,
    *,
    unset: tuple[Any, ...] = (inspect.Parameter.empty, True, False),
    closed: Iterable[str] = (),
) -> tuple[dict[str, Any], Mode]:
    """Return keyword arguments with the switches set that a call has, and the mode.

    Args:
        call: what is called.
        given: its positional arguments.
        kwargs: what the user passes by name, which decides.
        training: what is asked for; None for what a training step does.
        unset: defaults of a switch that may be set.
        closed: names of arguments that must be left alone.
    """
    try:
        signature = inspect.signature(call)
        bound = signature.bind_partial(*given, **kwargs).arguments
    except (TypeError, ValueError):  # no signature, or another one: the call itself will tell
        signature, bound = inspect.Signature(), {}
    chosen = {name: value for name, value in (bound | kwargs).items() if name in SWITCHES}
    said = [bool(v) == SWITCHES[k] for k, v in chosen.items() if isinstance(v, (bool, np.bool_))]
    wanted = said[0] if said else training is not False
    free = {
        name: SWITCHES[name] == wanted
        for name, parameter in signature.parameters.items()
        if name in SWITCHES and name not in chosen and name not in closed
        if any(parameter.default is value for value in unset)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return free | kwargs, wanted if free or said else None


def in_training(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments with their switches turned to training."""
    return {
        k: SWITCHES[k] if isinstance(v, bool) and k in SWITCHES else v for k, v in kwargs.items()
    }


def of_fields(modules: Iterable[Any]) -> list[bool]:
    """Return for each switch among the fields of modules whether it is set to training."""
    fields = ((name, getattr(m, name, None)) for m in modules for name in SWITCHES)
    return [value == SWITCHES[name] for name, value in fields if isinstance(value, bool)]


def linen(model: Any, training: Mode) -> tuple[Any, Mode]:
    """Return a Linen module with the switches set that are fields of its own, and the mode.

    A field that was set to other than its default is the user's own choice.
    """
    fields = {f.name: f.default for f in dataclasses.fields(model) if f.name in SWITCHES}
    values = {name: getattr(model, name) for name in fields}
    said = {k: v == SWITCHES[k] for k, v in values.items() if isinstance(v, bool)}
    own = training is None and any(values[k] is not fields[k] for k in said)
    if not said or own:
        return model, all(said.values()) if said else None
    mode = training is not False
    return model.clone(**{k: SWITCHES[k] == mode for k in said}), mode


def nnx(model: Any, training: Mode) -> tuple[Any, Mode]:
    """Return an NNX module in a mode, on the same arrays, and the mode."""
    nnx = sys.modules["flax.nnx"]
    set_to = of_fields(m for _, m in nnx.iter_graph(model) if isinstance(m, nnx.Module))
    mode = _wanted(set_to, training)
    if mode is None or all(one == mode for one in set_to) or (training is None and any(set_to)):
        return model, mode
    copy = nnx.merge(*nnx.split(model))
    copy.train() if mode else copy.eval()
    return copy, mode


def equinox(model: Any, training: Mode) -> tuple[Any, Mode]:
    """Return an Equinox module in a mode, and the mode."""
    jax, eqx = sys.modules["jax"], sys.modules["equinox"]
    switched = lambda one: hasattr(one, "inference")  # noqa: E731
    set_to = of_fields(jax.tree.leaves(model, is_leaf=switched))
    mode = _wanted(set_to, training)
    if mode is None or all(one == mode for one in set_to) or (training is None and any(set_to)):
        return model, mode
    return eqx.nn.inference_mode(model, value=not mode), mode


def _wanted(set_to: list[bool], training: Mode) -> Mode:
    """Return the mode of a model with such fields; None if it has none."""
    return (training is not False) if set_to else None
