r"""Any JAX program → the same program that also records its signals and gradients.

    y = f(x @ w)     becomes     h = tap(x @ w, slot)
                                 seen = statistics(h)
                                 y = f(h)

A site's value passes through `tap(x, slot) -> x`, whose reverse pass hands the cotangent $g$ on
and gives `slot` the statistics of $g$ as its cotangent: differentiating the program with
respect to the slots *is* measuring its gradients. Statistics of the signal are extra results. No
callbacks; it all stays inside jit, scan, checkpoint and vmap.

    >>> from propagate.tracing.probe import Options, probe
    >>> f = lambda w, x: jnp.sum(x @ w)
    >>> w, x = 2 * jnp.eye(2), jnp.ones((3, 2))
    >>> tapped, _ = probe(f, w, x, Options(("q",)))
    >>> run = lambda w, slots: tapped(w, x, slots)
    >>> (dw, dslots), seen = jax.grad(run, argnums=(0, 1), has_aux=True)(w, tapped.slots())
    >>> bool((dw == jax.grad(f)(w, x)).all())
    True
    >>> seen[(0,)]["forward"]["values"].tolist()  # of 4096 elements on, sums instead
    [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    >>> dslots[(0,)]["values"].tolist()  # the cotangent of x @ w
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]

The interpreter is an environment, one loop, and a rule for each primitive with a program inside.
An equation without a site in it is applied as it stands, so custom derivatives, shardings and
foreign kernels stay what they were. Sharp edges:

* The body of a call that holds a site is inlined; its shardings and donations are not kept.
* A site in a branch of a conditional has a count, zero if it was not taken.
* A scan's statistics are stacked over its iterations.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate import types
from propagate._jax_compat import JaxprEqn
from propagate.record.measures import OF_SOFTMAX, Selection
from propagate.record.samples import Sample, sample
from propagate.record.sums import FEW, Layout, flat, keep, needed, reduce
from propagate.tracing.sites import EqnPath, Site
from propagate.tracing.trees import arguments
from propagate.types import Array, Tree

Stats = dict[str, Any]
Seen = dict[EqnPath, dict[str, Stats]]
Slots = dict[EqnPath, Stats]
Take = Callable[[Site, JaxprEqn, list[Any], Array], dict[str, Stats]]


@dataclass(frozen=True)
class Probe:
    """A program and where to tap it.

    Attributes:
        jaxpr: the closed jaxpr.
        structure: of its results.
        sites: what to tap, by path.
        selection: the measures of each kind of signal.
        take: `take(site, eqn, ins, x)`, what to record of the value x at a site, the result of an
            equation with operands `ins`; its statistics by default.
        kept: paths of the sites whose values are results themselves, to be summed later; None:
            those of few elements.
        sample: how many numbers of each value are kept; None: all.
    """

    jaxpr: Any
    structure: Any
    sites: dict[EqnPath, Site]
    selection: Selection
    take: Take | None = None
    kept: frozenset[EqnPath] | None = None
    sample: int | None = None

    @functools.cached_property
    def outer(self) -> frozenset[EqnPath]:
        """Paths of the equations that hold a site somewhere inside."""
        return frozenset(p[:k] for p in self.sites for k in range(1, len(p)))

    def slots(self) -> Slots:
        """Return zeros whose cotangents will be the statistics of the gradients."""
        return {path: self.slot(site) for path, site in self.sites.items()}

    def slot(self, site: Site) -> Stats:
        """Return the zeros of one site."""
        return _zeros(self.backward(site), site.shape, site.dtype, site.loops)

    def parts(self, site: Site) -> dict[str, tuple[str, ...]]:
        """Return the sums of each signal that is recorded at a site, by what `seen` calls it."""
        sums = self._sums("forward")
        alive = self._sums("activation", "dead_fraction") if site.kind == "activation" else ()
        weights = self._sums("activation", *OF_SOFTMAX) if is_softmax(site) else ()
        own = {"forward": tuple(dict.fromkeys((*sums, *alive, *weights)))}
        flat = self._sums("activation", "saturated_fraction")
        if site.slope is not None and flat:
            own["slope"] = flat
        if site.slope is not None and flat and site.makers and site.operand is None:
            own["incoming"] = self._sums("forward", "q", "mean")
        unseen = [k for k, path in enumerate(site.terms) if path is None]
        return own | {f"term{k}": self._sums("forward", "q") for k in unseen}

    def gradient_sums(self) -> tuple[str, ...]:
        """Return the sums of a site's gradient."""
        return self._sums("backward")

    def backward(self, site: Site) -> Callable[[Array], Stats]:
        """Return the function that takes the statistics of a site's gradient."""
        return self._taken(site, self.gradient_sums())

    def forward(self, site: Site, eqn: JaxprEqn, ins: list[Any], x: Array) -> dict[str, Stats]:
        """Return what is recorded of a site's value."""
        return (self.take or self._statistics)(site, eqn, ins, x)

    def _statistics(self, site: Site, eqn: JaxprEqn, ins: list[Any], x: Array) -> dict[str, Stats]:
        """Return the statistics of a site's value, and of what it is made of."""

        def value(part: str) -> Array:
            if part == "slope" and site.slope is not None:
                return _slope(eqn, ins) / site.slope
            if part == "incoming":
                return ins[_largest(ins)]
            return x if part == "forward" else ins[int(part.removeprefix("term"))]

        parts = self.parts(site).items()
        return {part: self._taken(site, sums)(value(part)) for part, sums in parts}

    def _taken(self, site: Site, sums: tuple[str, ...]) -> Callable[[Array], Stats]:
        kept = is_small(site) if self.kept is None else site.path in self.kept
        return _statistics(sums, site.layout, kept, self.taken(site))

    def taken(self, site: Site) -> Sample | None:
        """Return which part of a site's values is kept; None: all of it."""
        few = self.sample is None or is_small(site)
        return None if few else _sample(site, self.sample)

    def _sums(self, place: types.Place, *names: str) -> tuple[str, ...]:
        measures = dict(self.selection)[place]
        return needed(m for m in measures if not names or m.name in names)

    @property
    def consts(self) -> list[Any]:
        """The arrays that the program holds beside its arguments."""
        return compat.opened(self.jaxpr)[1]

    def __call__(
        self, params: Tree, data: Tree, slots: Slots, consts: list[Any] | None = None
    ) -> tuple[Tree, Seen]:
        """Run the program.

        Args:
            params: what it was traced with, in the same structure.
            data: likewise.
            slots: of `slots`, to differentiate by.
            consts: in place of its own.

        Returns:
            Its results, and what was recorded at each site.
        """
        body, own = compat.opened(self.jaxpr)
        given = own if consts is None else consts
        outs, seen = _run(self, body, given, arguments(params, data), (), slots)
        return self.structure.unflatten(outs), seen


