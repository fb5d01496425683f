"""Statistics of a program's sites as a pytree, and the labelled record that they make.

`value_and_grad` is `jax.value_and_grad` that returns a `Trace` as well: arrays that may leave a
jitted training step, with the names of the sites beside them as static data.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate import laws, measures, record
from propagate.instrument import Probe
from propagate.measures import Selection
from propagate.models import leaf_names, split
from propagate.reductions import Layout, finish, reduce
from propagate.sites import Leaf, Place, Site, Trail, Unopened, find
from propagate.types import Array, Tree, UnusableInput

Sites = Literal["default", "all"]
Row = tuple[Site, tuple[int, ...]]  # a site and the iteration of the scans around it
MOMENTS = ("sum", "squares")


@dataclass(frozen=True)
class Options:
    """What to look at.

    Attributes:
        measures: endings of the variables to record; all by default.
        sites: `"default"`, or `"all"` for every floating-point operation.
        only: a pattern for the names of sites, such as `"blocks.*"`.
    """

    measures: tuple[str, ...] | None = None
    sites: Sites = "default"
    only: str | None = None

    def __post_init__(self) -> None:
        if self.sites not in ("default", "all"):
            raise UnusableInput(f"sites must be 'default' or 'all', got {self.sites!r}")

    @property
    def selection(self) -> Selection:
        """Return the measures of each kind of signal; q always."""
        wanted = None if self.measures is None else ("q", *self.measures)
        return measures.select(wanted, measures.SITE_MEASURES)


@dataclass(frozen=True)
class Meta:
    """What is known of a trace before any number is.

    Attributes:
        sites: in program order.
        parameters: the dotted path of each.
        shapes: of each parameter.
        slices: of each parameter, how many leading axes number its layers.
        selection: the measures of each kind of signal.
        unopened: what was not looked into.
    """

    sites: tuple[Site, ...]
    parameters: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    slices: tuple[int, ...]
    selection: Selection
    unopened: tuple[Unopened, ...]

    def parameter(self, leaf: Leaf | None, turn: tuple[int, ...]) -> str:
        """Return the path of a parameter, with the number of its layer."""
        if leaf is None:
            return ""
        return self.parameters[leaf[0]] + "".join(f"[{k}]" for k in _index(leaf, turn))

    def rows(self) -> list[Row]:
        """Return the sites, one for each iteration of the scans around it, in program order."""
        rows = [(s, t) for s in self.sites for t in itertools.product(*map(range, s.loops))]
        return sorted(rows, key=_order)

    def names(self, rows: list[Row]) -> list[str]:
        """Return a name for each row: its parameter's, or that of its layer and operation."""
        names, used = [self._name(*row) for row in rows], Counter()
        for k, name in enumerate(names):
            used[name] += 1
            if used[name] > 1:
                names[k] = f"{name}#{used[name]}"
        return names

    def _name(self, site: Site, turn: tuple[int, ...]) -> str:
        if site.leaf:
            return self.parameter(site.leaf, turn)
        if site.kind == "tag":
            return site.label + _brackets(turn)
        layer = self.parameter(site.after, turn)
        owner = layer.rpartition(".")[0] or layer or site.scope
        counted = site.after is not None and any(k < 0 for k in site.after[1])
        index = "" if counted else _brackets(turn)
        return f"{owner}/{site.label}{index}" if owner else site.label + index


def _brackets(turn: tuple[int, ...]) -> str:
    return "".join(f"[{k}]" for k in turn)


def _index(leaf: Leaf, turn: tuple[int, ...]) -> tuple[int, ...]:
    """Return which slice of a stacked parameter an iteration uses."""
    return tuple(k if k >= 0 else turn[-1 - k] for k in leaf[1])


