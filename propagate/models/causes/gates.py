r"""Zeros that are meant: parameters whose gradient is zero until a zero factor has moved.

LoRA's A is multiplied by B = 0, a branch by ReZero's scale, by a norm's gain or by a last layer of
zeros, features by a readout of zeros. The factor has a gradient, moves at the first step, and lets
the others' pass. Whether every way of a parameter to the results leads through such a factor is
read off the program:

    >>> import jax, jax.numpy as jnp
    >>> lora = lambda w, a, b, x: x @ w + x @ a @ b
    >>> w, a, b, x = (jnp.zeros((2, 2)) for _ in range(4))
    >>> program = jax.make_jaxpr(lora)(w, a, b, x)
    >>> sorted(intended(program, zero={2}, learning={2}, parameters=3))
    [1]
    >>> sorted(intended(program, zero={1, 2}, learning=set(), parameters=3))  # neither will move
    []

A zero may wait for another one, as ReZero's scales do for a readout of zeros. What is closed for
any other reason is left to `cuts`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.tracing.primitives import LAYOUT, PRODUCTS
from propagate.tracing.sites import LOOP

FACTORS = frozenset({*PRODUCTS, "mul"})  # linear in each of two operands
KEEPS = (
    LAYOUT
    | {"slice", "dynamic_slice", "gather", "reduce_sum", "neg", "concatenate", "split", "unstack"}
    | {"add", "sub", "tanh", "erf", "sin", "asinh", "cumsum"}
) - {"stop_gradient"}  # what makes zero of zero, with a slope that is not


class Ways(NamedTuple):
    """What is known of a value.

    Attributes:
        open: a bit for each parameter with a way to it that no zero factor closes.
        zero: whether it is zero because of parameters or constants.
    """

    open: int = 0
    zero: bool = False


def intended(program: Any, zero: set[int], learning: set[int], parameters: int) -> set[int]:
    """Return the parameters that zero factors keep from a gradient, and will no longer.

    Args:
        program: a jaxpr, whose first arguments are the parameters.
        zero: numbers of the parameters that are zero.
        learning: of those among them that have a gradient.
        parameters: how many there are.
    """

    def reaching(zeros: set[int]) -> set[int]:
        body, _ = compat.opened(program)
        args = [Ways(open=1 << k, zero=k in zeros) for k in range(parameters)]
        args += [Ways()] * (len(body.invars) - parameters)
        bits = _joined(_run(program, args)).open
        return {k for k in range(parameters) if bits >> k & 1}

    if not learning:
        return set()
    left, before = zero - learning, zero
    while left != before:
        before, left = left, left - reaching(left)
    return reaching(left) - reaching(zero)


def _run(program: Any, args: Sequence[Ways]) -> list[Ways]:
    jaxpr, consts = compat.opened(program)
    constants = dict(zip(jaxpr.constvars, consts, strict=False))
    env: dict[Any, Ways] = {v: _constant(v, constants.get(v)) for v in jaxpr.constvars}
    env.update(zip(jaxpr.invars, args, strict=True))
    read = lambda v: _constant(v, v.val) if isinstance(v, compat.Literal) else env[v]  # noqa: E731
    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _step(eqn, [read(v) for v in eqn.invars]), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _step(eqn: JaxprEqn, ins: list[Ways]) -> list[Ways]:
    name = eqn.primitive.name
    if name in compat.CALLS or name in compat.REMATS:
        return _run(eqn.params[(compat.CALLS | compat.REMATS)[name]], ins)
    if name == "scan":
        return _scan(eqn, ins)
    if name == "cond":
        each = zip(*(_run(branch, ins[1:]) for branch in eqn.params["branches"]), strict=True)
        return [_joined(outs) for outs in each]
    if name in (LOOP, "stop_gradient"):
        return [Ways()] * len(eqn.outvars)
    if name in FACTORS:
        others = ins[::-1]
        ways = [Ways(0, x.zero) if y.zero else x for x, y in zip(ins, others, strict=True)]
        out = _joined(ways)._replace(zero=any(x.zero for x in ins))
    else:
        floats = [x for x, v in zip(ins, eqn.invars, strict=True) if _has_gradient(v)]
        zero = name in KEEPS and bool(floats) and all(x.zero for x in floats)
        out = _joined(floats)._replace(zero=zero)
    return [out if _has_gradient(v) else Ways() for v in eqn.outvars]


def _scan(eqn: JaxprEqn, ins: list[Ways]) -> list[Ways]:
    n_consts, n_carry = compat.scan_split(eqn)
    consts, carry, xs = (
        ins[:n_consts],
        ins[n_consts : n_consts + n_carry],
        ins[n_consts + n_carry :],
    )
    while True:
        outs = _run(eqn.params["jaxpr"], [*consts, *carry, *xs])
        settled = [_joined([a, b]) for a, b in zip(carry, outs[:n_carry], strict=True)]
        if settled == carry:
            return outs
        carry = settled


def _constant(v: Any, value: Any) -> Ways:
    """Return what is known of a constant: whether it is zero."""
    return Ways(zero=value is not None and _has_gradient(v) and not np.any(np.asarray(value)))


def _joined(ways: Sequence[Ways]) -> Ways:
    bits = 0
    for x in ways:
        bits |= x.open
    return Ways(bits, bool(ways) and all(x.zero for x in ways))


def _has_gradient(v: Any) -> bool:
    dtype = getattr(v.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
