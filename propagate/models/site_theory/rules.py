r"""What each operation makes of the values of `values`: one rule per primitive, in `RULES`.

Take `x @ W` followed by a ReLU, with 32 units, E x^2 = 1 and E W^2 = 1/16. The product is a sum
over many units, hence Gaussian, of second moment fan_in E W^2 E x^2 = 2. Half of it and half of the
gradient pass the ReLU:

>>> import jax
>>> from propagate.models.site_theory.values import gaussian
>>> x, w = jnp.ones((8, 32)), jnp.tile(jnp.array([0.25, -0.25]), (32, 16))
>>> product, relu = jax.make_jaxpr(lambda x, w: jax.nn.relu(x @ w))(x, w).eqns
>>> (h,) = apply_rule(product, [Moments(0.0, 1.0), w])
>>> h.mean, round(h.second, 6), h.is_gaussian
(0.0, 2.0, True)
>>> (y,) = apply_rule(relu, [gaussian(h.mean, h.second, node=0)])
>>> round(y.second, 6), round(y.gradient_factors[0], 6)
(1.0, 0.5)

A rule takes an equation and its operands to its results. Every operand may be data or an array, and
at least one is data. A result that no rule covers is `unknown`. In the formulas a and b are the
operands, y is the result and g its gradient; E is over units, inputs and draws of the weights.

Sharp edges:

* The last axis is taken to be that of units. A sum over it, of `MIN_UNITS` elements or more, is a
  `Constant`: its expectation. So norms over units follow from their own operations, to 1/units.
* A sum over inputs or positions alone is unknown: these are not independent.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.models.site_theory.elementwise import elementwise, is_elementwise
from propagate.models.site_theory.values import (
    CHANCE_SIGMAS,
    NEGLIGIBLE,
    Constant,
    FunctionOfGaussian,
    Moments,
    Value,
    common_element,
    independent,
    independent_product,
    is_data,
    mixture,
    moments,
    scaled,
    slice_of,
    unknown,
)
from propagate.tracing.primitives import LAYOUT, PRODUCTS, fans, taps_inside

MIN_UNITS = 16
"""Units whose mean is taken for its expectation. The inverse of a mean of n squares of N(0, 1) has
expectation n/(n - 2): at 16 units that is 0.058 decades above the 1 that is taken here."""


def apply_rule(eqn: JaxprEqn, ins: list[Value]) -> list[Value]:
    """Return the results of an equation without a program inside, or `unknown` ones."""
    name = eqn.primitive.name
    rule = RULES.get(name, elementwise if is_elementwise(eqn) else None)
    outs = rule(eqn, ins) if rule else None
    if outs is None:
        return [unknown(*ins)] * len(eqn.outvars)
    return outs if isinstance(outs, list) else [outs]


def _unchanged(eqn: JaxprEqn, ins: list[Value]) -> list[Value]:
    """y = a, in another shape or order."""
    return ins[: len(eqn.outvars)]


def _stop_gradient(eqn: JaxprEqn, ins: list[Value]) -> Value:
    """y = a without a gradient: its gradient factors are 0."""
    if isinstance(ins[0], Constant):
        return ins[0]
    return replace(moments(ins[0]), gradient_factors={}, is_gaussian=ins[0].is_gaussian)


def _convert(eqn: JaxprEqn, ins: list[Value]) -> Value | None:
    """y = a in another dtype; to integers, only a constant."""
    (value,) = ins
    real = jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating)
    if isinstance(value, FunctionOfGaussian) and real:
        return replace(value, values=value.values.astype(np.float64))
    return value if real or isinstance(value, Constant) else None


def _pad(eqn: JaxprEqn, ins: list[Value]) -> Value | None:
    """y = a among zeros: E y^2 = s E a^2, with s the share of y's elements that are a's."""
    before, after = (v.aval.size for v in (eqn.invars[0], eqn.outvars[0]))
    grows = all(low >= 0 and high >= 0 for low, high, _ in eqn.params["padding_config"])
    if isinstance(ins[0], Constant) or common_element(ins[1]) != 0 or not grows:
        return None
    return ins[0] if before == after else scaled(moments(ins[0]), 1.0, before / after)


def _reduce_sum(eqn: JaxprEqn, ins: list[Value]) -> Constant | None:
    """y = sum of N elements, units among them: the constant N E a."""
    shape, axes = eqn.invars[0].aval.shape, eqn.params["axes"]
    count = math.prod(shape[k] for k in axes)
    over_units = len(shape) - 1 in axes and (0 not in axes or len(axes) == len(shape))
    if not over_units or (count < MIN_UNITS and not isinstance(ins[0], Constant)):
        return None
    return Constant(count * moments(ins[0]).mean)


def _slices(eqn: JaxprEqn, ins: list[Value]) -> list[Value]:
    """y = some of a's elements: distributed as a."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return [slice_of(ins[0], positions=before[:-1] != after[:-1]) for _ in eqn.outvars]


