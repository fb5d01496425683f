r"""Where a gradient stops being finite, though the values are: the first equation on its way.

For `sqrt(x)` at x = 0 the derivative $1/(2\sqrt x)$ is infinite, and NaN behind a `where` that
hands it a gradient of 0. The origin is the equation whose cotangent is finite, and whose operands'
are not:

    loss ◀── where ◀── sqrt ◀── sum ◀── square ◀── …
          1         0       NaN     NaN         NaN      origin: sqrt, operand 0
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from propagate.models.causes.look import Look
from propagate.models.causes.tape import Step, Tape, all_finite, any_nonzero, local, pulled
from propagate.tracing import source_labels
from propagate.tracing.primitives import LAYOUT
from propagate.types import Array

MOST = 3  # origins that are told
SINGULAR = {"div": 1, "atan2": 1}  # the operand at which the derivative is infinite; else the first


class Origin(NamedTuple):
    """The equation at which a gradient stops being finite.

    Attributes:
        site: number of the last site up to it.
        operation: and where it is written.
        primitive: the equation's.
        operand: a value at which the derivative is not finite.
        share: of the elements of that operand's gradient, how many are not finite.
        how: `"singular"`, the derivative is not finite there; `"overflow"`, it is, but the product
            leaves the range of the dtype; `"forward"`, the operation's own value is not finite.
        masked: whether a `where` behind it leaves that value out.
        dtype: of the gradient.
    """

    site: int
    operation: str
    primitive: str
    operand: float
    share: float
    how: str
    masked: bool
    dtype: str


def origins(look: Look) -> list[Origin]:
    """Return where the gradient stops being finite, the first in its direction of travel first."""
    tape = look.tape
    back = pulled(tape, look.seeds, zeros=True)
    found: dict[str, Origin] = {}
    for number in sorted(back.shares, reverse=True):
        step, shares = tape.steps[number], back.shares[number]
        cotangents = [back.cotangents.get(out) for out in step.outs]
        bad = [k for k, g in enumerate(shares) if g is not None and not all_finite(g)]
        if not bad or not all(g is None or all_finite(g) for g in cotangents):
            continue
        origin = _origin(look, step, cotangents, shares, bad)
        found.setdefault(origin.operation, origin)
        if len(found) == MOST:
            break
    return list(found.values())


def left_out(look: Look, rows: Sequence[int]) -> list[bool]:
    """Return of which sites no value that is not finite goes on.

    A `where` leaves such values out; a softmax makes zeros of the -inf of a mask.
    """
    tape, users = look.tape, dict[int, list[Step]]()
    for step in tape.steps:
        for number in step.ins:
            users.setdefault(number, []).append(step)
    return [step is not None and _ends(tape, users, step) for step in look.steps_of(rows)]


def _ends(tape: Tape, users: dict[int, list[Step]], step: Step) -> bool:
    """Return whether what is not finite ends at operations that leave it out."""
    todo, seen = list(step.outs), set(step.outs)
    while todo:
        number = todo.pop()
        lowest = (real(tape.values[number]) != np.inf).all() and not _has_nan(tape, number)
        for user in users.get(number, ()):
            going = [k for k in user.outs if tape.is_float(k) and not all_finite(tape.values[k])]
            name = user.eqn.primitive.name
            leaves_out = name in ("select_n", "stop_gradient") or (lowest and _of_masks(user))
            if not going and any(map(tape.is_float, user.outs)) and not leaves_out:
                return False
            todo += [k for k in going if k not in seen]
            seen.update(going)
    return True


def _of_masks(step: Step) -> bool:
    """Return whether an operation makes something sensible of -inf."""
    name = step.eqn.primitive.name
    return name.startswith(("exp", "reduce_max", "max", "custom_jvp", "logistic", "sort", "cummax"))


def _has_nan(tape: Tape, number: int) -> bool:
    return bool(np.isnan(real(tape.values[number])).any())


def _origin(
    look: Look,
    step: Step,
    cotangents: list[Array | None],
    shares: list[Array | None],
    bad: list[int],
) -> Origin:
    tape, share = look.tape, real(shares[bad[0]])
    lost = float(np.mean(~np.isfinite(share)))
    made = next((s for s in _makers(tape, step) if makes_infinity(tape, s)), None)
    how = "singular"
    if made is not None:
        how, step = "forward", made
        values = real(tape.values[step.outs[0]])
        at = np.argwhere(~np.isfinite(values))[0]
    elif _finite_if_smaller(tape, step, cotangents):
        how, at = "overflow", None
    else:
        at = np.argwhere(~np.isfinite(share))[0]
    return Origin(
        site=look.site(step),
        operation=look.operation(step),
        primitive=source_labels.label(step.eqn),
        operand=operand(tape, step, at),
        share=lost,
        how=how,
        masked=_masked(tape, step),
        dtype=str(shares[bad[0]].dtype),  # type: ignore[union-attr]
    )


def _makers(tape: Tape, step: Step) -> Iterator[Step]:
    """Yield the steps upstream that made the values that are not finite, the first one last."""
    makers = tape.makers
    todo = [k for k in step.ins if tape.is_float(k) and not all_finite(tape.values[k])]
    seen: set[int] = set()
    while todo:
        number = todo.pop()
        maker = makers.get(number)
        if number in seen or maker is None:
            continue
        seen.add(number)
        yield maker
        todo += [k for k in maker.ins if tape.is_float(k) and not all_finite(tape.values[k])]


def makes_infinity(tape: Tape, step: Step) -> bool:
    """Return whether a step makes what is not finite from what is."""
    ins = [tape.values[k] for k in step.ins if tape.is_float(k)]
    return bool(ins) and all(map(all_finite, ins))


def _finite_if_smaller(tape: Tape, step: Step, cotangents: list[Array | None]) -> bool:
    """Return whether the derivative itself is finite: a smaller gradient stays finite behind it."""
    smaller = [None if g is None else g * np.asarray(2.0**-14, g.dtype) for g in cotangents]
    if not any(g is not None and any_nonzero(g) for g in smaller):
        return False
    return all(g is None or all_finite(g) for g in local(tape, step, smaller))


def operand(tape: Tape, step: Step, at: np.ndarray | None) -> float:
    """Return the operand's value at an element; NaN where it has none of its own there."""
    k = SINGULAR.get(step.eqn.primitive.name, 0)
    floats = [number for number in step.ins if tape.is_float(number)]
    if at is None or not floats:
        return np.nan
    x = real(tape.values[floats[min(k, len(floats) - 1)]])
    if x.ndim == 0:
        return float(x)
    return float(x[tuple(at)]) if len(at) == x.ndim and (at < x.shape).all() else np.nan


def _masked(tape: Tape, step: Step) -> bool:
    """Return whether a `where` takes the result, which is moved about at most before."""
    values = set(step.outs)
    for later in tape.steps:
        if values.intersection(later.ins):
            name = later.eqn.primitive.name
            if name == "select_n":
                return True
            if name in LAYOUT or name in ("mul", "div", "neg", "add", "sub", "max", "min"):
                values.update(later.outs)
    return False


def real(x: object) -> np.ndarray:
    """Return the real parts of an array of any dtype, in float64."""
    x = np.asarray(x)
    return np.real(x).astype(np.float64)
