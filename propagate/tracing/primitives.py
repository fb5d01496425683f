"""What JAX's primitives are to the walk (`find_sites`): tables by name, and single equations."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.tracing.sites import Kind

PRODUCTS: dict[str, Kind] = {
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
RESIZING = REDUCTIONS | {"mul", "div", "cumsum", "cumprod", "reduce_window_sum", "scatter-add"}
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
COMPARES = frozenset(["eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "xor", "is_finite"])
ELEMENTWISE = BENDS | CURVES | COMPARES | {"add", "add_any", "sub", "mul", "div", "neg"}
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


def features(eqn: JaxprEqn, side: int) -> int:
    """Return how many outputs a product has to one position, of weights that are operand `side`."""
    shape = eqn.invars[side].aval.shape
    if eqn.primitive.name == "dot_general":
        contracted = eqn.params["dimension_numbers"][0][side]
        return math.prod(n for k, n in enumerate(shape) if k not in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        return shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    return shape[-1]


def terms_summed(eqn: JaxprEqn) -> int:
    """Return how many products each element of a matrix product is a sum of; 0 of anything else."""
    if eqn.primitive.name != "dot_general":
        return 0
    contracted, shape = eqn.params["dimension_numbers"][0][0], eqn.invars[0].aval.shape
    return math.prod(shape[k] for k in contracted)


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


def taps_inside(eqn: JaxprEqn) -> float:
    """Return the share of a kernel's taps that fall on the input, and not on zeros around it."""
    if eqn.primitive.name != "conv_general_dilated":
        return 1.0
    into, kernel, out = eqn.params["dimension_numbers"]
    shapes = (v.aval.shape for v in (*eqn.invars, eqn.outvars[0]))
    sizes = zip(
        *([s[k] for k in spec[2:]] for s, spec in zip(shapes, (into, kernel, out), strict=True)),
        strict=True,
    )
    names = "window_strides", "padding", "lhs_dilation", "rhs_dilation"
    options = zip(*(eqn.params[name] for name in names), strict=True)
    return math.prod(_inside(*size, *own) for size, own in zip(sizes, options, strict=True))


def _inside(
    size: int, taps: int, outs: int, stride: int, pads: Any, spread: int, gap: int
) -> float:
    """Return that share along one axis."""
    at = stride * np.arange(outs)[:, None] + gap * np.arange(taps) - pads[0]
    return float(np.mean((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)))