def _order(row: Row) -> tuple[int, ...]:
    """Sort by place, with the number of the iteration after each scan."""
    site, turn = row
    key = list(site.place)
    for at, k in reversed(list(zip(site.turns, turn, strict=True))):
        key.insert(at, k)
    return tuple(key)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("seen", "gradients", "weights"),
    meta_fields=("meta",),
)
@dataclass(frozen=True)
class Trace:
    """Sums over the signals, gradients and parameters of one evaluation; a pytree.

    Attributes:
        seen: of the signal at each site.
        gradients: of the gradient at each site.
        weights: of each parameter and of its gradient.
        meta: names and layouts, static.
    """

    seen: dict[Place, dict[str, Any]]
    gradients: dict[Place, Any]
    weights: dict[int, dict[str, Any]]
    meta: Meta

    def record(self) -> xr.Dataset:
        """Return the statistics as a labelled record, dims (site,) and (weight,).

        Scale-like variables are log10 of second moments, as those of a sweep.
        """
        rows = self.meta.rows()
        variables = dict(self._variables(rows))
        names = np.array(self.meta.names(rows), dtype=object).astype(str)
        coords = {"name": names} | _columns(self.meta, rows)
        coords["taken"] = (
            np.array([np.asarray(self.seen[s.place]["forward"]["count"])[t] for s, t in rows]) > 0
        )
        sites = {k: ("site", v) for k, v in (coords | variables).items()}
        weights = laws.table(self.meta, self.weights, rows)
        made = xr.Dataset(sites | weights, {"site": np.arange(len(rows))})
        made = made.set_coords(list(coords))
        if "log10_gradient_q" in made:
            made["log10_weight_gradient_q"] = "site", _of_parameter(made, "log10_gradient_q")
        unopened = [str(one) for one in self.meta.unopened]
        return made.assign_attrs(record.provenance(unopened=unopened))

    def _variables(self, rows: list[Row]) -> Any:
        for place, wanted in self.meta.selection:
            for measure in wanted:
                name = measure.variable(place)
                alive = measure.name in ("dead_fraction", "saturated_fraction")
                if place in ("forward", "backward") or alive:
                    yield name, self._measured(measure, place, rows)
        q = next(m for m in measures.SITE_MEASURES if m.name == "q")
        for which in ("skip", "branch"):
            yield f"log10_{which}_q", self._measured(q, which, rows)

    def _measured(self, measure: Any, place: str, rows: list[Row]) -> np.ndarray:
        """Return a statistic of every row; NaN where it was not taken."""
        finished = {
            site.place: finish(measure, stats, site.layout.of(site.shape))
            for site in self.meta.sites
            if (stats := self._stats(site, measure.name, place)) is not None
        }
        nothing = np.full((), np.nan)
        return np.array(
            [np.asarray(finished.get(s.place, nothing))[_of(s, t, finished)] for s, t in rows]
        )

    def _stats(self, site: Site, name: str, place: str) -> Any:
        own = self.seen[site.place]
        if place == "backward":
            return self.gradients[site.place] if self.gradients else None
        if place in ("skip", "branch"):
            if site.skip is None:
                return None
            k = site.skip if place == "skip" else 1 - site.skip
            other = site.terms[k]
            return own[f"term{k}"] if other is None else self.seen[other]["forward"]
        if name == "saturated_fraction":
            return own.get("slope")
        if name == "dead_fraction" and site.kind != "activation":
            return None
        return own["forward"]


def _of(site: Site, turn: tuple[int, ...], finished: dict[Place, Any]) -> tuple[int, ...]:
    return turn if site.place in finished else ()


def _columns(meta: Meta, rows: list[Row]) -> dict[str, np.ndarray]:
    columns = {
        "kind": [s.kind for s, _ in rows],
        "label": [s.label for s, _ in rows],
        "parameter": [meta.parameter(s.leaf, t) for s, t in rows],
        "after": [meta.parameter(s.after, t) for s, t in rows],
        "scope": [s.scope for s, _ in rows],
        "file": [s.frame.file if s.frame else "" for s, _ in rows],
        "function": [s.frame.function if s.frame else "" for s, _ in rows],
        "source": [f"{s.frame.file}:{s.frame.line}" if s.frame else "" for s, _ in rows],
    }
    depth = [s.depth + sum(np.multiply(s.strides, t)) for s, t in rows]
    line = [s.frame.line if s.frame else 0 for s, _ in rows]
    sizes = np.array([s.layout.of(s.shape) for s, _ in rows], int).reshape(-1, 3)
    words = {name: np.array(values, dtype=np.str_) for name, values in columns.items()}
    counts = {"rows": sizes[:, 0] * sizes[:, 1], "units": sizes[:, 2]}
    return words | counts | {"depth": np.array(depth, int), "line": np.array(line, int)}


def _of_parameter(made: xr.Dataset, name: str) -> np.ndarray:
    value = dict(zip(made["weight"].values, made[name].values, strict=True))
    return np.array([value.get(p, np.nan) for p in made["parameter"].values])


def probe(
    fn: Callable[..., Any], params: Tree, data: Tree, options: Options
) -> tuple[Probe, Meta, Any]:
    """Trace `fn(params, data)` and find its sites.

    Returns:
        The probe, what is known of its traces, and the structure of the results.
    """
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(params, data)
    leaves = jax.tree.leaves(params)
    trails = [Trail(leaves=((k, ()),)) for k in range(len(leaves))]
    trails += [Trail(data=_is_data(x)) for x in jax.tree.leaves(data)]
    other, every = _one_more(fn, params, data), options.sites == "all"
    found, unopened = find(closed, trails, [np.size(x) for x in leaves], other=other, every=every)
    slices = [0] * len(leaves)
    for site in found:
        if site.leaf:
            slices[site.leaf[0]] = max(slices[site.leaf[0]], len(site.leaf[1]))
    paths, shapes_of = tuple(leaf_names(params)), tuple(np.shape(x) for x in leaves)
    meta = Meta(found, paths, shapes_of, tuple(slices), options.selection, unopened)
    meta = replace(meta, sites=_chosen(meta, options.only))
    tapped = {site.place: site for site in meta.sites}
    return Probe(closed, tapped, options.selection), meta, jax.tree.structure(shapes)


