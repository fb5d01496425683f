r"""Which operation cuts the gradient of a parameter off.

A cut is an equation into which a gradient comes that is not zero, and out of which none goes to the
operand that depends on the parameter:

    x @ a @ b, b = 0     the second product multiplies by zero
    round(x @ w)         the slope of round is zero everywhere
    h - mean(h)          of one element: two gradients cancel

`Cut.cause` says which of these it is. A factor that is zero, but moves at the first step, is no
fault: `gates` tells the plain ones, and here the gradient is followed through the factor.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate.models.causes import zeros
from propagate.models.causes.look import Look
from propagate.models.causes.tape import MOVING, Pulled, Step, Tape, any_nonzero, local, pulled
from propagate.tracing import source_labels
from propagate.tracing.primitives import LAYOUT, REDUCTIONS

Cause = Literal[
    "gate",
    "stopped",
    "discrete",
    "flat",
    "kink",
    "saturated",
    "dead",
    "zero",
    "masked",
    "chosen",
    "single",
    "one input",
    "product",
    "exponential",
    "cancelled",
    "unread",
    "underflow",
    "own rule",
    "branch",
    "unused",
]
STEPS = ("round", "floor", "ceil", "sign", "nextafter", "clz")  # slope zero wherever there is one
BOUNDED = ("tanh", "logistic", "erf", "erfc", "softmax", "sigmoid")
PICKS = ("gather", "dynamic_slice", "scatter", "sort", "top_k", "dynamic_update_slice")
PIECES = ("slice", "split", "unstack")
READS = (*PIECES, "concatenate", "pad", "reduce_max", "reduce_min", "argmax", "cumsum")


class Cut(NamedTuple):
    """What cuts a gradient off.

    Attributes:
        cause: what kind.
        operation: and where it is written; "" where there is none.
        by: the parameter or operation that makes the factor that is zero; "" for other causes.
        step: how far down the tape; -1 where there is none.
        value: the number of the operand that gets no gradient; -1 where there is none.
    """

    cause: Cause
    operation: str = ""
    by: str = ""
    step: int = -1
    value: int = -1


ORDER: dict[Cause, int] = {
    "gate": 0,
    "single": 1,
    "one input": 1,
    "stopped": 4,
    "discrete": 5,
    "chosen": 3,
    "unread": 3,
    "cancelled": 3,
    "underflow": 3,
}
"""Which of several cuts is told: what is meant first, what every mask has, and every
maximum that is subtracted for the sake of the dtype, last; else 2."""


def cuts(look: Look, rows: list[int]) -> dict[int, Cut]:
    """Return what cuts the gradient of parameters off.

    Args:
        look: at the model.
        rows: numbers of the parameters' rows, whose gradient is exactly zero.
    """
    found = _candidates(look, look.back, rows)
    waiting = {row: [c for c in found[row] if c.cause == "gate"] for row in rows}
    each = {row: _told(look, row, found[row]) for row in rows}
    left = [row for row in rows if each[row] is None]
    # behind a gate that will open something else may stay closed: with a gradient there it is seen
    seeds = {c.value: look.random_gradient(c.value) for row in left for c in waiting[row]}
    if seeds:
        found = _candidates(look, pulled(look.tape, seeds), left)
        each |= {row: _told(look, row, found[row]) for row in left}
    for row in rows:
        each[row] = each[row] or Cut("branch" if _in_branch(look, row) else "unused")
    return {row: cut for row, cut in each.items() if cut is not None}


def _candidates(look: Look, back: Pulled, rows: list[int]) -> dict[int, list[Cut]]:
    """Return the cuts on the ways of each parameter, with a gradient that was pulled back."""
    tape = look.tape
    found: dict[int, list[Cut]] = {row: [] for row in rows}
    every = sum(1 << row for row in rows)
    for number, step in enumerate(tape.steps):
        bits = [tape.depends[k] & every for k in step.ins]
        if any(bits):
            for operand, cut in _at(look, back, number, step):
                for row in rows:
                    if bits[operand] >> row & 1:
                        found[row].append(cut)
    return found


def _told(look: Look, row: int, found: list[Cut]) -> Cut | None:
    return next((cut for cut in sorted(found, key=_rank) if _is_open(look, row, cut)), None)


def _rank(cut: Cut) -> tuple[int, int]:
    """Sort by cause, then the nearest to the parameters first; of comparisons, the last."""
    return ORDER.get(cut.cause, 2), -cut.step if cut.cause == "discrete" else cut.step


def _is_open(look: Look, row: int, cut: Cut) -> bool:
    """Return whether the way from a gate that opens back to a parameter is free."""
    return cut.cause != "gate" or bool(look.reached(cut.step, cut.value) >> row & 1)


def _in_branch(look: Look, row: int) -> bool:
    """Return whether a conditional's branch that was not taken uses a parameter."""
    number, _ = look.names.parameters.rows()[row]
    body, _ = compat.opened(look.tapped.jaxpr)
    return _given(body, {body.invars[number]})


