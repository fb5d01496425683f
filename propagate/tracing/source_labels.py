"""What an equation is called: its operation, the user's line, the scope around it.

They are read off the name stack and the traceback that JAX keeps of each equation:

    >>> import jax.numpy as jnp
    >>> def block(x):
    ...     with jax.named_scope("block"):
    ...         return jax.nn.silu(jnp.dot(x, x))
    >>> product, call = jax.make_jaxpr(block)(jnp.ones((2, 2))).eqns
    >>> label(product), scope(product)
    ('matmul', 'block')
    >>> logistic, _ = call.params["jaxpr"].eqns
    >>> label(logistic)
    'silu'

An activation of `jax.nn` is known by the file of its frames. Where that is another one, the label
is the name of the primitive, here `logistic`.
"""

import inspect
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.types import PACKAGE


def source_of(function: Callable[..., Any]) -> str:
    """Return the file of a function's source, or '' where there is none."""
    try:
        return inspect.getsourcefile(inspect.unwrap(function)) or ""
    except TypeError:  # it is compiled
        return ""


_JAX = str(Path(jax.__file__).parent)
_NN = source_of(jax.nn.relu)  # and of most functions of jax.nn
LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    PACKAGE,
)
NAMED = frozenset(
    [
        "celu",
        "elu",
        "gelu",
        "glu",
        "hard_sigmoid",
        "hard_silu",
        "hard_swish",
        "hard_tanh",
        "identity",
        "leaky_relu",
        "log_sigmoid",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "swish",
        "softmax",
        "softplus",
        "soft_sign",
        "sparse_plus",
        "squareplus",
        "sparse_sigmoid",
    ]
)
SHORT = {"dot_general": "matmul", "conv_general_dilated": "conv", "add_any": "add"}


def label(eqn: JaxprEqn) -> str:
    """Return the activation's name where it is one of `jax.nn`, else the operation's."""
    name = eqn.primitive.name
    if name in compat.CUSTOM or name == compat.TAG:
        return compat.function_name(eqn) or name
    named = [f.function for f in _led_to(eqn) if f.file == _NN]
    named = [name.removeprefix("_") for name in named if name.removeprefix("_") in NAMED]
    return named[-1] if named else SHORT.get(str(name), str(name))


def _led_to(eqn: JaxprEqn) -> list[compat.Frame]:
    """Return the frames of the program itself, without those of whoever traces it."""
    frames = compat.frames(eqn)
    ours = next((k for k, f in enumerate(frames) if f.file.startswith(PACKAGE)), len(frames))
    return frames[:ours]


def user_frame(eqn: JaxprEqn) -> compat.Frame | None:
    """Return the innermost line of the user, or else of the library that is not JAX."""
    outside = [f for f in _led_to(eqn) if not f.file.startswith((_JAX, "<"))]
    own = [f for f in outside if not is_library(f.file)]
    return next(iter(own or outside), None)


def is_library(file: str) -> bool:
    """Return whether a file is of Python or of what is installed, and not of the user."""
    installed = {"site-packages", "dist-packages"}.intersection(Path(file).parts)
    return bool(installed) or file.startswith(LIBRARIES)


def scope(eqn: JaxprEqn) -> str:
    """Return the name stack without what transformations add to it."""
    parts = re.sub(r"\b\w+\(|\)", "", compat.name_stack(eqn)).split("/")
    noise = {"", "checkpoint", "rematted_computation", "while", "body", "closed_call", "cond"}
    return "/".join(part for part in parts if part not in noise)
