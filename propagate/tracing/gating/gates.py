r"""Gates of states, found in the program: what they keep, and what they let in.

A state is the carry of a scan, what a loop written out hands on, or a residual stream: something
that is kept and added to. In

$$c' = f\,c + i\,\tanh g, \qquad h' = z\,h + (1 - z)\,n$$

f and z keep the state where they are 1, and i and 1 - z let into it what is new. A gate that keeps
a state for long is where its slope is small, by design. An output gate, or a gate between two
branches, has no state.

    >>> import jax, jax.numpy as jnp
    >>> def model(w, x):
    ...     def turn(c, u):
    ...         f, i, g = jax.nn.sigmoid(u @ w[0]), jax.nn.sigmoid(u @ w[1]), jnp.tanh(u @ w[2])
    ...         return f * c + i * g, None
    ...     return jax.lax.scan(turn, jnp.zeros(2), x)[0]
    >>> program = jax.make_jaxpr(model)(jnp.ones((3, 4, 2)), jnp.ones((5, 4)))
    >>> [(one.keeps_at, one.admits) for one in gates(program, 1).values()]
    [(1.0, False), (0.0, True), (None, False)]
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.record.spine import LAYERS
from propagate.tracing.gating.terms import Biases, Gate, Made, Term, minus, of_value, plus, times
from propagate.tracing.primitives import LAYOUT
from propagate.tracing.sites import EqnPath, ParameterSlice, Site

MOVES = LAYOUT | {"slice", "dynamic_slice", "split", "unstack", "reduce_sum"}
BENT = ("logistic", "tanh", "erf")  # of whose inputs it is said what makes them
MANY = 16  # terms of a sum that is taken as a value of its own


class Bent(NamedTuple):
    """What is known of an activation.

    Attributes:
        biases: parameters that were added to what comes in.
        makers: the layers whose sum comes in, gated or not; none if anything else does.
        keeps_at: the value, 0 or 1, at which it keeps a state as it is; None if it is no gate of
            one, or of several that differ.
        admits: whether it scales what a state is added.
    """

    biases: Biases = ()
    makers: tuple[EqnPath, ...] = ()
    keeps_at: float | None = None
    admits: bool = False


def with_gates(program: Any, parameters: int, sites: Sequence[Site]) -> tuple[Site, ...]:
    """Return the sites of a program with what is known of activations.

    Args:
        program: a closed jaxpr.
        parameters: how many of its arguments, the first ones, are parameters.
        sites: of the program.
    """
    layers = {s.product or s.path: s.path for s in sites if s.kind in ("norm", *LAYERS)}
    known = gates(program, parameters, layers)
    told = lambda site: replace(site, **known[site.path]._asdict())  # noqa: E731
    return tuple(told(site) if site.path in known else site for site in sites)


def gates(
    program: Any, parameters: int, layers: Mapping[EqnPath, EqnPath] | None = None
) -> dict[EqnPath, Bent]:
    """Return what is known of the activations of a program, by the path of their equations.

    Args:
        program: a closed jaxpr.
        parameters: how many of its arguments, the first ones, are parameters.
        layers: by the equation of a product or a norm, the one whose value stands for the layer.
    """
    walk = _Walk(layers or {})
    body, _ = compat.opened(program)
    sizes = [getattr(v.aval, "size", 1) for v in body.invars]
    args = [Made(parameters=(ParameterSlice(k, (), n),)) for k, n in enumerate(sizes)]
    walk.run(program, [*args[:parameters], *(walk.new() for _ in sizes[parameters:])], (), 0)
    return {path: walk.known(path, *own) for path, own in walk.bent.items()}


@dataclass
class _Walk:
    """One walk through a program.

    Attributes:
        layers: as above.
        parents: of each value that is no sum of multiples, those that it is made of; all are
            earlier ones.
        states: numbers of the values that are kept and added to.
        made_by: of a layer's output, by number, the layer.
        gate_of: of a gate's value, by number, the gate.
        number: of a gate.
        kept: gates that multiply a state.
        let_in: gates that multiply what it is added.
        bent: of each activation, what was added to what comes in, and the layers that make it.
    """

    layers: Mapping[EqnPath, EqnPath]
    parents: list[tuple[int, ...]] = field(default_factory=list)
    states: set[int] = field(default_factory=set)
    made_by: dict[int, EqnPath] = field(default_factory=dict)
    gate_of: dict[int, EqnPath] = field(default_factory=dict)
    number: dict[EqnPath, int] = field(default_factory=dict)
    kept: set[Gate] = field(default_factory=set)
    let_in: set[Gate] = field(default_factory=set)
    bent: dict[EqnPath, tuple[Biases, tuple[EqnPath, ...]]] = field(default_factory=dict)

    def known(self, path: EqnPath, biases: Biases, makers: tuple[EqnPath, ...]) -> Bent:
        """Return what the walk has found out about an activation."""
        z = Gate(path)
        one = z in self.kept or z.complement in self.let_in
        zero = z in self.let_in or z.complement in self.kept
        admits = z in self.let_in or z.complement in self.let_in
        return Bent(biases, makers, None if one == zero else float(one), admits)

    def new(self, made_of: Sequence[Made] = ()) -> Made:
        """Return a value of which nothing is known but what it is made of."""
        self.parents.append(tuple({n for one in made_of for n in self.all_of(one.terms)}))
        return of_value(len(self.parents) - 1)

    def all_of(self, terms: frozenset[Term]) -> set[int]:
        """Return the numbers of what terms are made of, gates included."""
        own = {self.number[gate.path] for t in terms for gate in t.gates}
        return own | {t.source for t in terms}

    def run(self, program: Any, args: Sequence[Made], path: EqnPath, level: int) -> list[Made]:
        """Walk one jaxpr, inside as many scans; return what is known of its results."""
        jaxpr, _ = compat.opened(program)
        env: dict[Any, Made] = dict.fromkeys(jaxpr.constvars, Made())
        env.update(zip(jaxpr.invars, args, strict=True))
        read = lambda v: Made() if isinstance(v, compat.Literal) else env[v]  # noqa: E731
        for k, eqn in enumerate(jaxpr.eqns):
            outs = self.step(eqn, [read(v) for v in eqn.invars], (*path, k), level)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def step(self, eqn: JaxprEqn, ins: list[Made], path: EqnPath, level: int) -> list[Made]:
        """Return what is known of an equation's results."""
        name, inside = eqn.primitive.name, compat.CALLS | compat.REMATS
        if name in inside:
            return self.run(eqn.params[inside[name]], ins, path, level)
        if name == "scan":
            return self.scan(eqn, ins, path, level)
        if name == "cond":
            branches = enumerate(eqn.params["branches"])
            each = [self.run(one, ins[1:], (*path, b), level) for b, one in branches]
            return [self.sum(list(outs)) for outs in zip(*each, strict=True)]
        return [self.plain(eqn, ins, path)] * len(eqn.outvars)

    def scan(self, eqn: JaxprEqn, ins: list[Made], path: EqnPath, level: int) -> list[Made]:
        """Walk one turn, whose carry is a state."""
        consts, carry = compat.scan_split(eqn)
        states = [self.new([one]) for one in ins[consts : consts + carry]]
        self.states |= {t.source for one in states for t in one.terms}
        turn = [_of_turn(one, level) for one in ins[consts + carry :]]
        outs = self.run(eqn.params["jaxpr"], [*ins[:consts], *states, *turn], path, level + 1)
        return [self.new([one]) for one in outs]

    def plain(self, eqn: JaxprEqn, ins: list[Made], path: EqnPath) -> Made:
        """Return what is known of the result of a single operation."""
        name, data = eqn.primitive.name, [one for one in ins if one.terms]
        if not data:
            return Made(parameters=tuple(p for one in ins for p in one.parameters))
        if name in MOVES and len(data) == 1:
            return data[0]
        if name == "concatenate":
            return self.joined(ins)
        if name == "neg":
            return minus(None, data[0])
        if name in ("add", "add_any"):
            return self.sum(ins)
        if name == "sub":
            return self.sum([ins[0], minus(None, ins[1])])
        if name == "select_n":
            return self.sum(ins[1:])
        if name == "mul" or (name == "div" and not ins[1].terms):
            made = times(*ins)
            return self.new(ins) if made is None else made
        out = self.new(ins)
        number = len(self.parents) - 1
        if path in self.layers:
            self.made_by[number] = self.layers[path]
        if name in BENT:
            made = [self.made_by.get(t.source) for t in ins[0].terms]
            makers = () if None in made else tuple(sorted({m for m in made if m}))
            self.bent[path] = ins[0].parameters, makers
        if name != "logistic":
            return out
        self.gate_of[number], self.number[path] = path, number
        return out._replace(gates=frozenset({Gate(path)}))

    def joined(self, ins: Sequence[Made]) -> Made:
        """Return what is known of a value that has the terms of several."""
        out = functools.reduce(plus, ins)
        return out if len(out.terms) <= MANY else self.new(ins)

    def sum(self, ins: Sequence[Made]) -> Made:
        """Return what is known of a sum, which is a state if terms of it are gated."""
        out = functools.reduce(plus, ins)
        if out.gates or sum(bool(one.terms) for one in ins) < 2:
            return out
        gated = any(t.gates for t in out.terms)
        if gated:
            self.look(out.terms)
        if not gated and len(out.terms) <= MANY:
            return out
        state = self.new([out])._replace(parameters=out.parameters)
        self.states.add(len(self.parents) - 1)
        return state

    def look(self, terms: frozenset[Term]) -> None:
        """Note the gates of a state, and those of what it is added.

        In an associative scan, b' = b_2 + a_2 b_1, what is kept is what is added at another place.
        """
        known: set[Term] = set()
        for kept, new in itertools.permutations(terms, 2):
            if kept.source == new.source and new.gates and kept.gates > new.gates:
                self.kept.update(kept.gates - new.gates)
                self.let_in.update(new.gates)
                known |= {kept, new}
        states = {t for t in terms if t.source in self.states}
        states = states or {t for t in terms if self.is_skipped(t, terms - {t})}
        first = {t for t in terms if t.source in self.gate_of and not t.gates}  # of a fixed state
        self.kept.update(Gate(self.gate_of[t.source], t.negative) for t in first)
        for t in terms - first - known if states or first else ():
            own = {gate.complement for gate in t.gates} if t.negative else t.gates
            (self.kept if t in states else self.let_in).update(own)

    def is_skipped(self, term: Term, others: frozenset[Term]) -> bool:
        """Return whether the other terms of a sum are made of what one is a multiple of."""
        return self.reaches({n for n in self.all_of(others) if n != term.source}, term.source)

    def reaches(self, numbers: set[int], goal: int) -> bool:
        """Return whether values are made of an earlier one."""
        left, seen = [n for n in numbers if n > goal], set(numbers)
        while left:
            for n in self.parents[left.pop()]:
                if n == goal:
                    return True
                if n > goal and n not in seen:
                    seen.add(n)
                    left.append(n)
        return False


def _of_turn(one: Made, level: int) -> Made:
    """Return what is known of what a scan hands to one turn, a slice."""
    if one.terms:
        return one
    return Made(parameters=tuple(p.at(-1 - level) for p in one.parameters))
