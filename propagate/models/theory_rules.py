"""What operations make of values known by their distribution: `RULES`, by primitive.

A rule takes an equation and its operands to its results. Every operand may be data or an array,
one at least is data. What has no rule, or no answer, is `unknown`.

Sharp edges:

* The last axis is taken to be that of units. A sum over it, of `ENOUGH` elements, is a `Level`:
  its expectation. So norms over units follow from their own operations, to 1/units.
* A sum over inputs or positions alone is unknown: these are not independent.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.models.theory_values import (
    Blend,
    Level,
    Value,
    Wave,
    blend,
    independent,
    is_data,
    mixed,
    number,
    part,
    product,
    scaled,
    total,
    unknown,
)
from propagate.tracing.primitives import COMPARES, ELEMENTWISE, LAYOUT, PRODUCTS, fans, taps_inside

ENOUGH = 16  # elements whose mean is as good as the expectation
CENTRED = 0.05  # fan_in·(mean W)^2/E W^2 below which weights are as good as centred
FLAT = 0.5  # excess kurtosis of biases that are as good as Gaussian
SIGMAS = 5.0  # standard errors within which a mean of weights is chance


def applied(eqn: JaxprEqn, ins: list[Value]) -> list[Value]:
    """Return the results of an equation without a program inside."""
    name = eqn.primitive.name
    rule = RULES.get(name, _elementwise if is_elementwise(eqn) else None)
    outs = rule(eqn, ins) if rule else None
    if outs is None:
        return [unknown(*ins)] * len(eqn.outvars)
    return outs if isinstance(outs, list) else [outs]


def is_elementwise(eqn: JaxprEqn) -> bool:
    """Return whether an equation, and all that is in it, works element by element."""
    name = eqn.primitive.name
    inside = [e for jaxpr in compat.inner(eqn) for e in compat.opened(jaxpr)[0].eqns]
    if name in compat.CALLS or name in compat.CUSTOM:
        return all(is_elementwise(e) or e.primitive.name in LAYOUT for e in inside)
    return name in ELEMENTWISE and not inside


def _elementwise(eqn: JaxprEqn, ins: list[Value]) -> Value | None:
    waves = [v for v in ins if isinstance(v, Wave)]
    alone = all(isinstance(v, Wave) or number(v) is not None for v in ins)
    if alone and len({id(v.tie) for v in waves}) <= 1:
        return _at_nodes(eqn, ins, waves[0]) if waves else _of_numbers(eqn, ins)
    rule = MOMENTS.get(eqn.primitive.name)
    return rule(eqn, ins) if rule and all(independent(ins[0], v) for v in ins[1:]) else None


def _of_numbers(eqn: JaxprEqn, ins: list[Value]) -> Level:
    args = [_as_operand(number(v), own.aval) for v, own in zip(ins, eqn.invars, strict=True)]
    with jax.enable_x64(True):
        return Level(float(_run(eqn, [x.reshape(1) for x in args])[0]))


def _as_operand(x: Any, like: Any) -> np.ndarray:
    """Return a value in the operand's dtype, or in float64 if that is a float."""
    real = jnp.issubdtype(like.dtype, jnp.floating)
    return np.asarray(x, np.float64 if real else like.dtype)


def _at_nodes(eqn: JaxprEqn, ins: list[Value], like: Wave) -> Wave:
    """Return a function of one h, by its values and those of its derivative."""
    values = [v.at if isinstance(v, Wave) else np.full(like.at.shape, number(v)) for v in ins]
    args = [_as_operand(x, own.aval) for x, own in zip(values, eqn.invars, strict=True)]
    moving = [k for k, v in enumerate(ins) if isinstance(v, Wave) and args[k].dtype.kind == "f"]

    def of_moving(*values: Any) -> Any:
        full = dict(enumerate(args)) | dict(zip(moving, values, strict=True))
        return _run(eqn, list(full.values()))

    slopes = {k: np.zeros(like.at.shape) for k in like.slopes}
    with jax.enable_x64(True):
        if not moving or eqn.primitive.name in COMPARES:
            return replace(like, at=_wide(of_moving(*(args[k] for k in moving))), slopes=slopes)
        out, pull = jax.vjp(of_moving, *(jnp.asarray(args[k]) for k in moving))
        for k, slope in zip(moving, pull(jnp.ones_like(out)), strict=True):
            for node, own in ins[k].slopes.items():
                slopes[node] = slopes.get(node, 0.0) + _wide(slope) * own
    return replace(like, at=_wide(out), slopes=slopes)