def _concatenate(eqn: JaxprEqn, ins: list[Value]) -> Moments:
    """y = a and b side by side: E y^2 = s_a E a^2 + s_b E b^2, by their shares of the elements."""
    size = eqn.outvars[0].aval.size
    shares = (v.aval.size / size for v in eqn.invars)
    return mixture(scaled(moments(v), 1.0, s) for v, s in zip(ins, shares, strict=True))


def _matmul(eqn: JaxprEqn, ins: list[Value]) -> Moments | None:
    """y = x W: E y = 0, E y^2 = t fan_in E W^2 E x^2, Gaussian, for weights of mean 0.

    t is the share of a kernel's taps that fall on the input rather than on padding. The gradient
    factor is the same number: g_x = g_y W^T, so sum g_x^2 = t fan_in E W^2 sum g_y^2.
    """
    data = [v for v in ins if is_data(v)]
    if any(isinstance(v, Constant) for v in data):
        return None
    if len(data) == 2:
        return _matmul_of_signals(eqn, ins)
    side = 0 if is_data(ins[1]) else 1
    weights, fan_in = moments(ins[side]), (fans(eqn, side) or (0, 0))[0]
    # the squared mean of N draws of mean 0 is E W^2/N on average
    chance = CHANCE_SIGMAS**2 / eqn.invars[side].aval.size
    if weights.mean**2 > max(NEGLIGIBLE / fan_in, chance) * weights.second:
        return None
    gain = fan_in * weights.second * taps_inside(eqn)
    out = scaled(moments(data[0]), math.sqrt(gain))
    return Moments(0.0, out.second, out.gradient_factors, is_gaussian=True)


def _matmul_of_signals(eqn: JaxprEqn, ins: list[Value]) -> Moments | None:
    """y = sum of n products a_i b_i of independent Gaussians, one of mean 0: n E a^2 E b^2."""
    a, b = ins
    functions = isinstance(a, FunctionOfGaussian) and isinstance(b, FunctionOfGaussian)
    if not (functions and a.is_gaussian and b.is_gaussian):
        return None
    centred = max(a.mean**2, b.mean**2) < NEGLIGIBLE * min(a.second, b.second)
    if not (centred and independent(a, b)) or eqn.primitive.name != "dot_general":
        return None
    (axes, _), _ = eqn.params["dimension_numbers"]
    count = math.prod(eqn.invars[0].aval.shape[k] for k in axes)
    return scaled(independent_product(a, b), math.sqrt(count))


RULES: dict[str, Callable[[JaxprEqn, list[Value]], Value | list[Value] | None]] = {
    **dict.fromkeys(LAYOUT, _unchanged),
    **dict.fromkeys(PRODUCTS, _matmul),
    **dict.fromkeys(("slice", "dynamic_slice", "split", "unstack"), _slices),
    compat.TAG: _unchanged,
    "stop_gradient": _stop_gradient,
    "convert_element_type": _convert,
    "pad": _pad,
    "reduce_sum": _reduce_sum,
    "concatenate": _concatenate,
}
"""The rule of each primitive that is not elementwise, and of a few that need no values."""
