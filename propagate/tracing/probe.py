"""Trace a program and find its sites: `probe`, the way from a function to what `instrument` runs.

    function ──trace──▶ jaxpr ──find──▶ sites ──name──▶ Probe, SiteNames

What comes back is the program, to be called with slots for the gradients, and what its sites are
called:

    >>> import jax.numpy as jnp
    >>> loss = lambda params, x: jnp.sum(jnp.tanh(x @ params["w"]))
    >>> params, x = {"w": jnp.eye(3)}, jnp.ones((2, 3))
    >>> tapped, names = probe(loss, params, x, Options())
    >>> names.names(names.rows())
    ['w', 'w/tanh']
    >>> value, seen = tapped(params, x, tapped.slots())
    >>> float(value) == float(loss(params, x)), list(seen)
    (True, [(0,), (1,)])
"""

import contextlib
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import jax
import numpy as np

from propagate.record import kept_values, measures
from propagate.record.measures import Selection
from propagate.tracing.dataflow import Facts
from propagate.tracing.find_sites import find
from propagate.tracing.gating.gates import with_gates
from propagate.tracing.instrument import Probe
from propagate.tracing.sites import EqnPath, ParameterSlice, RawInput, Site, Unopened
from propagate.tracing.trace import SiteNames
from propagate.tracing.trees import ParameterTable, batch_size, is_data, is_key
from propagate.types import PropagateError, Tree, UnusableInput

Sites = Literal["default", "all"]


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


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Hold the garbage collector back: tracing makes a million objects, none of them garbage."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@uncollected()
def probe(
    fn: Callable[..., Any], params: Tree, data: Tree, options: Options
) -> tuple[Probe, SiteNames]:
    """Trace `fn(params, data)` and find its sites.

    Returns:
        The program with the sites to tap, and the names of these.

    Raises:
        PropagateError: no site depends on the data.
        UnusableInput: an empty batch, or a pattern that matches no site.
    """
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(params, data)
    sizes = [np.size(x) for x in jax.tree.leaves(params)]
    facts = [Facts(parameters=(ParameterSlice(k, (), n),)) for k, n in enumerate(sizes)]
    for k, x in enumerate(jax.tree.leaves(data), len(sizes)):
        own = {"inputs": frozenset([k]), "raw": (RawInput(k),)} if is_data(x) else {}
        facts.append(Facts(data=is_data(x), **own))
    other, every = _one_more(fn, params, data), options.sites == "all"
    found, unopened = find(closed, facts, other=other, every=every)
    _check_found(found, unopened, data)
    found = with_gates(closed, len(sizes), found)
    stacked = [0] * len(sizes)
    for used in (site.parameter for site in found if site.parameter):
        stacked[used.number] = max(stacked[used.number], len(used.index))
    table = ParameterTable.of(params, stacked)
    names = SiteNames(found, table, options.selection, unopened)
    names = replace(names, sites=_chosen(names, options.only))
    tapped = {site.path: site for site in names.sites}
    return Probe(closed, jax.tree.structure(shapes), tapped, options.selection), names


def keeping_values(tapped: Probe, sample: int | None, kept_bytes: int | None) -> Probe:
    """Return the probe of which sites hand out their values, or samples of them.

    Args:
        tapped: of `probe`.
        sample: how many numbers of each site; None for all.
        kept_bytes: that may be held at once; a share of the memory by default. The values of other
            sites are summed within the program.

    Raises:
        UnusableInput: a negative number of bytes, or a sample of none.
    """
    if sample is not None and sample < 1:
        raise UnusableInput(f"sample must be 1 number of a site or more, or None, got {sample}")
    sampled = replace(tapped, sample=sample)
    return replace(sampled, kept=fitting(sampled, kept_values.room(kept_bytes)))


def fitting(tapped: Probe, limit: int) -> frozenset[EqnPath]:
    """Return the sites whose values fit into a number of bytes, the smallest first."""
    sizes = sorted((_bytes(tapped, site), path) for path, site in tapped.sites.items())
    ends = np.cumsum([size for size, _ in sizes])
    return frozenset(path for end, (_, path) in zip(ends, sizes, strict=True) if end <= limit)


def _bytes(tapped: Probe, site: Site) -> int:
    """Return the bytes of all that is kept at a site: its signals and its gradient."""
    arrays, taken = len(tapped.parts(site)) + 1, tapped.taken(site)
    shape = site.shape if taken is None else taken.taken
    return arrays * math.prod((*site.loops, *shape)) * np.dtype(site.dtype).itemsize


def _chosen(names: SiteNames, only: str | None) -> tuple[Site, ...]:
    if only is None:
        return names.sites
    rows = names.rows()
    named = zip(rows, names.names(rows), strict=True)
    kept = {site.path for (site, _), name in named if fnmatchcase(name, only)}
    if not kept:
        raise UnusableInput(f"only={only!r} matches no site; the first are {names.names(rows)[:5]}")
    return tuple(site for site in names.sites if site.path in kept)


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
