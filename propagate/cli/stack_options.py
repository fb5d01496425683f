"""The options of a stack, which `sweep`, `predict` and `train` have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from propagate.cli.terminal import say


@dataclass(frozen=True)
class StackOptions:
    """What every verb that runs a stack takes."""

    family: str = "mlp"
    """Kind of layer: a family of `propagate list`, with options as in "conv2d(kernel=5)"."""
    depth: int = 50
    """Number of layers."""
    width: int = 256
    """Units per layer."""


def each_once(names: tuple[str, ...], meaning: Callable[[str], Any]) -> list[str]:
    """Return the names without repetitions, and say which of them are other names of one."""
    meant: dict[str, str] = {}
    for name in dict.fromkeys(names):
        first = meant.setdefault(meaning(name).name, name)
        if first != name:
            say(f"{name} is another name of {first}, which is run once")
    return list(meant.values())
