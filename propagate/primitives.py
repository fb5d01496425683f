"""What JAX's primitives are to `walk.py`: tables by name, facts of one equation."""

import math
from typing import Any

import jax.numpy as jnp

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn

PRODUCTS = {
    "dot_general": "matmul",
    "ragged_dot": "matmul",
    "ragged_dot_general": "matmul",
    "conv_general_dilated": "conv",
}
LAYOUT = frozenset(
    [
        "reshape",
        "transpose",
        "convert_element_type",
        "squeeze",
        "broadcast_in_dim",
        "expand_dims",
        "copy",
        "copy_p",
        "rev",
        "stop_gradient",
        "sharding_constraint",
        "optimization_barrier",
        "reduce_precision",
        "pad",
        "real",
    ]
)
REDUCTIONS = frozenset(["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])
BENDS = frozenset(
    [
        "tanh",
        "logistic",
        "erf",
        "erfc",
        "max",
        "min",
        "clamp",
        "select_n",
        "sin",
        "cos",
        "tan",
        "asinh",
        "atan",
        "abs",
        "sign",
        "floor",
        "custom_jvp_call",
        "custom_vjp_call",
    ]
)
CURVES = frozenset(
    [
        "exp",
        "exp2",
        "expm1",
        "log",
        "log1p",
        "sqrt",
        "rsqrt",
        "cbrt",
        "pow",
        "integer_pow",
        "square",
        "sinh",
        "cosh",
        "acosh",
        "atanh",
        "asin",
        "acos",
        "atan2",
        "erf_inv",
        "lgamma",
        "digamma",
        "round",
        "rem",
    ]
)
QUIET = ("reduce", "scatter", "select_and", "sort", "cumsum", "random", "threefry", "custom_lin")
SLOPES = {"tanh": 1.0, "logistic": 0.25, "erf": 1.1283791670955126, "max": 1.0}


def fans(eqn: JaxprEqn, side: int) -> tuple[int, int] | None:
    """Return fan_in and fan_out of the weights of a product, its operand number `side`."""
    if eqn.primitive.name == "dot_general":
        shape = eqn.invars[side].aval.shape
        contracted, batch = (dims[side] for dims in eqn.params["dimension_numbers"])
        fan_in = math.prod(shape[k] for k in contracted)
        return fan_in, math.prod(shape) // (fan_in * math.prod(shape[k] for k in batch))
    if eqn.primitive.name == "conv_general_dilated":
        shape = eqn.invars[1].aval.shape
        out, inside, *_ = eqn.params["dimension_numbers"].rhs_spec
        taps = math.prod(shape) // (shape[out] * shape[inside])
        return shape[inside] * taps, shape[out] * taps // eqn.params["feature_group_count"]
    return None


def first_float(eqn: JaxprEqn) -> int | None:
    """Return which result is the first real one."""
    real = lambda v: jnp.issubdtype(getattr(v.aval, "dtype", jnp.int32), jnp.floating)  # noqa: E731
    return next((k for k, v in enumerate(eqn.outvars) if real(v)), None)


def has_float(eqn: JaxprEqn) -> bool:
    """Return whether an equation has a real result that is not empty."""
    k = first_float(eqn)
    return k is not None and eqn.outvars[k].aval.size > 0


def products(jaxpr: Any) -> int:
    """Return how many matrix products and convolutions are written in a jaxpr, however deep."""
    body, _ = compat.opened(jaxpr)
    own = sum(e.primitive.name in PRODUCTS for e in body.eqns)
    return own + sum(products(j) for e in body.eqns for j in compat.inner(e))
