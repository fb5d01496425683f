"""Where to look in a program: which equations of a jaxpr are sites, and what each is made of.

A jaxpr is a list of equations. That of `lambda w, x: jnp.tanh(x @ w)` reads

    { lambda ; a:f32[3,4] b:f32[2,3]. let
        c:f32[2,4] = dot_general[...] b a
        d:f32[2,4] = tanh c
      in (d,) }

and `find` sees a product, made by the first parameter, and an activation behind it:

    >>> import jax, jax.numpy as jnp
    >>> from propagate.tracing.sites import ParameterSlice
    >>> closed = jax.make_jaxpr(lambda w, x: jnp.tanh(x @ w))(jnp.ones((3, 4)), jnp.ones((2, 3)))
    >>> w, x = Facts(parameters=(ParameterSlice(0, (), 12),)), Facts(data=True)
    >>> sites, unopened = find(closed, [w, x], every=False)
    >>> [(site.path, site.kind, site.depth) for site in sites]
    [((0,), 'matmul', 1), ((1,), 'activation', 1)]
    >>> sites[0].parameter.number, sites[1].parameter, sites[1].after.number
    (0, None, 0)

One walk in program order keeps, for every value, its `Facts` (`dataflow`); `site_kinds` says which
equation is a site. What is done with the sites is written in `instrument`.

Sharp edges:

* Calls, scans, conditionals and rematerialised blocks are walked into. Loops without a fixed number
  of turns, custom derivatives and foreign kernels are not; they are listed as `Unopened` with the
  matrix products inside.
* A scan's body is walked until what depends on the data is settled; only the last walk makes sites.
* A value has a batch axis where its shape changes with the size of the batch (`other`, the same
  program traced for one more input). Without that program it is taken to be the first.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.record.spine import POINTWISE
from propagate.tracing import source_labels
from propagate.tracing.dataflow import (
    Facts,
    after_turns,
    carried,
    follow,
    layout,
    merge,
    of_one_turn,
    of_results,
    outside,
    skip,
)
from propagate.tracing.primitives import (
    PRODUCTS,
    QUIET,
    fans,
    first_float,
    has_float,
    products,
    terms_summed,
)
from propagate.tracing.site_kinds import (
    WITHOUT_PARAMETER,
    activations_joined,
    finished,
    is_softmax,
    kind_of,
    largest_slope,
)
from propagate.tracing.sites import LOOP, EqnPath, Kind, RawInput, Rescaled, Site, Unopened


def find(
    jaxpr: Any, facts: Sequence[Facts], *, other: Any = None, every: bool
) -> tuple[tuple[Site, ...], tuple[Unopened, ...]]:
    """Return the sites of a program and what could not be opened.

    Args:
        jaxpr: the program, closed.
        facts: of its arguments.
        other: the same program for one more input, to tell batch axes by.
        every: whether every floating-point operation is a site.
    """
    walk = _Walk(every)
    walk.run(jaxpr, list(facts), Position(twin=other))
    return tuple(activations_joined(walk.found())), tuple(walk.unopened)


class Position(NamedTuple):
    """Where the walk stands.

    Attributes:
        path: numbers of the equations that lead here, from the outermost program inwards.
        loops: the lengths of the scans around it, outermost first.
        turns: how much of `path` leads to each of them.
        strides: by how much a turn of each makes its carry deeper.
        reversed: whether each begins with its last turn.
        twin: the equation or jaxpr that stands here in the program for one more input, if known.
    """

    path: EqnPath = ()
    loops: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    reversed: tuple[bool, ...] = ()
    twin: Any = None

    def equations(self, jaxpr: Any) -> "Iterator[tuple[JaxprEqn, Position]]":
        """Yield the equations of a jaxpr, each with its position."""
        twins = [None] * len(jaxpr.eqns)
        if self.twin is not None:
            others = compat.opened(self.twin)[0].eqns
            if [e.primitive.name for e in others] == [e.primitive.name for e in jaxpr.eqns]:
                twins = others
        for k, (eqn, twin) in enumerate(zip(jaxpr.eqns, twins, strict=True)):
            yield eqn, self._replace(path=(*self.path, k), twin=twin)

    def inside(self, name: str) -> "Position":
        """Return the position of the jaxpr that is the equation's parameter `name`."""
        return self._replace(twin=self.twin and self.twin.params[name])

    def branch(self, number: int) -> "Position":
        """Return the position of a conditional's branch."""
        twin = self.twin and self.twin.params["branches"][number]
        return self._replace(path=(*self.path, number), twin=twin)

    def turn(self, scan: JaxprEqn, stride: int) -> "Position":
        """Return the position of a scan's body."""
        return self.inside("jaxpr")._replace(
            loops=(*self.loops, scan.params["length"]),
            reversed=(*self.reversed, scan.params["reverse"]),
            turns=(*self.turns, len(self.path)),
            strides=(*self.strides, stride),
        )