def is_softmax(site: Site) -> bool:
    """Whether a site's values are weights that sum to 1."""
    return site.kind == "activation" and site.label == "softmax"


@functools.lru_cache(maxsize=4096)
def _sample(site: Site, numbers: int) -> Sample | None:
    heads = site.layout.heads(len(site.shape)) if is_softmax(site) else None
    return sample(site.shape, site.layout, numbers, whole=heads)


def is_small(site: Site) -> bool:
    """Whether a site's values may be kept; those of a loop would be kept for each of its turns."""
    return not site.loops and math.prod(site.shape) < FEW


@functools.lru_cache(maxsize=4096)
def _statistics(
    sums: tuple[str, ...], layout: Layout, kept: bool, sample: Sample | None
) -> Callable[[Array], Stats]:
    """Return a function that is traced once for each shape, however many sites have it."""
    own = keep if sample is None else jax.jit(lambda x: keep(sample.of(x)))
    taken = own if kept else jax.jit(lambda x: _sums(x, sums, layout))
    return lambda x: taken(jax.lax.stop_gradient(x))


def _sums(x: Array, sums: tuple[str, ...], layout: Layout) -> Stats:
    return flat(x) if sums == ("flat",) else reduce(x, sums, layout)  # a count needs no largest


@functools.lru_cache(maxsize=4096)
def _zeros(
    statistics: Callable[[Array], Stats], shape: tuple[int, ...], dtype: Any, loops: tuple[int, ...]
) -> Stats:
    """Return zeros of the shapes of statistics: the same ones for all sites of a shape."""
    shapes = jax.eval_shape(statistics, jax.ShapeDtypeStruct(shape, dtype))
    # of one element each in memory, for values that are kept may be many and large
    zero = lambda v: np.broadcast_to(np.zeros((), v.dtype), (*loops, *v.shape))  # noqa: E731
    return jax.tree.map(zero, shapes)


def _slope(eqn: Any, ins: list[Any]) -> Array:
    """Return phi'(h) of an elementwise equation with one array among its operands."""
    k = _largest(ins)
    of_one = lambda h: compat.bind(eqn, [*ins[:k], h, *ins[k + 1 :]])[0]  # noqa: E731
    h = jax.lax.stop_gradient(ins[k])
    return jax.jvp(of_one, (h,), (jnp.ones_like(h),))[1]