def _wide(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64 if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)


def _run(eqn: JaxprEqn, args: list[Any]) -> jax.Array:
    """Apply an equation to arrays of another shape than its own.

    A program inside has its shapes written in; it is run as often as it takes.
    """
    if eqn.primitive.name not in compat.CUSTOM:
        return compat.bind(eqn, args)[0]
    out = eqn.outvars[0].aval
    count, size = args[0].size, max(out.size, 1)
    turns = -(-count // size)

    def pieces(x: Any, like: Any) -> jax.Array:
        whole = jnp.resize(jnp.asarray(x, like.dtype), turns * like.size)
        return whole.reshape(turns, *like.shape)

    laid = [pieces(x, v.aval) for x, v in zip(args, eqn.invars, strict=True)]
    done = [compat.bind(eqn, [x[k] for x in laid])[0].ravel() for k in range(turns)]
    return jnp.concatenate(done)[:count]


def _sum(eqn: JaxprEqn, ins: list[Value]) -> Blend:
    a, b = ins
    added = total(a, b, -1.0 if eqn.primitive.name == "sub" else 1.0)
    spread = added.second - added.mean**2
    return replace(added, normal=all(_is_normal(v, spread) for v in ins))


def _is_normal(value: Value, spread: float) -> bool:
    """Return whether a term of a sum leaves it Gaussian: of biases, small or Gaussian ones do."""
    if isinstance(value, (Level, Wave, Blend)):
        return not isinstance(value, Level) and value.normal
    own = np.ravel(np.asarray(value, np.float64))
    variance = own.var()
    tail = np.mean((own - own.mean()) ** 4) - 3 * variance**2
    near = FLAT + SIGMAS * math.sqrt(24 / own.size)
    return bool(variance < CENTRED * spread or abs(tail) < near * variance**2)


def _is_level(value: Value) -> bool:
    return isinstance(value, Level)


def _product(eqn: JaxprEqn, ins: list[Value]) -> Blend | None:
    return _square(eqn, ins) if ins[0] is ins[1] else product(*ins)


def _quotient(eqn: JaxprEqn, ins: list[Value]) -> Blend | None:
    if number(ins[1]) is not None:
        return scaled(blend(ins[0]), float(np.divide(1.0, number(ins[1]))))
    if is_data(ins[1]):
        return None
    with np.errstate(divide="ignore"):
        return product(ins[0], 1 / np.asarray(ins[1], np.float64))


def _square(eqn: JaxprEqn, ins: list[Value]) -> Blend | None:
    if eqn.params.get("y", 2) != 2:
        return None
    return replace(unknown(ins[0]), mean=blend(ins[0]).second)


def _select(eqn: JaxprEqn, ins: list[Value]) -> Blend | None:
    """Choose by a mask that does not depend on the data, such as dropout's."""
    which, *cases = ins
    if is_data(which):
        return None
    shares = [float(np.mean(np.asarray(which) == k)) for k in range(len(cases))]
    return mixed(scaled(blend(v), 1.0, s) for v, s in zip(cases, shares, strict=True) if s)


MOMENTS: dict[str, Callable[[JaxprEqn, list[Value]], Blend | None]] = {
    **dict.fromkeys(("add", "add_any", "sub"), _sum),
    "mul": _product,
    "div": _quotient,
    "neg": lambda eqn, ins: scaled(blend(ins[0]), -1.0),
    **dict.fromkeys(("square", "integer_pow"), _square),
    "select_n": _select,
}
"""What an elementwise operation makes of independent operands that are not functions of one h."""


def _same(eqn: JaxprEqn, ins: list[Value]) -> list[Value]:
    return ins[: len(eqn.outvars)]


def _stopped(eqn: JaxprEqn, ins: list[Value]) -> Value:
    """Let no gradient through."""
    if isinstance(ins[0], Level):
        return ins[0]
    return replace(blend(ins[0]), energy={}, normal=ins[0].normal)


def _converted(eqn: JaxprEqn, ins: list[Value]) -> Value | None:
    (value,) = ins
    real = jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating)
    if isinstance(value, Wave) and real:
        return replace(value, at=value.at.astype(np.float64))
    return value if real or _is_level(value) else None


