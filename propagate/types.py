"""The array alphabet and the protocols: the first file to read.

Letters used throughout, in shapes and in formulas:

* `L` depth (number of linear maps), `n` width, `B` batch, `S` seeds,
  `C` configurations that share their base weights and their activation;
* `h_l` pre-activation, `x_l = phi(h_l)` post-activation, `h_0` the input;
* `q` second moment per unit, `c` correlation (cosine) between two inputs' signals.

A stack is `h_l = W_l x_{l-1} + b_l` for `l = 1 … L`, and its output is `h_L`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Int, Key

__all__ = [
    "DIRECTIONS",
    "OWN",
    "PACKAGE",
    "STACK_PLACES",
    "AnyArray",
    "AnyNumber",
    "Array",
    "ArrayLike",
    "DTypeLike",
    "Device",
    "Direction",
    "Elementwise",
    "Float",
    "InputKind",
    "Int",
    "JaxDevice",
    "Key",
    "LossKind",
    "Place",
    "Precision",
    "PropagateError",
    "Sampler",
    "Tree",
    "UnusableInput",
    "at_least_float32",
]

STACK_PLACES = ("forward", "activation", "backward", "weight_gradient")
PACKAGE = str(Path(__file__).parent)  # whose frames are no user's
OWN = "your own function"  # the source of what a user passed in
Tree = Any
AnyArray = Array | np.ndarray  # of code that serves device and host
AnyNumber = Array | np.floating  # its sums
JaxDevice = Any  # a jax.Device, which type checkers do not take for a type
Elementwise = Callable[[Array], Array]
StyleName = Literal["screen", "paper"]  # of a picture
Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
Place = str  # one of STACK_PLACES, or a place that a layer family has of its own
Precision = Literal["default", "high", "highest"]
Device = Literal["cpu", "gpu", "tpu"]
InputKind = Literal["gaussian", "pairs"]
LossKind = Literal["gaussian", "cross_entropy", "mse"]


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """Return the dtype, or float32 for the shorter ones: what is drawn, summed or squared in."""
    return jnp.dtype(dtype) if jnp.dtype(dtype).itemsize > 4 else jnp.dtype(jnp.float32)


class Sampler(Protocol):
    """Draws an array, as the functions of `jax.nn.initializers` do."""

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array of `shape` and `dtype` drawn with `key`."""
        ...


class PropagateError(Exception):
    """A run that could not be done: what was required, what arrived, what to do."""


class UnusableInput(PropagateError, ValueError):
    """An argument that cannot be used: what was required, what arrived, what to do."""