def _given(jaxpr: Any, values: set[Any]) -> bool:
    """Return whether a conditional takes one of some values, or what is made of them."""
    values = set(values)
    for eqn in jaxpr.eqns:
        own = [
            k for k, v in enumerate(eqn.invars) if not isinstance(v, compat.Literal) and v in values
        ]
        if not own:
            continue
        if eqn.primitive.name == "cond":
            return True
        for one in compat.inner(eqn):
            inside, _ = compat.opened(one)
            first = len(inside.invars) - len(eqn.invars)
            given = {inside.invars[k + first] for k in own if 0 <= k + first < len(inside.invars)}
            if _given(inside, given):
                return True
        values.update(eqn.outvars)
    return False


def _at(look: Look, back: Pulled, number: int, step: Step) -> Iterator[tuple[int, Cut]]:
    """Yield the operands at which a step cuts the gradient off, each with the cut."""
    tape = look.tape

    def told(cause: Cause, k: int) -> Cut:
        return Cut(cause, look.operation(step), "", number, step.ins[k])

    moves = [k for k, n in enumerate(step.ins) if tape.is_float(n)]
    if not any(tape.is_float(out) for out in step.outs):
        yield from ((k, told("discrete", k)) for k in moves)
        return
    shares = back.shares.get(number)
    if shares is None:
        return
    for k in moves:
        share = shares[k]
        if share is not None and any_nonzero(share):
            total = back.cotangents.get(step.ins[k])
            if total is not None and not any_nonzero(total):
                yield k, told(zeros.single(tape, step.ins[k]) or "cancelled", k)
        else:
            yield k, _classified(look, back, number, step, k)


def _classified(look: Look, back: Pulled, number: int, step: Step, k: int) -> Cut:
    """Return why no gradient goes from a step to its operand `k`."""
    tape, name = look.tape, step.eqn.primitive.name
    label, values = source_labels.label(step.eqn), [tape.values[n] for n in step.ins]

    def told(cause: Cause, by: str = "") -> Cut:
        return Cut(cause, look.operation(step), by, number, step.ins[k])

    if name == "stop_gradient":
        return told("stopped")
    if name in STEPS or label in STEPS:
        return told("flat")
    small = zeros.underflowed(tape, step, back.cotangents.get(step.outs[0]))
    if small:
        return told(small, str(jnp.result_type(tape.values[step.outs[0]])))
    if _underflows(look.tape, back, step, k):
        return told("underflow")
    factors = [n for j, n in enumerate(step.ins) if j != k and tape.is_float(n)]
    if name in zeros.FACTORS or name == "div":
        zero = next((n for n in factors if not any_nonzero(tape.values[n])), None)
        if zero is not None:
            by, made = zeros.origin(look, zero)
            small = made and zeros.underflowed(tape, made)
            if small:
                return Cut(small, by, str(jnp.result_type(tape.values[zero])), number, step.ins[k])
            return told(_of_zero(look, back, zero), by)
        return told("chosen" if any(_is_choice(tape, n) for n in factors) else "masked")
    if name in ("select_n", "clamp"):
        if name == "clamp" or _bends(tape, step):
            return told("dead")
        data = tape.depends[step.ins[0]] >> len(tape.rows)
        return told("chosen" if data else "masked")
    if name in PICKS or name.startswith("scatter"):
        return told("chosen")
    if name in READS:
        return told("unread")
    if name in LAYOUT or name in REDUCTIONS:
        return told("cancelled")
    if any(word in label for word in BOUNDED) or name in BOUNDED:
        ones = all((np.asarray(tape.values[out]) == 1).all() for out in step.outs)
        softmax = any("softmax" in word for word in (label, name))
        return told("single" if ones and softmax else "saturated")
    if name == "custom_vjp_call":
        return told("own rule")
    kink = not tape.depends[step.ins[k]] >> len(tape.rows) and not any_nonzero(values[k])
    return told("kink" if kink else "dead")


