r"""What brings the inputs of an operation that is flat at each of them to where it has a slope.

    relu6(h)                   h has mean 20, deviation 1.5      add -20
    where(|h| > 1, ±1, h)      mean 0, deviation 70              multiply by 1/70
    sigmoid(h)                 mean -900, deviation 50           add 900, then multiply by 1/50
    exp(-d / 0.001)            rms 3000                          multiply by 1/3000

Each of these is tried on the numbers themselves, h ↦ (h + shift) · scale, by the operation's own
derivative there: the first that gives a quarter of them a slope is told.

    >>> h = jnp.array([[19.0, 20.5], [21.0, 19.5]])
    >>> program = jax.make_jaxpr(lambda h: jax.lax.clamp(0.0, h, 6.0))(h)
    >>> tape = Tape.of(program, [h], [], [])
    >>> moved(tape, tape.steps[0], tape.arguments[0])
    Inflow(mean=20.0, sd=0.7905694150420949, shift=-20.0, scale=1.0, site=nan)
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate.models.causes.tape import Step, Tape
from propagate.tracing.primitives import ELEMENTWISE, LAYOUT

ALIVE = 0.25  # of the inputs: what `thresholds.SATURATED` leaves
SLOPE = 0.05  # of the largest: `thresholds.SATURATED_SLOPE`
POWERS = ("exp", "exp2", "expm1")  # flat far below zero, wherever zero is


class Inflow(NamedTuple):
    """What comes into a flat operation, and what to do with it: first shift, then scale.

    Attributes:
        mean: of the numbers.
        sd: of them.
        shift: to add; NaN where nothing is known to help.
        scale: to multiply by after that.
        site: number of the last site up to the operation.
    """

    mean: float = math.nan
    sd: float = math.nan
    shift: float = math.nan
    scale: float = math.nan
    site: float = math.nan


def moved(tape: Tape, step: Step, value: int) -> Inflow:
    """Return what to do with the inputs of a step; NaN where nothing is known to help.

    Args:
        tape: of the program.
        step: that is flat.
        value: number of the operand at which its derivative is zero.
    """
    chain, source = _from_source(tape, step, value)
    if source is None:
        return Inflow()
    h = np.asarray(tape.values[source]).astype(np.float64)
    mean, sd = float(h.mean()), float(h.std())
    if not math.isfinite(mean + sd):
        return Inflow()
    powers = step.eqn.primitive.name in POWERS
    for shift, scale in _candidates(mean, sd, powers):
        if _slopes(tape, chain, step, source, (h + shift) * scale) >= ALIVE:
            return Inflow(mean, sd, shift, scale)
    return Inflow(mean, sd)


def _candidates(mean: float, sd: float, powers: bool) -> Iterator[tuple[float, float]]:
    rms = math.hypot(mean, sd)
    if abs(mean) > sd and not powers:
        yield -mean, 1.0
        if sd > 0:
            yield -mean, 1 / sd
    if rms > 0:
        yield 0.0, 1 / rms


def _from_source(tape: Tape, step: Step, value: int) -> tuple[list[Step], int | None]:
    """Return the steps from the one value that a step is a function of, and that value's number.

    A `where` is one of what it asks about, too.
    """
    asked = step.ins[:1] if step.eqn.primitive.name == "select_n" else ()
    chain: list[Step] = []
    left = {k for k in (value, *asked) if tape.depends[k]}
    while len(left) > 1 or not all(map(tape.is_float, left)):
        latest = max(left)
        made = tape.makers.get(latest)
        if made is None or not _is_elementwise(made):
            return chain, None
        chain.insert(0, made)
        left = (left - {latest}) | {k for k in made.ins if tape.depends[k]}
    return chain, next(iter(left), None)


def _is_elementwise(step: Step) -> bool:
    return step.eqn.primitive.name in ELEMENTWISE | LAYOUT


def _slopes(tape: Tape, chain: list[Step], step: Step, source: int, h: np.ndarray) -> float:
    """Return at which share of inputs h a step, as a function of them, has a slope."""

    def follow(x: Any) -> Any:
        known = {source: x}
        for one in (*chain, step):
            ins = [known.get(k, tape.values[k]) for k in one.ins]
            known.update(zip(one.outs, compat.bind(one.eqn, ins), strict=True))
        return [known[k] for k in step.outs if tape.is_float(k)]

    given = jnp.asarray(h, jnp.asarray(tape.values[source]).dtype)
    outs, pull = jax.vjp(follow, given)
    (slope,) = pull([jnp.ones_like(out) for out in outs])
    size = np.abs(np.asarray(slope).astype(np.float64))
    if not np.isfinite(size).all():
        return 0.0
    return float(((size > 0) & (size >= SLOPE * size.max())).mean())
