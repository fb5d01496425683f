"""Where to look in a program: which equations of a jaxpr are sites, and what each is made of.

One walk in program order keeps, for every value, a `Trail`: whether it depends on the input batch,
which parameters it consists of, what it last came from. Rules by primitive read the trails of the
operands and return that of the result; some of them also make a `Site`.

Sharp edges:

* Calls, scans, conditionals and rematerialised blocks are walked into. Loops without a fixed number
  of turns, custom derivatives and foreign kernels are not; they are listed as `Unopened` with the
  matrix products inside.
* A scan's body is walked until what depends on the data is settled; only the last walk makes sites.
* A value has a batch axis where its shape changes with the size of the batch (`other`, the same
  program traced for one more input). Without that program it is taken to be the first.
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.tracing import source_labels
from propagate.tracing.dataflow import Facts, indexed, iteration, layout, of_turn, skip, unit_axis
from propagate.tracing.primitives import (
    BENDS,
    CURVES,
    LAYOUT,
    PRODUCTS,
    QUIET,
    REDUCTIONS,
    fans,
    first_float,
    has_float,
    products,
)
from propagate.tracing.site_kinds import activation_kind, activations_joined, largest_slope
from propagate.tracing.sites import EqnPath, Kind, Leaf, Site, Unopened


def find(
    jaxpr: Any, trails: Sequence[Facts], sizes: Sequence[int], *, other: Any = None, every: bool
) -> tuple[tuple[Site, ...], tuple[Unopened, ...]]:
    """Return the sites of a program and what could not be opened.

    Args:
        jaxpr: the program, closed.
        trails: of its arguments.
        sizes: of the parameters, to name a product of several after the largest.
        other: the same program for one more input, to tell batch axes by.
        every: whether every floating-point operation is a site.
    """
    walk = _Walk(sizes, every)
    body, consts = compat.opened(jaxpr)
    twin = compat.opened(other)[0] if other is not None else None
    walk.run(body, [Facts()] * len(consts), list(trails), (), (), twin)
    return tuple(activations_joined(list(walk.sites.values()))), tuple(walk.unopened)


class _Walk:
    """The environment and the rule table; `sites` and `unopened` grow as it goes."""

    def __init__(self, sizes: Sequence[int], every: bool) -> None:
        self.sizes, self.every = sizes, every
        self.sites: dict[EqnPath, Site] = {}
        self.unopened: list[Unopened] = []
        self.silent = False  # while a scan's body is being settled
        self.count = 0

    def run(
        self,
        jaxpr: Any,
        consts: list[Facts],
        args: list[Facts],
        place: EqnPath,
        loops: tuple[int, ...],
        other: Any,
    ) -> list[Facts]:
        """Walk one jaxpr; return the trails of its results."""
        env: dict[Any, Facts] = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        read = lambda v: Facts() if isinstance(v, compat.Literal) else env[v]  # noqa: E731
        twins, done = _twins(jaxpr, other), {}
        for k, (eqn, twin) in enumerate(zip(jaxpr.eqns, twins, strict=True)):
            same = _identity(eqn)
            outs = done.get(same)  # as in `x - mean`, written twice
            if outs is None:
                outs = self.step(eqn, [read(v) for v in eqn.invars], (*place, k), loops, twin)
            done[same] = outs
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def step(
        self,
        eqn: JaxprEqn,
        ins: list[Facts],
        place: EqnPath,
        loops: tuple[int, ...],
        twin: JaxprEqn | None,
    ) -> list[Facts]:
        """Return the trails of an equation's results."""
        name = eqn.primitive.name
        if name in compat.CALLS or name in compat.REMATS:
            key = (compat.CALLS | compat.REMATS)[name]
            return self._call(eqn.params[key], ins, place, loops, twin and twin.params[key])
        if name == "scan":
            return self._scan(eqn, ins, place, loops, twin)
        if name == "cond":
            return self._cond(eqn, ins, place, loops, twin)
        out = self._follow(eqn, ins)
        if out.data:
            self._note_unopened(eqn)
        if out.data and has_float(eqn):
            kind, out = self._site_kind(eqn, ins, out, place)
            if kind or self.every:
                self._add(eqn, kind or "op", ins, out, place, loops, twin)
                out = replace(out, value=place)
        return [out] * len(eqn.outvars)

    def _call(
        self, jaxpr: Any, ins: list[Facts], place: EqnPath, loops: tuple[int, ...], twin: Any
    ) -> list[Facts]:
        body, consts = compat.opened(jaxpr)
        other = compat.opened(twin)[0] if twin is not None else None
        return self.run(body, [Facts()] * len(consts), ins, place, loops, other)

    def _scan(
        self, eqn: JaxprEqn, ins: list[Facts], place: EqnPath, loops: tuple[int, ...], twin: Any
    ) -> list[Facts]:
        n_consts, n_carry = compat.scan_split(eqn)
        consts, xs = ins[:n_consts], [iteration(t, loops) for t in ins[n_consts + n_carry :]]
        carry = ins[n_consts : n_consts + n_carry]
        inside = (*loops, eqn.params["length"])
        body = functools.partial(self._call, eqn.params["jaxpr"], place=place, loops=inside)
        body = functools.partial(body, twin=twin and twin.params["jaxpr"])
        carry, grown = self._settle(lambda c: body([*consts, *c, *xs])[:n_carry], carry)
        outs = body([*consts, *carry, *xs])
        if not self.silent:
            for site in list(self.sites.values()):
                if site.place[: len(place)] == place:
                    strides, turns = (grown, *site.strides), (len(place), *site.turns)
                    self.sites[site.place] = replace(site, strides=strides, turns=turns)
        extra = grown * (eqn.params["length"] - 1)
        last = functools.partial(of_turn, level=len(loops), turn=eqn.params["length"] - 1)
        return [
            replace(
                t,
                depth=t.depth + extra,
                after=t.after and last(t.after),
                leaves=tuple(map(last, t.leaves)),
                value=None,
                norm=None,
            )
            for t in outs
        ]

    def _settle(
        self, turn: Callable[[list[Facts]], list[Facts]], carry: list[Facts]
    ) -> tuple[list[Facts], int]:
        """Repeat a body until it no longer changes what its carry depends on."""
        silent, self.silent = self.silent, True
        while True:
            outs = turn(carry)
            deeper = [o.depth - c.depth for c, o in zip(carry, outs, strict=True) if c.data]
            merged = [
                replace(
                    c,
                    data=c.data or o.data,
                    leaves=c.leaves if c.leaves == o.leaves else (),
                    value=None,
                    norm=None,
                )
                for c, o in zip(carry, outs, strict=True)
            ]
            if merged == carry:
                self.silent = silent
                return carry, max(deeper, default=0)
            carry = merged

    def _cond(
        self, eqn: JaxprEqn, ins: list[Facts], place: EqnPath, loops: tuple[int, ...], twin: Any
    ) -> list[Facts]:
        branches, chosen = eqn.params["branches"], ins[0].data
        others = [None] * len(branches) if twin is None else twin.params["branches"]
        outs = [
            self._call(branch, ins[1:], (*place, b), loops, other)
            for b, (branch, other) in enumerate(zip(branches, others, strict=True))
        ]
        merged = [self._merge(list(each)) for each in zip(*outs, strict=True)]  # no site's value
        return [replace(t, data=t.data or chosen) for t in merged]

    def _merge(self, ins: list[Facts]) -> Facts:
        """What follows from the operands alone."""
        data = [t for t in ins if t.data]
        if not data:
            leaves = dict.fromkeys(leaf for t in ins for leaf in t.leaves)
            return Facts(leaves=tuple(sorted(leaves, key=lambda leaf: -self.sizes[leaf[0]])))
        latest = max(data, key=lambda t: (t.depth, t.origin))
        moment = "moment" if all(t.moment for t in data) else ""
        return Facts(
            data=True,
            after=latest.after,
            depth=latest.depth,
            origin=max(t.origin for t in data),
            moment=moment,
            still=all(t.still for t in data),
        )

    def _follow(self, eqn: JaxprEqn, ins: list[Facts]) -> Facts:
        """Return the trail of the result, before it is known to be a site."""
        name, out = eqn.primitive.name, self._merge(ins)
        if not out.data:
            return replace(out, leaves=indexed(eqn, out.leaves))
        first = next(t for t in ins if t.data)
        axis = unit_axis(eqn, ins)
        leaves = tuple(leaf for t in ins for leaf in t.leaves)
        if name in LAYOUT:
            still = first.still or name == "stop_gradient"
            return replace(first, unit_axis=axis, still=still, value=None)
        if name in REDUCTIONS:
            return replace(out, moment="moment", origin=self._next(), unit_axis=axis)
        if name in ("sqrt", "rsqrt") or (name == "pow" and out.moment):
            return replace(out, moment="root" if out.moment else "", unit_axis=axis)
        if name in ("mul", "div", "add", "max", "select_n") and out.moment:
            root = any(t.moment == "root" for t in ins)
            moment = "root" if root else "moment"
            return replace(out, moment=moment, leaves=leaves, unit_axis=axis)
        if name in ("mul", "div") and not all(t.data for t in ins):
            return replace(out, norm=first.norm, unit_axis=axis)
        return replace(out, unit_axis=axis)

    def _site_kind(
        self, eqn: JaxprEqn, ins: list[Facts], out: Facts, place: EqnPath
    ) -> tuple[Kind | None, Facts]:
        """Decide whether the result is a site, and update its trail."""
        name = eqn.primitive.name
        data = [t for t in ins if t.data]
        leaves = [leaf for t in ins if not t.data for leaf in t.leaves]
        if name in PRODUCTS:
            return PRODUCTS[name], self._layer(out, leaves)  # type: ignore[return-value]
        if name == "gather" and leaves:
            return "embedding", self._layer(out, leaves)
        if name == compat.TAG:
            return "tag", out
        if name == "mul" and data[0].norm and leaves and not self.silent:
            site = self.sites[data[0].norm]
            self.sites[site.place] = replace(site, leaf=site.leaf or leaves[0])
        if name in ("mul", "div") and len({t.moment == "root" for t in data}) == 2:
            scale = next(t for t in data if t.moment == "root")
            out = replace(out, origin=self._next(), norm=place, leaves=scale.leaves)
            return "norm", out
        if name in ("add", "add_any") and len(data) == 2 and not any(t.moment for t in data):
            same_shape = len({v.aval.shape for v in eqn.invars}) == 1
            if same_shape and data[0].origin != data[1].origin:
                return "add", replace(out, origin=self._next())
        if name in compat.CUSTOM:
            return self._custom(eqn, out, leaves)
        live = [t.data and not t.still for t in ins]
        bends = name in BENDS | CURVES and any(live) and (name != "select_n" or ins[0].data)
        joins = name in ("mul", "div", "add", "sub", "add_any") and len(live) == sum(live)
        return ("elementwise" if bends or joins or (name == "div" and live[1]) else None), out

    def _custom(self, eqn: JaxprEqn, out: Facts, leaves: list[Leaf]) -> tuple[Kind | None, Facts]:
        if sum(map(products, compat.inner(eqn))):
            return "custom", self._layer(out, leaves)
        return "elementwise", out

    def _layer(self, out: Facts, leaves: list[Leaf]) -> Facts:
        """Return the trail behind a contraction, one layer deeper if it has a parameter."""
        out = replace(out, origin=self._next(), moment="")
        if not leaves:
            return out
        return replace(out, depth=out.depth + 1, after=leaves[0], leaves=(leaves[0],))

    def _next(self) -> int:
        self.count += 1
        return self.count

    def _note_unopened(self, eqn: JaxprEqn) -> None:
        name = eqn.primitive.name
        jaxprs = list(compat.inner(eqn))
        inside = sum(map(products, jaxprs))
        if name in compat.CUSTOM:
            if not inside:
                return
            reason = "its own derivative rule is kept whole"
        elif name == "while":
            reason = "a loop without a fixed number of turns has no reverse-mode gradient"
        elif (jaxprs and not name.startswith(QUIET)) or re.search("callback|ffi|custom_call", name):
            reason = "its inside is not a plain JAX program, or one not known here"
        else:
            return
        if not self.silent:
            called = name if name == "while" else compat.function_name(eqn) or name
            self.unopened.append(Unopened(called, inside, reason, source_labels.user_frame(eqn)))

    def _add(
        self,
        eqn: JaxprEqn,
        kind: Kind,
        ins: list[Facts],
        out: Facts,
        place: EqnPath,
        loops: tuple[int, ...],
        twin: JaxprEqn | None,
    ) -> None:
        if self.silent:
            return
        result = first_float(eqn) or 0
        value = eqn.outvars[result].aval
        other = None if twin is None else twin.outvars[result].aval.shape
        leafless = kind in ("add", "tag", "op", "elementwise") or not out.leaves
        leaf = None if leafless else out.leaves[0]
        self.sites[place] = Site(
            place=place,
            kind=activation_kind(eqn, ins) if kind == "elementwise" else kind,
            label=source_labels.label(eqn),
            leaf=leaf,
            after=out.after,
            depth=out.depth,
            strides=(),
            loops=loops,
            turns=(),
            shape=value.shape,
            layout=layout(value.shape, other, out.unit_axis),
            scope=source_labels.scope(eqn),
            frame=source_labels.user_frame(eqn),
            slope=largest_slope(eqn, ins) if kind == "elementwise" else None,
            skip=skip(ins) if kind == "add" else None,
            terms=tuple(t.value for t in ins) if kind == "add" else (),
            result=result,
            dtype=value.dtype,
            fans=fans(eqn, side=0 if ins[-1].data else 1) if leaf else None,
        )


def _identity(eqn: JaxprEqn) -> tuple[Any, ...]:
    """Return what equal equations have in common; one with a program inside equals no other."""
    if any(True for _ in compat.inner(eqn)):
        return (id(eqn),)
    return (eqn.primitive.name, str(eqn.params), *map(id, eqn.invars))


def _twins(jaxpr: Any, other: Any) -> list[Any]:
    """Pair equations with those of the same program for one more input, if they correspond."""
    names = lambda j: [e.primitive.name for e in j.eqns]  # noqa: E731
    if other is None or names(jaxpr) != names(other):
        return [None] * len(jaxpr.eqns)
    return list(other.eqns)