def _underflows(tape: Tape, back: Pulled, step: Step, k: int) -> bool:
    """Return whether a gradient large enough would get through."""
    scaled = []
    for out in step.outs:
        g = back.cotangents.get(out)
        if g is not None and any_nonzero(g):
            top = float(np.max(np.abs(np.asarray(g).astype(np.float64))))
            if not math.isfinite(top):
                return False  # it overflows, which is told by itself
            wide = np.asarray(g).astype(np.float64) * 2.0 ** -math.floor(math.log2(top))
            g = wide.astype(g.dtype)
        scaled.append(g)
    share = local(tape, step, scaled)[k]
    return share is not None and any_nonzero(share)


def _of_zero(look: Look, back: Pulled, zero: int) -> Cause:
    """Return the cause where a factor is zero: it learns, it will stay, or it cannot differ."""
    if _learns(look.tape, back, zero):
        return "gate"
    tape = look.tape
    if _is_choice(tape, zero):
        return "chosen"
    maker = tape.makers.get(zero)
    if maker is not None and maker.eqn.primitive.name == "sub":
        return zeros.single(tape, maker.ins[0]) or "zero"
    return "zero"


def _learns(tape: Tape, back: Pulled, zero: int) -> bool:
    """Return whether a value has a gradient that moves it: one that reaches a parameter."""
    own = back.cotangents.get(zero)
    if own is None or not any_nonzero(own):
        return False
    source, rows = tape.source[zero], (1 << len(tape.rows)) - 1
    if source is not None:
        return True
    maker = next((k for k, step in enumerate(tape.steps) if zero in step.outs), None)
    if maker is None or not tape.depends[zero] & rows:
        return False
    through = pulled(tape, {zero: own}, below=maker + 1).cotangents
    return any(
        n in through and any_nonzero(through[n]) for n in tape.arguments[: len(tape.stacked)]
    )


def _is_choice(tape: Tape, number: int, deep: int = zeros.DEEP) -> bool:
    """Return whether a value of zeros is made from comparisons, or integers, of the data."""
    step = tape.makers.get(number)
    if step is None or not deep:
        return False
    floats = [k for k in step.ins if tape.is_float(k)]
    name = step.eqn.primitive.name
    if not floats or name == "select_n":
        return not _bends(tape, step) and any(
            tape.depends[k] for k in step.ins if not tape.is_float(k)
        )
    if name in MOVING or name in REDUCTIONS or name in zeros.FACTORS:
        return any(_is_choice(tape, k, deep - 1) for k in floats)
    return False


def _bends(tape: Tape, step: Step) -> bool:
    """Return whether a `where` asks about what it chooses from, as a leaky ReLU does."""
    asked = tape.makers.get(step.ins[0])
    if asked is None or step.eqn.primitive.name != "select_n":
        return False
    cases = set(step.ins[1:])
    for k in step.ins[1:]:
        maker = tape.makers.get(k)
        cases.update(maker.ins if maker is not None else ())
    return any(k in cases and tape.is_float(k) and tape.depends[k] for k in asked.ins)
