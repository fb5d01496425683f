r"""What makes a value exactly zero: a factor that is, a norm of one element, a product too small.

x ── relu(g · h / |h|), g = 0 ── @ w ──▶ 0        made zero by the gain g, not by w
x ── h - mean(h) over one input ── @ w ──▶ 0      by the norm
x ── prod(σ(h)) of 512 units ──▶ 0                by float32: the product underflows
"""

import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from propagate.models.causes.look import Look
from propagate.models.causes.tape import MOVING, Step, Tape, any_nonzero
from propagate.tracing.primitives import LAYOUT, PRODUCTS, REDUCTIONS
from propagate.tracing.trees import brackets
from propagate.types import Array

FACTORS = (*PRODUCTS, "mul")
AN_INPUT = "an input"
DEEP = 12  # products of products by zero that are followed back
POWERS = ("mul", "div", "reduce_prod", "cumprod", "integer_pow", "pow", "square")
EXPONENTIALS = ("exp", "exp2")

Single = Literal["single", "one input"]
Small = Literal["product", "exponential"]


class Silence(NamedTuple):
    """Where a signal becomes exactly zero, or the same for every input.

    Attributes:
        cause: `"factor"`, a parameter that is zero; `"single"` or `"one input"`, of `single`;
            `"product"` or `"exponential"`, of `underflowed`; `"made"`, any other operation.
        operation: and where it is written.
        by: the parameter that is zero; the dtype of what underflows; "" for other causes.
        after: the parameter of the last layer before it; "" without one.
    """

    cause: str
    operation: str
    by: str
    after: str


def silence(look: Look, row: int) -> Silence | None:
    """Return what makes the signal of a site zero, or the same for every input.

    Args:
        look: at the model.
        row: number of the site, whose values are all zero, or all rows of which are equal.

    Returns:
        The operation; None if the data are so themselves.
    """
    tape, step = look.tape, look.steps_of([row])[0]
    if step is None:
        return None
    lost = _same_rows if any_nonzero(tape.values[step.outs[0]]) else _all_zero
    while step is not None:
        moves = [k for k in step.ins if tape.is_float(k) and tape.depends[k] >> len(tape.rows)]
        gone = [k for k in moves if lost(tape.values[k])]
        if not gone:
            return _made(look, step, moves)
        step = tape.makers.get(gone[0])
    return None


def _all_zero(x: Any) -> bool:
    return not any_nonzero(x)


def _same_rows(x: Any) -> bool:
    x = np.asarray(x)
    return x.ndim > 0 and bool((x == x[:1]).all())


def _made(look: Look, step: Step, moves: list[int]) -> Silence:
    tape, operation = look.tape, look.operation(step)
    cause, by = "made", ""
    still = [k for k in step.ins if tape.is_float(k) and k not in moves]
    zero = [k for k in still if not any_nonzero(tape.values[k])]
    over_one = single(tape, moves[0]) if step.eqn.primitive.name == "sub" and moves else None
    if zero and step.eqn.primitive.name in FACTORS:
        path = parameter_of(look, zero[0])
        cause, by = ("factor", path) if path else ("made", "")
    elif over_one:
        cause = over_one
    else:
        cause = underflowed(tape, step) or "made"
        by = str(jnp.result_type(tape.values[step.outs[0]])) if cause != "made" else ""
    return Silence(cause, operation, by, look.layer(step))


def parameter_of(look: Look, number: int) -> str:
    """Return the path of the parameter, or its turn, that a value is, moved about at most."""
    tape = look.tape
    paths = look.names.parameters.paths
    while tape.source[number] is None:
        step = tape.makers.get(number)
        if step is None or step.eqn.primitive.name not in MOVING:
            return ""
        number, *others = step.ins
        whole = tape.source[number]
        if whole is not None and others:  # what a scan hands to a turn
            return f"{paths[whole.number]}[{int(tape.values[others[0]])}]"
    source = tape.source[number]
    return paths[source.number] + brackets(source.index) if source else ""


def origin(look: Look, number: int) -> tuple[str, Step | None]:
    """Return the parameter or operation that makes a value of zeros, and its step if it has one."""
    tape, made = look.tape, None
    for _ in range(DEEP):
        path, step = parameter_of(look, number), tape.makers.get(number)
        if path:
            return path, None
        if step is None:
            break
        made, name = step, step.eqn.primitive.name
        zero = [k for k in step.ins if tape.is_float(k) and not any_nonzero(tape.values[k])]
        if not zero or (name not in FACTORS and name not in LAYOUT and len(zero) < len(step.ins)):
            return look.operation(step), step
        number = zero[0]
    if made is not None:
        return look.operation(made), made
    return (AN_INPUT if tape.depends[number] else "a constant"), None


def single(tape: Tape, number: int) -> Single | None:
    """Return whether a value, or what follows it at once, is reduced over one element.

    Over the first axis too, that of the inputs, it is `"one input"`.
    """
    values = {number}
    for step in tape.steps:
        if values.intersection(step.ins):
            name = step.eqn.primitive.name
            if name in REDUCTIONS:
                shape, axes = np.shape(tape.values[step.ins[0]]), step.eqn.params["axes"]
                if math.prod(shape[axis] for axis in axes) != 1:
                    return None
                return "one input" if 0 in axes else "single"
            if name in LAYOUT:
                values.update(step.outs)
    return None


def underflowed(tape: Tape, step: Step, gradient: Array | None = None) -> Small | None:
    """Return of what kind a step is, some of whose values are zero as its dtype has none as small.

    Args:
        tape: that it is of.
        step: with one result.
        gradient: of the result, if all values that it moves are to be so.
    """
    name = step.eqn.primitive.name
    if name not in (*POWERS, *EXPONENTIALS) or len(step.outs) != 1:
        return None
    exponential = name in EXPONENTIALS
    small = np.asarray(tape.values[step.outs[0]]) == 0
    for x in (np.asarray(tape.values[k]) for k in step.ins):
        fine = np.isfinite(x.astype(np.float64)) & (exponential | (x != 0))
        if name in ("reduce_prod", "cumprod"):
            axes = step.eqn.params.get("axes", step.eqn.params.get("axis"))
            fine = fine.all(axes, keepdims=name == "cumprod")
        small &= fine
    asked = small if gradient is None else np.asarray(gradient) != 0
    if not (asked & small).any() or not (small | ~asked).all():
        return None
    return "exponential" if exponential else "product"