@dataclass(frozen=True)
class _Walk:
    """One walk through a program, and what it came by: sites, and what stayed closed.

    Nothing is kept of the walks that settle the body of a scan.
    """

    every: bool
    settling: bool = False
    sites: dict[EqnPath, Site] = field(default_factory=dict)
    unopened: list[Unopened] = field(default_factory=list)

    def found(self) -> list[Site]:
        """Return the sites; a term of an addition that is none any more is none's value."""
        known = lambda terms: tuple(t if t in self.sites else None for t in terms)  # noqa: E731
        return [replace(site, terms=known(site.terms)) for site in self.sites.values()]

    def run(self, program: Any, args: Sequence[Facts], at: Position) -> list[Facts]:
        """Walk one jaxpr; return the facts of its results."""
        jaxpr, _ = compat.opened(program)
        env: dict[Any, Facts] = dict.fromkeys(jaxpr.constvars, Facts())
        env.update(zip(jaxpr.invars, args, strict=True))
        read = lambda v: Facts() if isinstance(v, compat.Literal) else env[v]  # noqa: E731
        done: dict[Any, list[Facts]] = {}
        for eqn, here in at.equations(jaxpr):
            same = _identity(eqn)
            if same not in done:  # as in `x - mean`, written twice
                done[same] = self.step(eqn, [read(v) for v in eqn.invars], here)
            env.update(zip(eqn.outvars, done[same], strict=True))
        return [read(v) for v in jaxpr.outvars]

    def step(self, eqn: JaxprEqn, ins: list[Facts], at: Position) -> list[Facts]:
        """Return the facts of an equation's results."""
        name = eqn.primitive.name
        if name in compat.CALLS or name in compat.REMATS:
            key = (compat.CALLS | compat.REMATS)[name]
            return self.run(eqn.params[key], ins, at.inside(key))
        if name == "scan":
            return self._scan(eqn, ins, at)
        if name == "cond":
            return self._cond(eqn, ins, at)
        if not eqn.outvars:
            return []  # as of `jax.debug.print`
        out = follow(eqn, ins, at.path)
        if out.data and not self.settling:
            self._note_unopened(eqn)
        if out.data and has_float(eqn):
            out = self._looked_at(eqn, ins, out, at)
        return of_results(eqn, out)

    def _scan(self, eqn: JaxprEqn, ins: list[Facts], at: Position) -> list[Facts]:
        n_consts, n_carry = compat.scan_split(eqn)
        length, level, end = eqn.params["length"], len(at.loops), n_consts + n_carry
        consts = [outside(facts) for facts in ins[:n_consts]]
        xs = [of_one_turn(facts, level) for facts in ins[end:]]

        def turn(walk: _Walk, carry: list[Facts], stride: int) -> list[Facts]:
            args = [*consts, *carry, *xs]
            return walk.run(eqn.params["jaxpr"], args, at.turn(eqn, stride))

        unkept = replace(self, settling=True)
        carry, stride = _settled(lambda c: turn(unkept, c, 0)[:n_carry], ins[n_consts:end])
        outs = turn(self, carry, stride)
        return [after_turns(facts, level, length, stride) for facts in outs]

    def _cond(self, eqn: JaxprEqn, ins: list[Facts], at: Position) -> list[Facts]:
        branches, chosen = eqn.params["branches"], ins[0].data
        args = [replace(facts, layer=None) for facts in ins[1:]]
        outs = [self.run(branch, args, at.branch(b)) for b, branch in enumerate(branches)]
        merged = [merge(each) for each in zip(*outs, strict=True)]  # no site's value
        return [replace(facts, data=facts.data or chosen) for facts in merged]

    def _looked_at(self, eqn: JaxprEqn, ins: list[Facts], out: Facts, at: Position) -> Facts:
        """Keep the equation if it is a site; return the facts of its result."""
        completed = finished(eqn, ins, out, at.path)
        kind, out = completed or kind_of(eqn, ins, out, at.path)
        is_site = kind is not None or self.every
        if is_site and not self.settling:
            site = _site(eqn, kind or "op", ins, out, at)
            if completed:
                site = self._moved(next(facts.layer.path for facts in ins if facts.layer), site)
            self.sites[at.path] = site
        if not is_site:
            return out
        return replace(out, value=at.path, content=Rescaled(at.path), through=())

    def _moved(self, before: EqnPath, site: Site) -> Site:
        """Return the site of a layer's output, which takes the place of that before its bias."""
        own = self.sites.pop(before, None)
        if own is None:
            return site  # of another bias of the same product
        if self.every:
            self.sites[before] = replace(own, kind="op", parameter=None, fans=None)
        kept = ("label", "scope", "frame", "fans", "terms_summed", "reads", "through", "operand")
        same = {name: getattr(own, name) for name in kept}
        return replace(site, product=own.product or own.path, **same)

    def _note_unopened(self, eqn: JaxprEqn) -> None:
        name = eqn.primitive.name
        jaxprs = list(compat.inner(eqn))
        inside = sum(map(products, jaxprs))
        if name in compat.CUSTOM:
            if not inside:
                return
            reason = "its own derivative rule is kept whole"
        elif name == LOOP:
            reason = "a loop without a fixed number of turns has no reverse-mode gradient"
        elif (jaxprs and not name.startswith(QUIET)) or re.search("callback|ffi|custom_call", name):
            reason = "its inside is not a plain JAX program, or one not known here"
        else:
            return
        called = name if name == LOOP else compat.function_name(eqn) or name
        self.unopened.append(Unopened(called, inside, reason, source_labels.user_frame(eqn)))