def _largest(ins: list[Any]) -> int:
    return max(range(len(ins)), key=lambda k: jnp.size(ins[k]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap(statistics: Callable[[Array], Stats], x: Array, slot: Stats) -> Array:
    return x


def _tap_forward(statistics: Any, x: Array, slot: Stats) -> tuple[Array, None]:
    return x, None


def _tap_backward(statistics: Any, _: None, g: Array) -> tuple[Array, Stats]:
    return g, statistics(g)


_tap.defvjp(_tap_forward, _tap_backward)


def _run(
    probe: Probe, jaxpr: Any, consts: list[Any], args: list[Any], path: EqnPath, slots: Slots
) -> tuple[list[Any], Seen]:
    """Evaluate a jaxpr that stands at `path`, tapping its sites."""
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    read = lambda v: v.val if isinstance(v, compat.Literal) else env[v]  # noqa: E731
    seen: Seen = {}
    for k, eqn in enumerate(jaxpr.eqns):
        here, ins = (*path, k), [read(v) for v in eqn.invars]
        if here in probe.outer:
            outs, inside = RULES[eqn.primitive.name](probe, eqn, ins, here, slots)
            seen |= inside
        else:
            outs = compat.bind(eqn, ins)
        site = probe.sites.get(here)
        if site is not None:
            seen[here] = probe.forward(site, eqn, ins, outs[site.result])
            outs[site.result] = _tap(probe.backward(site), outs[site.result], slots[here])
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars], seen


def _within(slots: Slots, path: EqnPath) -> Slots:
    return {p: slot for p, slot in slots.items() if p[: len(path)] == path}


def _call(probe: Probe, eqn: Any, ins: list[Any], path: EqnPath, slots: Slots) -> Any:
    body, consts = compat.opened(eqn.params[compat.CALLS[eqn.primitive.name]])
    return _run(probe, body, consts, ins, path, slots)


def _remat(probe: Probe, eqn: Any, ins: list[Any], path: EqnPath, slots: Slots) -> Any:
    body, consts = compat.opened(eqn.params[compat.REMATS[eqn.primitive.name]])
    options = {k: eqn.params[k] for k in ("prevent_cse", "policy")}
    run = jax.checkpoint(lambda ins, own: _run(probe, body, consts, ins, path, own), **options)
    return run(ins, _within(slots, path))


def _scan(probe: Probe, eqn: Any, ins: list[Any], path: EqnPath, slots: Slots) -> Any:
    body, consts = compat.opened(eqn.params["jaxpr"])
    n_consts, n_carry = compat.scan_split(eqn)
    fixed, carry, xs = ins[:n_consts], ins[n_consts : n_consts + n_carry], ins[n_consts + n_carry :]

    def step(carry: list[Any], turn: tuple[list[Any], Slots]) -> tuple[list[Any], Any]:
        outs, seen = _run(probe, body, consts, [*fixed, *carry, *turn[0]], path, turn[1])
        return outs[:n_carry], (outs[n_carry:], seen)

    options = {k: v for k, v in eqn.params.items() if k in ("length", "reverse", "unroll")}
    carry, (ys, seen) = jax.lax.scan(step, carry, (xs, _within(slots, path)), **options)
    return [*carry, *ys], seen


def _cond(probe: Probe, eqn: Any, ins: list[Any], path: EqnPath, slots: Slots) -> Any:
    own = _within(slots, path)

    def branch(b: int, jaxpr: Any) -> Callable[..., tuple[list[Any], Seen]]:
        body, consts = compat.opened(jaxpr)
        return lambda ops, own: _run(probe, body, consts, list(ops), (*path, b), own)

    taken = [branch(b, jaxpr) for b, jaxpr in enumerate(eqn.params["branches"])]
    blank: Seen = {}
    for one in taken:
        shapes = jax.eval_shape(one, ins[1:], own)[1]
        blank |= jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    blank = {path: {"taken": {"count": jnp.zeros(())}, **stats} for path, stats in blank.items()}

    def padded(one: Callable[..., tuple[list[Any], Seen]]) -> Callable[..., tuple[list[Any], Seen]]:
        def run(ops: list[Any], own: Slots) -> tuple[list[Any], Seen]:
            outs, seen = one(ops, own)
            counted = {p: {"taken": {"count": jnp.ones(())}, **stats} for p, stats in seen.items()}
            return outs, blank | counted

        return run

    return jax.lax.switch(ins[0], [padded(one) for one in taken], ins[1:], own)


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(compat.CALLS, _call),
    **dict.fromkeys(compat.REMATS, _remat),
    "scan": _scan,
    "cond": _cond,
}
"""One for each primitive whose inside can hold a site; `find_sites` walks into the same ones."""