def _pad(eqn: JaxprEqn, ins: list[Value]) -> Value | None:
    before, after = (v.aval.size for v in (eqn.invars[0], eqn.outvars[0]))
    grows = all(low >= 0 and high >= 0 for low, high, _ in eqn.params["padding_config"])
    if _is_level(ins[0]) or number(ins[1]) != 0 or not grows:
        return None
    return ins[0] if before == after else scaled(blend(ins[0]), 1.0, before / after)


def _reduce_sum(eqn: JaxprEqn, ins: list[Value]) -> Level | None:
    shape, axes = eqn.invars[0].aval.shape, eqn.params["axes"]
    count = math.prod(shape[k] for k in axes)
    of_units = len(shape) - 1 in axes and (0 not in axes or len(axes) == len(shape))
    if not of_units or (count < ENOUGH and not _is_level(ins[0])):
        return None
    return Level(count * blend(ins[0]).mean)


def _parts(eqn: JaxprEqn, ins: list[Value]) -> list[Value]:
    """Take some of a value's elements."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return [part(ins[0], positions=before[:-1] != after[:-1]) for _ in eqn.outvars]


def _concatenate(eqn: JaxprEqn, ins: list[Value]) -> Blend:
    whole = eqn.outvars[0].aval.size
    shares = (v.aval.size / whole for v in eqn.invars)
    return mixed(scaled(blend(v), 1.0, s) for v, s in zip(ins, shares, strict=True))


def _weighted(eqn: JaxprEqn, ins: list[Value]) -> Blend | None:
    """Multiply a signal with weights, or two signals that are independent Gaussians."""
    data = [v for v in ins if is_data(v)]
    if any(map(_is_level, data)):
        return None
    if len(data) == 2:
        return _paired(eqn, ins)
    side = 0 if is_data(ins[1]) else 1
    weights, fan_in = blend(ins[side]), (fans(eqn, side) or (0, 0))[0]
    chance = SIGMAS**2 / eqn.invars[side].aval.size  # of the mean of as many centred ones
    if weights.mean**2 > max(CENTRED / fan_in, chance) * weights.second:
        return None
    gain = fan_in * weights.second * taps_inside(eqn)
    through = scaled(blend(data[0]), math.sqrt(gain))
    return Blend(0.0, through.second, through.energy, normal=True)


def _paired(eqn: JaxprEqn, ins: list[Value]) -> Blend | None:
    a, b = ins
    if not (isinstance(a, Wave) and isinstance(b, Wave) and a.normal and b.normal):
        return None
    centred = max(a.mean**2, b.mean**2) < CENTRED * min(a.second, b.second)
    if not (centred and independent(a, b)) or eqn.primitive.name != "dot_general":
        return None
    (axes, _), _ = eqn.params["dimension_numbers"]
    count = math.prod(eqn.invars[0].aval.shape[k] for k in axes)
    return scaled(product(a, b), math.sqrt(count))


RULES: dict[str, Callable[[JaxprEqn, list[Value]], Value | list[Value] | None]] = {
    **dict.fromkeys(LAYOUT, _same),
    **dict.fromkeys(PRODUCTS, _weighted),
    **dict.fromkeys(("slice", "dynamic_slice", "split"), _parts),
    compat.TAG: _same,
    "stop_gradient": _stopped,
    "convert_element_type": _converted,
    "pad": _pad,
    "reduce_sum": _reduce_sum,
    "concatenate": _concatenate,
}