def _chosen(meta: Meta, only: str | None) -> tuple[Site, ...]:
    if only is None:
        return meta.sites
    rows = meta.rows()
    named = zip(rows, meta.names(rows), strict=True)
    kept = {site.place for (site, _), name in named if fnmatchcase(name, only)}
    if not kept:
        raise UnusableInput(f"only={only!r} matches no site; the first are {meta.names(rows)[:5]}")
    return tuple(site for site in meta.sites if site.place in kept)


def _is_data(x: Any) -> bool:
    """Whether an argument is of the batch: a random key is not."""
    dtype = getattr(x, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return False
    return not (dtype == jnp.uint32 and np.shape(x)[-1:] == (2,))


def _one_more(fn: Callable[..., Any], params: Tree, data: Tree) -> Any:
    """Trace the program for a batch of one more input; None if it takes no other batch."""
    leaves = [x for x in jax.tree.leaves(data) if _is_data(x) and np.ndim(x)]
    sizes = Counter(np.shape(x)[0] for x in leaves)
    if not sizes:
        return None
    size = sizes.most_common(1)[0][0]

    def grown(x: Any) -> Any:
        if _is_data(x) and np.ndim(x) and np.shape(x)[0] == size:
            return jax.ShapeDtypeStruct((size + 1, *np.shape(x)[1:]), x.dtype)
        return x

    try:
        return jax.make_jaxpr(fn)(params, jax.tree.map(grown, data))
    except Exception:  # whatever a model raises about a batch it was not made for
        return None


def weigh(meta: Meta, params: Tree, grads: Tree | None) -> dict[int, dict[str, Any]]:
    """Return the sums over every parameter and its gradient, layer by layer if stacked."""
    weights = jax.tree.leaves(params)
    own = [None] * len(weights) if grads is None else jax.tree.leaves(grads)
    return {
        k: {"weight": _sums(w, stacked), "gradient": None if g is None else _sums(g, stacked)}
        for k, (w, g, stacked) in enumerate(zip(weights, own, meta.slices, strict=True))
    }


@functools.partial(jax.jit, static_argnums=1)
def _sums(x: Array, stacked: int) -> dict[str, Array]:
    sums = functools.partial(reduce, sums=MOMENTS, layout=Layout(None, 0))
    for _ in range(stacked):
        sums = jax.vmap(sums)
    return sums(x)


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    measures: Sequence[str] | None = None,
    sites: Sites = "default",
    only: str | None = None,
) -> Callable[..., tuple[tuple[Any, Any], Trace]]:
    """Return a function like `jax.value_and_grad(fun)` that also returns a `Trace`.

    It may be jitted, and holds no callback. The value and the gradients are those of `fun`.

    Args:
        fun: a function to a scalar, or to a pair (scalar, anything) with `has_aux`.
        argnums: what to differentiate by: the parameters. The other arguments are the data.
        has_aux: whether `fun` returns a pair.
        measures: endings of the variables to record, such as `("mean", "q")`; all by default.
        sites: `"default"`, or `"all"` for every floating-point operation.
        only: a pattern for the names of sites, such as `"blocks.*"`.

    Returns:
        A function to `((value, grads), trace)`; `trace.record()` is the labelled record.

    Example:
        >>> loss = lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2)
        >>> (value, grads), trace = value_and_grad(loss)(jnp.eye(3), jnp.ones((2, 3)))
        >>> trace.record()["label"].values.tolist()
        ['matmul', 'tanh', 'integer_pow']
    """
    options = Options(None if measures is None else tuple(measures), sites, only)

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> tuple[tuple[Any, Any], Trace]:
        numbers = [k % len(args) for k in np.atleast_1d(argnums)]
        params = tuple(args[k] for k in numbers)
        rest = [None if k in numbers else arg for k, arg in enumerate(args)]
        data, fill = split((rest, kwargs), lambda x: isinstance(x, (jax.Array, np.ndarray)))

        def program(params: Any, data: Tree) -> Any:
            full, kwargs = fill(data)
            for k, arg in zip(numbers, params if several else (params,), strict=True):
                full[k] = arg
            return fun(*full, **kwargs)

        several = not isinstance(argnums, int)
        return _traced(program, params if several else params[0], data, has_aux, options)

    return run


def _traced(
    program: Callable[[Tree, Tree], Any], params: Tree, data: Tree, has_aux: bool, options: Options
) -> tuple[tuple[Any, Any], Trace]:
    tapped, meta, structure = probe(program, params, data, options)

    def scalar(params: Tree, slots: Any) -> Any:
        outs, seen = tapped([*jax.tree.leaves(params), *jax.tree.leaves(data)], slots)
        out = structure.unflatten(outs)
        value, aux = out if has_aux else (out, None)
        return value, (aux, seen)

    pulled = jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True)(params, tapped.slots())
    (value, (aux, seen)), (grads, gradients) = pulled
    trace = Trace(seen, gradients, weigh(meta, params, grads), meta)
    return ((value, aux) if has_aux else value, grads), trace
