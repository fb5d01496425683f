"""SGD, plain or with momentum, and Adam; and the learning rates that µP gives each parameter.

The pairs are like Optax's, at learning rate 1, so that Optax's own can take their place.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from propagate.checks import check_choice
from propagate.types import Tree, UnusableInput, at_least_float32

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam
MOMENTUM = 0.9
_MUP_SGD = {"input": 1, "hidden": 0, "output": -1, "fixed": 0}
MUP = {
    "sgd": _MUP_SGD,
    "momentum": _MUP_SGD,
    "adam": {"input": 0, "hidden": -1, "output": -1, "fixed": 0},
}
"""Powers of width in a parameter's learning rate: Yang et al. (2022), arXiv:2203.03466, Table 3.

Input weights, biases and gains have one axis that grows with width, on the side of the outputs;
output weights one on the side of the inputs; hidden weights one on either; fixed ones none.
"""


class Optimizer(NamedTuple):
    """An optimiser as two pure functions.

    Attributes:
        init: `init(params) -> state`.
        update: `update(grads, state, params) -> (updates, state)`; updates are added.
    """

    init: Callable[[Tree], Any]
    update: Callable[[Tree, Any, Tree], tuple[Tree, Any]]


def _sgd(grads: Tree, state: Any, _params: Tree) -> tuple[Tree, Any]:
    return jax.tree.map(jnp.negative, grads), state


def _momentum(grads: Tree, state: Any, _params: Tree) -> tuple[Tree, Any]:
    """Return -v, where v = 0.9 v + g (Polyak, 1964)."""
    speed = jax.tree.map(lambda v, g: MOMENTUM * v + g, state, grads)
    return jax.tree.map(jnp.negative, speed), speed


def _adam(grads: Tree, state: Any, _params: Tree) -> tuple[Tree, Any]:
    """Return -m/(sqrt(v) + eps), m and v free of the bias of their start.

    Reference: Kingma and Ba (2015), Algorithm 1, arXiv:1412.6980.
    """
    count, *sums = state
    powers = grads, jax.tree.map(jnp.square, grads)
    mixed = (
        jax.tree.map(lambda old, new, b=b: b * old + (1 - b) * new, *both)
        for b, *both in zip(BETAS, sums, powers, strict=True)
    )
    m, v = mixed
    unbias = [1 / (1 - b ** (count + 1)) for b in BETAS]

    def step(m: Any, v: Any) -> Any:
        wide = at_least_float32(m.dtype)
        first, second = (factor.astype(wide) for factor in unbias)
        moved = -m.astype(wide) * first / (jnp.sqrt(v.astype(wide) * second) + EPSILON)
        return moved.astype(m.dtype)

    return jax.tree.map(step, m, v), (count + 1, m, v)


def _zeros(params: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, params)


def _adam_start(params: Tree) -> Any:
    return jnp.zeros(()), _zeros(params), _zeros(params)


OPTIMIZERS = {
    "sgd": Optimizer(lambda _: (), _sgd),
    "momentum": Optimizer(_zeros, _momentum),
    "adam": Optimizer(_adam_start, _adam),
}


def pair(spec: Any) -> Any:
    """Return the pair that a name stands for, or the pair that was given.

    Raises:
        UnusableInput: neither.
    """
    if hasattr(spec, "init") and hasattr(spec, "update"):
        return spec
    if not isinstance(spec, str):
        raise UnusableInput(
            f"optimizer must be {' or '.join(OPTIMIZERS)}, or have init and update as Optax's do, "
            f"got {spec!r}"
        )
    check_choice("optimizer", spec, tuple(OPTIMIZERS))
    return OPTIMIZERS[spec]


def role(narrow: Sequence[int], wide: Sequence[int], out_grows: bool) -> str:
    """Return what a parameter is to µP: `"input"`, `"hidden"`, `"output"` or `"fixed"`.

    Args:
        narrow: its shape at one width.
        wide: its shape at a larger one.
        out_grows: whether what it makes has more coordinates at the larger.

    Example:
        >>> role((16, 64), (16, 128), True), role((64, 1), (128, 1), False), role((1,), (1,), True)
        ('input', 'output', 'fixed')
    """
    growing = sum(a != b for a, b in zip(narrow, wide, strict=True))
    if growing == 1:
        return "input" if out_grows else "output"
    return "hidden" if growing else "fixed"
