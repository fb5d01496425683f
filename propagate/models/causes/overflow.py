r"""Where a signal stops being finite: at a parameter, an index, a row without scores, an operation.

log(h)                     h = -1.09                    NaN of a negative operand
softmax(where(m, s, -inf))  m false for a whole row     -inf - max = -inf + inf
jnp.take(e, t, axis=0)      t = 100 of 100 rows         NaN is filled in
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from propagate.models.causes.look import Look
from propagate.models.causes.non_finite import makes_infinity, operand, real
from propagate.models.causes.tape import Step, Tape, all_finite
from propagate.tracing.primitives import LAYOUT

NEAR = 12  # operations from the largest score of a row to what is not finite


class Start(NamedTuple):
    """What makes the first value that is not finite.

    Attributes:
        cause: `"parameter"`, which is not finite itself; `"index"`, outside an array; `"empty row"`
            of scores, -inf everywhere; `"summed"`, an operation whose results are added up, as
            those of exp in a softmax; `"operation"`, any other.
        operation: and where it is written; of a parameter, what its values are: `"NaN"`.
        by: the path of the parameter, or of the array; how many rows are empty, of how many.
        operand: a value of the operand; the index; how many values of a parameter are not finite.
        size: how many rows the array has, or values the parameter.
        at: the first index of a value of a parameter that is not finite.
    """

    cause: str
    operation: str
    by: str = ""
    operand: float = np.nan
    size: int = 0
    at: str = ""


def start(look: Look, row: int) -> Start | None:
    """Return what makes the first value that is not finite; None where nothing known does.

    Args:
        look: at the model.
        row: number of the first site whose values are not finite.
    """
    tape, found = look.tape, _parameter(look, row)
    if found is not None:
        return found
    first = None
    for step in tape.steps:
        bad = next(
            (k for k in step.outs if tape.is_float(k) and not all_finite(tape.values[k])), -1
        )
        if bad < 0 or not (makes_infinity(tape, step) or _makes_nan(tape, step)):
            continue
        values = real(tape.values[bad])
        empty = _empty_rows(tape, step)
        if empty:
            return Start("empty row", look.operation(step), empty)
        if first is None and makes_infinity(tape, step):
            first = _of_operation(look, step, values)
            if np.isnan(values).any() or (values == np.inf).any():
                break  # -inf alone may be a mask's
    return first


def _parameter(look: Look, row: int) -> Start | None:
    """Return the parameter that a site's values come from and is not finite."""
    tape, step = look.tape, look.steps_of([row])[0]
    for number in _bad_upstream(tape, step):
        source, values = tape.source[number], real(tape.values[number])
        mask = not np.isnan(values).any() and (values <= 0).all()
        if source is not None and number in tape.arguments and not mask:
            bad = np.argwhere(~np.isfinite(values))
            at = str(tuple(map(int, bad[0])))
            path = look.names.parameters.paths[source.number]
            kinds = {"NaN": np.isnan(values).any(), "infinite": np.isinf(values).any()}
            words = " or ".join(word for word, there in kinds.items() if there)
            return Start("parameter", words, path, len(bad), values.size, at)
    return None


def _bad_upstream(tape: Tape, step: Step | None) -> Iterator[int]:
    """Yield the values in front of a step that are not finite."""
    todo, seen = [] if step is None else [step], set[int]()
    while todo:
        for k in todo.pop().ins:
            if k not in seen and tape.is_float(k) and not all_finite(tape.values[k]):
                seen.add(k)
                yield k
                todo += [tape.makers[k]] if k in tape.makers else []


def _of_operation(look: Look, step: Step, values: np.ndarray) -> Start:
    tape, operation = look.tape, look.operation(step)
    if step.eqn.primitive.name == "gather":
        index, rows = _outside(tape, step)
        if rows:
            source = tape.source[step.ins[0]]
            path = look.names.parameters.paths[source.number] if source else ""
            return Start("index", operation, path, index, rows)
    at = np.argwhere(~np.isfinite(values))[0]
    cause = "summed" if _is_summed(tape, step) else "operation"
    return Start(cause, operation, "", operand(tape, step, at))


def _outside(tape: Tape, step: Step) -> tuple[int, int]:
    """Return an index of a gather that is outside its operand, and how many rows that has."""
    shape, indices = np.shape(tape.values[step.ins[0]]), np.asarray(tape.values[step.ins[1]])
    sizes, mapped = step.eqn.params["slice_sizes"], step.eqn.params["dimension_numbers"]
    for column, axis in enumerate(mapped.start_index_map):
        own, rows = indices[..., column].astype(np.int64).ravel(), shape[axis]
        out = own[(own < 0) | (own > rows - sizes[axis])]
        if out.size:
            return int(out[0]) - rows * int(out[0] < 0 and _wrapped(tape, step.ins[1])), rows
    return 0, 0


def _wrapped(tape: Tape, number: int) -> bool:
    """Return whether an index below zero was counted from the end, as NumPy does."""
    while number in tape.makers:
        step = tape.makers[number]
        if step.eqn.primitive.name == "select_n":
            return True
        if step.eqn.primitive.name not in (*LAYOUT, "convert_element_type"):
            return False
        number = step.ins[0]
    return False


def _makes_nan(tape: Tape, step: Step) -> bool:
    """Return whether a step makes NaN of what is none, as of infinities."""
    nan = lambda k: tape.is_float(k) and bool(np.isnan(real(tape.values[k])).any())  # noqa: E731
    return any(map(nan, step.outs)) and not any(map(nan, step.ins))


def _empty_rows(tape: Tape, step: Step) -> str:
    """Return how many rows are -inf everywhere, of those whose largest value goes into a step."""
    todo, seen = [(k, NEAR) for k in step.ins], set(step.ins)
    while todo:
        number, left = todo.pop()
        maker = tape.makers.get(number)
        if maker is None or not left:
            continue
        if maker.eqn.primitive.name == "reduce_max":
            empty = real(tape.values[number]) == -np.inf
            if empty.any():
                return f"{empty.sum()} of {empty.size}"
            continue
        todo += [(k, left - 1) for k in maker.ins if k not in seen]
        seen.update(maker.ins)
    return ""


def _is_summed(tape: Tape, step: Step) -> bool:
    """Return whether the results of a step are added up, as a softmax does."""
    values = set(step.outs)
    for later in tape.steps:
        if values.intersection(later.ins):
            if later.eqn.primitive.name == "reduce_sum":
                return True
            if later.eqn.primitive.name in LAYOUT:
                values.update(later.outs)
    return False
