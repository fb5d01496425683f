r"""A program evaluated equation by equation, and the gradient pulled back in the same way.

`Tape.of` keeps every value of a program, with calls, scans and conditionals opened, and which
parameters each depends on. `pulled` goes back through it: the cotangent of every value, from those
of the results.

    >>> import jax, jax.numpy as jnp
    >>> program = jax.make_jaxpr(lambda w, x: jnp.tanh(x @ w))(jnp.eye(2), jnp.ones((3, 2)))
    >>> tape = Tape.of(program, [jnp.eye(2), jnp.ones((3, 2))], [(0, ())], [0])
    >>> [step.eqn.primitive.name for step in tape.steps], tape.depends[tape.outputs[0]]
    (['dot_general', 'tanh'], 3)
    >>> back = pulled(tape, {tape.outputs[0]: jnp.ones((3, 2))})
    >>> back.cotangents[tape.arguments[0]].shape
    (2, 2)

All values are kept, and each equation is run alone: it is a second look at a model with a fault.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.tracing.dataflow import indexed
from propagate.tracing.primitives import LAYOUT
from propagate.tracing.sites import LOOP, ParameterSlice
from propagate.types import Array

Key = tuple[int, ...]  # of a step: its path, with the number of the turn after each scan
Cotangents = dict[int, Array]  # by number of the value
MOVING = (LAYOUT | {"slice", "dynamic_slice", "jit", "pjit"}) - {
    "stop_gradient"
}  # a parameter stays one


class Step(NamedTuple):
    """An equation that was evaluated.

    Attributes:
        key: where it stands.
        eqn: the equation.
        ins: numbers of its operands.
        outs: numbers of its results.
        calls: the equations that it stands in, the outermost first.
    """

    key: Key
    eqn: JaxprEqn
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    calls: tuple[JaxprEqn, ...] = ()


@dataclass
class Tape:
    """An evaluation of a program.

    Attributes:
        rows: number and index of each parameter that is asked about.
        stacked: of each argument that is a parameter, how many leading axes number its layers.
        values: every value, by number.
        depends: for each, a bit for each row that it depends on, and one more for the data.
        source: for each, the parameter that it is, moved about at most; None for any other.
        steps: in the order of evaluation.
        calls: the equations that are open, while it is being made.
        arguments: numbers of the program's arguments.
        outputs: numbers of its results.
    """

    rows: Sequence[tuple[int, tuple[int, ...]]]
    stacked: Sequence[int]
    values: list[Any] = field(default_factory=list)
    depends: list[int] = field(default_factory=list)
    source: list[ParameterSlice | None] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    arguments: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    calls: list[JaxprEqn] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        program: Any,
        arguments: Sequence[Any],
        rows: Sequence[tuple[int, tuple[int, ...]]],
        stacked: Sequence[int],
    ) -> "Tape":
        """Evaluate a program on its flat arguments, of which the first `len(stacked)` are
        parameters."""
        tape = cls(rows, stacked)
        body, consts = compat.opened(program)
        for k, x in enumerate(arguments):
            is_parameter = k < len(stacked)
            source = ParameterSlice(k, (), np.size(x)) if is_parameter else None
            bits = tape._bits(source) if source else 1 << len(rows)
            tape.arguments.append(tape._add(x, bits, source))
        tape.outputs = tape._run(body, consts, tape.arguments, ())
        return tape

    @functools.cached_property
    def makers(self) -> dict[int, Step]:
        """The step that makes each value that is no argument."""
        return {out: step for step in self.steps for out in step.outs}

    def is_float(self, number: int) -> bool:
        """Return whether a value has gradients."""
        return jnp.issubdtype(jnp.result_type(self.values[number]), jnp.inexact)

    def _bits(self, source: ParameterSlice) -> int:
        own = source.index
        each = enumerate(self.rows)
        return sum(
            1 << k
            for k, (number, index) in each
            if number == source.number and index[: len(own)] == own[: len(index)]
        )

    def _add(self, value: Any, depends: int, source: ParameterSlice | None = None) -> int:
        self.values.append(value)
        self.depends.append(depends)
        self.source.append(source)
        return len(self.values) - 1

    def _run(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[int], key: Key) -> list[int]:
        env: dict[Any, int] = dict(zip(jaxpr.invars, args, strict=True))
        env.update({v: self._add(x, 0) for v, x in zip(jaxpr.constvars, consts, strict=True)})

        def read(v: Any) -> int:
            return self._add(v.val, 0) if isinstance(v, compat.Literal) else env[v]

        for k, eqn in enumerate(jaxpr.eqns):
            rule = RULES.get(eqn.primitive.name, Tape._plain)
            self.calls.append(eqn)
            outs = rule(self, eqn, [read(v) for v in eqn.invars], (*key, k))
            self.calls.pop()
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _plain(self, eqn: JaxprEqn, ins: list[int], key: Key) -> list[int]:
        if not eqn.outvars:
            return []  # as of `jax.debug.print`, which has printed already
        depends = 0
        for k in ins:
            depends |= self.depends[k]
        source = self.source[ins[0]] if ins and eqn.primitive.name in MOVING else None
        if source:
            source = self._sliced(eqn, source)
            depends = self._bits(source)
        made = compat.bind(eqn, [self.values[k] for k in ins])
        outs = [self._add(x, depends, source) for x in made]
        self.steps.append(Step(key, eqn, tuple(ins), tuple(outs), tuple(self.calls[:-1])))
        return outs

    def _sliced(self, eqn: JaxprEqn, source: ParameterSlice) -> ParameterSlice:
        if len(source.index) >= self.stacked[source.number]:
            return source
        return indexed(eqn, (source,))[0]

    def _call(self, eqn: JaxprEqn, ins: list[int], key: Key) -> list[int]:
        inside = (compat.CALLS | compat.REMATS)[eqn.primitive.name]
        body, consts = compat.opened(eqn.params[inside])
        return self._run(body, consts, ins, key)

    def _cond(self, eqn: JaxprEqn, ins: list[int], key: Key) -> list[int]:
        branches = eqn.params["branches"]
        chosen = int(np.clip(int(self.values[ins[0]]), 0, len(branches) - 1))
        body, consts = compat.opened(branches[chosen])
        return self._run(body, consts, ins[1:], (*key, chosen))

    def _scan(self, eqn: JaxprEqn, ins: list[int], key: Key) -> list[int]:
        body, consts = compat.opened(eqn.params["jaxpr"])
        n_consts, n_carry = compat.scan_split(eqn)
        fixed, carry, xs = (
            ins[:n_consts],
            ins[n_consts : n_consts + n_carry],
            ins[n_consts + n_carry :],
        )
        length = eqn.params["length"]
        turns = range(length - 1, -1, -1) if eqn.params["reverse"] else range(length)
        rows: dict[int, list[int]] = {}
        for turn in turns:
            args = [*fixed, *carry, *(self._slice(x, turn, key) for x in xs)]
            outs = self._run(body, consts, args, (*key, turn))
            carry, rows[turn] = outs[:n_carry], outs[n_carry:]
        stacked = zip(*(rows[turn] for turn in range(length)), strict=True)
        return [*carry, *(self._stacked(list(ys), key) for ys in stacked)]

    def _slice(self, number: int, turn: int, key: Key) -> int:
        """Take what a scan hands to one turn, as an equation of its own."""
        x, source = self.values[number], self.source[number]
        if source and len(source.index) < self.stacked[source.number]:
            source = source.at(turn)
        else:
            source = source and None
        depends = self._bits(source) if source else self.depends[number]
        at = self._add(jnp.asarray(turn, jnp.int32), 0)
        eqn = _taken(jnp.shape(x), jnp.result_type(x))
        out = self._add(compat.bind(eqn, [x, self.values[at]])[0], depends, source)
        self.steps.append(Step(key, eqn, (number, at), (out,)))
        return out

    def _stacked(self, numbers: list[int], key: Key) -> int:
        depends = 0
        for k in numbers:
            depends |= self.depends[k]
        values = [self.values[k] for k in numbers]
        eqn = _equation(lambda *ys: jnp.stack(ys), *values)
        out = self._add(compat.bind(eqn, values)[0], depends)
        self.steps.append(Step(key, eqn, tuple(numbers), (out,)))
        return out


RULES: dict[str, Callable[..., list[int]]] = {
    **dict.fromkeys((*compat.CALLS, *compat.REMATS), Tape._call),
    "scan": Tape._scan,
    "cond": Tape._cond,
}


def _equation(fn: Callable[..., Any], *args: Any) -> JaxprEqn:
    """Return one equation, a call, that computes a function."""
    return jax.make_jaxpr(jax.jit(fn))(*args).eqns[0]


@functools.lru_cache(maxsize=256)
def _taken(shape: tuple[int, ...], dtype: Any) -> JaxprEqn:
    """Return the equation that takes one element along the first axis: one for all turns."""
    turn = jax.ShapeDtypeStruct((), jnp.int32)
    take = lambda x, k: jax.lax.dynamic_index_in_dim(x, k, keepdims=False)  # noqa: E731
    return _equation(take, jax.ShapeDtypeStruct(shape, dtype), turn)


@dataclass
class Pulled:
    """A gradient on its way back.

    Attributes:
        cotangents: of every value that has one, by number.
        shares: for each step that was pulled back, the cotangents of its operands; None for one
            without gradients.
    """

    cotangents: Cotangents = field(default_factory=dict)
    shares: dict[int, list[Array | None]] = field(default_factory=dict)


def pulled(
    tape: Tape, seeds: Mapping[int, Array], *, below: int | None = None, zeros: bool = False
) -> Pulled:
    """Pull cotangents back through a tape.

    Args:
        tape: to go back through.
        seeds: cotangents of its results, or of other values.
        below: how many of its first steps to go through; all by default.
        zeros: whether a cotangent that is zero is pulled back, too, as where 0 · inf is looked for.
    """
    back = Pulled(dict(seeds))
    for k in range((len(tape.steps) if below is None else below) - 1, -1, -1):
        step = tape.steps[k]
        cotangents = [back.cotangents.get(out) for out in step.outs]
        if all(g is None or not (zeros or any_nonzero(g)) for g in cotangents):
            continue
        back.shares[k] = shares = local(tape, step, cotangents)
        for number, share in zip(step.ins, shares, strict=True):
            if share is not None and tape.depends[number]:
                known = back.cotangents.get(number)
                back.cotangents[number] = share if known is None else known + share
    return back


def local(tape: Tape, step: Step, cotangents: Sequence[Array | None]) -> list[Array | None]:
    """Return what one step makes of cotangents of its results, for each of its operands."""
    own = [tape.values[k] for k in step.ins]
    moves = [k for k, number in enumerate(step.ins) if tape.is_float(number)]
    kept = [k for k, number in enumerate(step.outs) if tape.is_float(number)]
    blank: list[Array | None] = [None] * len(own)
    if not moves or not kept or step.eqn.primitive.name == LOOP:
        return blank

    def fn(*moving: Any) -> list[Any]:
        full = dict(enumerate(own)) | dict(zip(moves, moving, strict=True))
        outs = compat.bind(step.eqn, list(full.values()))
        return [outs[k] for k in kept]

    outs, pull = jax.vjp(fn, *(jnp.asarray(own[k]) for k in moves))
    given = [
        jnp.zeros_like(out) if cotangents[k] is None else cotangents[k]
        for k, out in zip(kept, outs, strict=True)
    ]
    for k, share in zip(moves, pull(given), strict=True):
        blank[k] = share
    return blank


def any_nonzero(x: Any) -> bool:
    """Return whether an array has an element that is not zero; NaN is one."""
    return bool((_wide(x) != 0).any())


def all_finite(x: Any) -> bool:
    """Return whether all elements of an array are finite."""
    return bool(np.isfinite(_wide(x)).all())


def _wide(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x if x.dtype.kind in "fciub" else x.astype(np.float32)