def _settled(
    turn: Callable[[list[Facts]], list[Facts]], carry: list[Facts]
) -> tuple[list[Facts], int]:
    """Repeat a scan's body until it no longer changes what its carry depends on.

    Returns:
        The facts of the carry, and by how much a turn makes it deeper.
    """
    while True:
        pairs = list(zip(carry, turn(carry), strict=True))
        settled = [carried(before, after) for before, after in pairs]
        if settled == carry:
            deeper = (after.depth - before.depth for before, after in pairs if before.data)
            return carry, max(deeper, default=0)
        carry = settled


def _site(eqn: JaxprEqn, kind: Kind, ins: list[Facts], out: Facts, at: Position) -> Site:
    result = first_float(eqn) or 0
    value = eqn.outvars[result].aval
    other = None if at.twin is None else at.twin.outvars[result].aval.shape
    parameter = None
    if kind not in WITHOUT_PARAMETER and out.parameters:
        parameter = out.parameters[0]
    return Site(
        path=at.path,
        kind=kind,
        label="softmax" if is_softmax(eqn, ins) else source_labels.label(eqn),
        parameter=parameter,
        after=out.after,
        depth=out.depth,
        strides=at.strides,
        loops=at.loops,
        reversed=at.reversed,
        turns=at.turns,
        shape=value.shape,
        layout=layout(value.shape, other, out.unit_axis),
        scope=source_labels.scope(eqn),
        frame=source_labels.user_frame(eqn),
        slope=largest_slope(eqn, ins) if kind in POINTWISE else None,
        skip=skip(ins) if kind == "add" else None,
        terms=tuple(facts.value for facts in ins) if kind == "add" else (),
        operand=_operand(ins) if kind in (*POINTWISE, *PRODUCTS.values()) else None,
        result=result,
        dtype=value.dtype,
        fans=fans(eqn, side=0 if ins[-1].data else 1) if parameter else None,
        terms_summed=terms_summed(eqn),
        reads=_inputs_read(ins) if parameter and kind in PRODUCTS.values() else (),
        inputs=out.inputs,
        through=tuple(dict.fromkeys(each for f in ins if f.data for each in f.through)),
    )


def _operand(ins: list[Facts]) -> Rescaled | None:
    """Return the site whose numbers are the one operand with data."""
    data = [facts for facts in ins if facts.data]
    return data[0].content if len(data) == 1 else None


def _inputs_read(ins: list[Facts]) -> tuple[RawInput, ...]:
    return next((facts.raw for facts in ins if facts.data), ())


def _identity(eqn: JaxprEqn) -> tuple[Any, ...]:
    """Return what equal equations have in common; one with a program inside equals no other."""
    if any(True for _ in compat.inner(eqn)):
        return (id(eqn),)
    return (eqn.primitive.name, str(eqn.params), *map(id, eqn.invars))
