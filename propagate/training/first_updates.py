r"""A model at one width: its sites, and a few updates with how far each signal moves.

The change of a signal is $x(\theta_t) - x(\theta_0)$ on the same batch: the program runs with both
parameters, and a probe that returns values gives the differences, of which sums are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate.record.sums import reduce
from propagate.tracing.instrument import Probe, Seen, Stats
from propagate.tracing.probe import Options, probe, weigh
from propagate.tracing.sites import Site
from propagate.tracing.trace import Meta, Trace
from propagate.tracing.value_and_grad import value_and_grad
from propagate.training.optimizers import Optimizer
from propagate.types import Array, Tree, UnusableInput, at_least_float32

Loss = Callable[[Tree, Tree], Array]
Q = ("q",)
KEPT = (
    *(f"log10_{name}_q" for name in ("forward", "backward", "change")),
    *(f"log10_{name}_q" for name in ("weight", "gradient", "update")),
    *("site", "weight", "name", "kind", "label", "parameter", "source"),
)


class _Values(Probe):
    """A probe that returns the signals themselves."""

    def forward(self, site: Site, eqn: Any, ins: list[Any], x: Array) -> dict[str, Stats]:
        """Return the site's value."""
        return {"forward": {"value": x.astype(at_least_float32(x.dtype))}}


@dataclass(frozen=True)
class Model:
    """A model of one width, traced.

    Attributes:
        width: its width.
        loss: `loss(params, batch)`, a scalar.
        probe: of the loss, for the values of its sites.
        meta: what is known of its sites.
        only: a pattern for their names.
    """

    width: int
    loss: Loss
    probe: Probe
    meta: Meta
    only: str | None

    def sizes(self) -> np.ndarray:
        """Return how many coordinates the value at each row has."""
        return np.array([int(np.prod(site.shape)) for site, _ in self.meta.rows()])

    def step(self, pair: Optimizer, rates: list[float]) -> Callable[..., tuple[Any, ...]]:
        """Return the jitted step `(start, params, state, batch) -> (trace, change, params, state)`.

        The two traces are of the program at `params`, and of differences: in the second a site's
        signal is how far it is from that at `start`, a parameter's gradient its update.
        """
        measured = value_and_grad(self.loss, measures=Q, only=self.only)

        @jax.jit
        def step(start: Tree, params: Tree, state: Any, batch: Tree) -> tuple[Any, ...]:
            (_, grads), trace = measured(params, batch)
            updates, state = pair.update(grads, state, params)
            leaves, structure = jax.tree.flatten(updates)
            scaled = [(r * u).astype(u.dtype) for r, u in zip(rates, leaves, strict=True)]
            updates = structure.unflatten(scaled)
            moved, weights = self._moved(start, params, batch), weigh(self.meta, params, updates)
            after = jax.tree.map(jnp.add, params, updates)
            return trace, Trace(moved, {}, weights, self.meta), after, state

        return step

    def _moved(self, start: Tree, params: Tree, batch: Tree) -> Seen:
        def values(params: Tree) -> Seen:
            args = [*jax.tree.leaves(params), *jax.tree.leaves(batch)]
            return self.probe(args, self.probe.slots())[1]

        # one compiled body for both, so that what does not move differs by exactly zero
        both = jax.tree.map(lambda *pair: jnp.stack(pair), start, params)
        seen = jax.lax.map(values, both)
        for site in self.meta.sites:
            sums = lambda x, site=site: reduce(x, ("squares",), site.layout)  # noqa: E731
            for _ in site.loops:
                sums = jax.vmap(sums)
            value = seen[site.place]["forward"]["value"]
            own = {k: v for k, v in seen[site.place].items() if k != "forward"}
            taken = jax.tree.map(lambda pair: pair[1], own)
            seen[site.place] = taken | {"forward": sums(value[1] - value[0])}
        return seen


def traced(loss: Loss, params: Tree, batch: Tree, width: int, only: str | None) -> Model:
    """Return the model with its sites.

    Raises:
        UnusableInput: parameters that are not floating-point arrays, a loss that is not a scalar,
            a pattern that matches no site.
    """
    leaves = jax.tree.leaves(params)
    if not leaves or not all(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves):
        raise UnusableInput("params must be a tree of floating-point arrays, and of nothing else")
    if getattr(jax.eval_shape(loss, params, batch), "shape", None) != ():
        raise UnusableInput("loss(params, batch) must return one number")
    own, meta, _ = probe(loss, params, batch, Options(Q, only=only))
    # the terms of an addition are sites of their own: their differences are not taken twice
    sites = tuple(replace(site, skip=None, terms=()) for site in meta.sites)
    values = _Values(own.jaxpr, {site.place: site for site in sites}, own.selection)
    return Model(width, loss, values, replace(meta, sites=sites), only)


def follow(
    step: Callable[..., tuple[Any, ...]], pair: Optimizer, steps: int, start: Tree, batch: Tree
) -> xr.Dataset:
    """Return log10 of second moments after 0 … `steps` updates, of each site and parameter.

    Returns:
        A record with dims (step, site) and (step, weight).
    """
    params, state, found = start, pair.init(start), []
    for _ in range(steps + 1):
        trace, moved, params, state = step(start, params, state, batch)
        own, change = trace.record(), moved.record()
        own["log10_change_q"] = change["log10_forward_q"]
        own["log10_update_q"] = change["log10_gradient_q"]
        found.append(own.drop_vars([str(v) for v in own.variables if v not in KEPT]))
    return stacked(found, "step")


def stacked(records: list[xr.Dataset], dim: str) -> xr.Dataset:
    """Return records of one model as one, with a new dim in front."""
    alike: Any = {"coords": "minimal", "compat": "override", "join": "override"}
    made = xr.concat(records, dim, data_vars="all", combine_attrs="override", **alike)
    return made.assign_coords({dim: np.arange(len(records))})
