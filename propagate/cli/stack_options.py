"""The options of a stack, which `sweep` and `predict` have in common."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StackOptions:
    """What every verb that runs a stack takes."""

    family: str = "mlp"
    """Kind of layer: a family of `propagate list`, with options as in "conv2d(kernel=5)"."""
    depth: int = 50
    """Number of layers."""
    width: int = 256
    """Units per layer."""
