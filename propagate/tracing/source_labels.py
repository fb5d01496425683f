"""What an equation is called: its operation, the user's line, the scope around it."""

import inspect
import re
import sysconfig
from pathlib import Path

import jax

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.types import PACKAGE

_JAX = str(Path(jax.__file__).parent)
_NN = inspect.getsourcefile(inspect.unwrap(jax.nn.relu)) or ""  # of most functions of jax.nn
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
