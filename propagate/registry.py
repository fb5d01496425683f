"""Names to objects: the one parser behind every `init="he_normal"` and `activation="relu"`.

A spelling is a name of a table, alone or with numbers for the parameters of its factory:
`he_normal`, `leaky_relu_0.2`, `normal(0.02)`, `he_normal(mode=fan_out)`.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from propagate.checks import check_number
from propagate.types import UnusableInput

_CALL = re.compile(
    r"^(?P<name>[a-z_][a-z0-9_]*?)(?:\((?P<args>.*)\)|_(?P<number>-?[0-9.]+(?:e[+-]?\d+)?))?$"
)
_OUTER_COMMA = re.compile(r",(?![^()]*\))")  # not one within a spelling's own brackets


def build(kind: str, table: Mapping[str, Callable[..., Any]], text: str) -> Any:
    """Return the object that `text` spells, built by its factory in `table`.

    Raises:
        UnusableInput: the name is not in the table, or its parameters do not fit.
    """
    text = text.strip().lower()
    if text in table:
        return table[text]()
    match = _CALL.match(text)
    if match is None or match["name"] not in table:
        raise _unknown(kind, table, match["name"] if match else text)
    factory = table[match["name"]]
    args, kwargs = _arguments(match["number"] or match["args"] or "")
    signature = inspect.signature(factory)
    try:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if signature.parameters[name].annotation is float:
                check_number(name, value)
        return factory(*args, **kwargs)
    except (TypeError, OverflowError, UnusableInput) as error:
        takes = ", ".join(map(str, signature.parameters.values())) or "no parameters"
        raise UnusableInput(
            f"{kind} {match['name']!r} takes {takes}, got {text!r}: {error}"
        ) from None


def number(value: float) -> str:
    """Return the shortest spelling of a number that reads back as the same."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def spell(name: str, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Return the canonical spelling: defaults left out, one bare number as `name_0.02`."""
    changed = {k: v for k, v in values.items() if v != defaults.get(k, inspect.Parameter.empty)}
    if not changed:
        return name
    first = changed.get(next(iter(values)))
    if len(changed) == 1 and isinstance(first, (int, float)):
        return f"{name}_{number(first)}"
    shown = (f"{k}={number(v)}" if isinstance(v, float) else f"{k}={v}" for k, v in changed.items())
    return f"{name}({','.join(shown)})"


def _unknown(kind: str, table: Mapping[str, Any], name: str) -> UnusableInput:
    close = difflib.get_close_matches(name, table, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UnusableInput(f"unknown {kind} {name!r}: {hint}The names are {', '.join(table)}.")


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in _OUTER_COMMA.split(text))):
        key, equals, value = part.partition("=")
        if equals and "(" not in key:
            kwargs[key.strip()] = _value(value.strip())
        else:
            args.append(_value(part))
    return args, kwargs


def _value(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
