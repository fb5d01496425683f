"""Trace a program, find its sites, run it with them tapped: `value_and_grad`, `traced`."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from propagate.record import measures
from propagate.record.measures import Selection
from propagate.record.sums import Layout, needed, reduce
from propagate.tracing.dataflow import Facts
from propagate.tracing.find_sites import find
from propagate.tracing.instrument import Probe
from propagate.tracing.sites import Site, Unopened
from propagate.tracing.trace import Meta
from propagate.tracing.trees import batch_size, is_data, is_key, leaf_names
from propagate.types import Array, PropagateError, Tree, UnusableInput

Sites = Literal["default", "all"]
SMALL = 2**16  # elements: below it, a copy costs less than code of its own


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


def probe(
    fn: Callable[..., Any], params: Tree, data: Tree, options: Options
) -> tuple[Probe, Meta, Any]:
    """Trace `fn(params, data)` and find its sites.

    Returns:
        The probe, what is known of its traces, and the structure of the results.

    Raises:
        PropagateError: no site depends on the data.
        UnusableInput: an empty batch, or a pattern that matches no site.
    """
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(params, data)
    leaves = jax.tree.leaves(params)
    trails = [Facts(leaves=((k, ()),)) for k in range(len(leaves))]
    trails += [Facts(data=is_data(x)) for x in jax.tree.leaves(data)]
    other, every = _one_more(fn, params, data), options.sites == "all"
    found, unopened = find(closed, trails, [np.size(x) for x in leaves], other=other, every=every)
    _check_found(found, unopened, data)
    slices = [0] * len(leaves)
    for site in found:
        if site.leaf:
            slices[site.leaf[0]] = max(slices[site.leaf[0]], len(site.leaf[1]))
    paths, shapes_of = tuple(leaf_names(params)), tuple(np.shape(x) for x in leaves)
    bundles = _bundles(leaves, slices)
    meta = Meta(found, paths, shapes_of, tuple(slices), bundles, options.selection, unopened)
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


def _one_more(fn: Callable[..., Any], params: Tree, data: Tree) -> Any:
    """Trace the program for a batch of one more input; None if it takes no other batch."""
    size = batch_size(data)
    if size is None:
        return None

    def grown(x: Any) -> Any:
        if is_data(x) and np.ndim(x) and x.shape[0] == size:
            return jax.ShapeDtypeStruct((size + 1, *x.shape[1:]), x.dtype)
        return x

    try:
        return jax.make_jaxpr(fn)(params, jax.tree.map(grown, data))
    except Exception:  # whatever a model raises about a batch it was not made for
        return None


def _check_found(found: tuple[Site, ...], unopened: tuple[Unopened, ...], data: Tree) -> None:
    """Raise unless there is a site: nothing can be said about a program that has none."""
    if found:
        return
    arguments = jax.tree.leaves(data)
    keys = [x for x in arguments if is_key(x)]
    arrays = ", ".join(f"{x.dtype}{list(x.shape)}" for x in arguments if is_data(x))
    also = f", and {len(keys)} random keys, which are no inputs" if keys else ""
    closed = "".join(f" {one}." for one in unopened)
    raise PropagateError(
        "there must be a matrix product, convolution, embedding, activation, norm or addition of "
        f"branches that depends on the inputs, got none. The inputs are {arrays or 'none'}{also}."
        f"{closed} Pass the batch as an input and the weights as parameters, and name a value of "
        "your own with propagate.tag(x, name) to have it recorded"
    )


def _bundles(leaves: list[Any], slices: list[int]) -> tuple[tuple[int, ...], ...]:
    """Return which parameters are summed together: small ones of a shape, any other alone."""
    alike: dict[Any, list[int]] = {}
    for k, (x, stacked) in enumerate(zip(leaves, slices, strict=True)):
        shape, small = np.shape(x), np.size(x) <= SMALL
        alike.setdefault((shape, jnp.result_type(x), stacked) if small else k, []).append(k)
    return tuple(map(tuple, alike.values()))


def weigh(meta: Meta, params: Tree, grads: Tree | None) -> tuple[dict[str, Any], ...]:
    """Return the sums over the parameters and gradients of each bundle, layer by layer."""
    moments = needed((measures.Q, measures.MEAN, measures.LARGEST))
    wanted = {"weight": (jax.tree.leaves(params), moments)}
    if grads is not None:
        wanted["gradient"] = jax.tree.leaves(grads), needed((measures.Q,))
    return tuple(
        {
            name: _sums([leaves[k] for k in bundle], meta.slices[bundle[0]], sums)
            for name, (leaves, sums) in wanted.items()
        }
        for bundle in meta.bundles
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _sums(alike: list[Array], stacked: int, sums: tuple[str, ...]) -> dict[str, Array]:
    taken = functools.partial(reduce, sums=sums, layout=Layout(None, 0))
    for _ in range(stacked + 1):
        taken = jax.vmap(taken)
    return taken(jnp.stack(alike))
