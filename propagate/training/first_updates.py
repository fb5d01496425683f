r"""A model at one width: its sites, and a few updates with how far each signal moves.

The change of a signal is $x(\theta_t) - x(\theta_0)$ on the same batch: the program runs with both
parameters, with a probe that takes values, and sums are kept of their differences.

    step t:  (value, gradients) ─▶ Trace          of the program at theta_t
             updates            ─▶ Change         x(theta_t) - x(theta_0), theta_t+1 - theta_t
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate.record.measures import Q
from propagate.record.sums import reduce
from propagate.tracing.instrument import Probe, Seen, Stats
from propagate.tracing.probe import Options, probe
from propagate.tracing.sites import Site
from propagate.tracing.trace import SiteNames, column
from propagate.tracing.trees import is_trainable
from propagate.tracing.value_and_grad import value_and_grad
from propagate.training.optimizers import Optimizer
from propagate.types import Array, Tree, UnusableInput, at_least_float32

Loss = Callable[[Tree, Tree], Array]
MEASURES = (Q.name,)
KEPT = (
    *(f"log10_{name}_q" for name in ("forward", "backward", "change")),
    *(f"log10_{name}_q" for name in ("weight", "gradient", "update")),
    *("site", "weight", "name", "kind", "label", "parameter", "source"),
)


class Change(NamedTuple):
    r"""Sums over what an update changes; a pytree.

    Attributes:
        signals: of $x(\theta_t) - x(\theta_0)$ at each site.
        updates: of $\theta_{t+1} - \theta_t$, of the parameters of each bundle.
    """

    signals: Seen
    updates: tuple[Stats, ...]

    def columns(self, names: SiteNames) -> dict[str, tuple[str, np.ndarray]]:
        """Return log10 of second moments, each with its dim in a record."""
        signals = {path: seen["change"] for path, seen in self.signals.items()}
        change = column(Q, names.rows(), signals, self.signals)
        update = names.parameters.column(Q, self.updates)
        return {"log10_change_q": ("site", change), "log10_update_q": ("weight", update)}


def _value(site: Site, eqn: Any, ins: list[Any], x: Array) -> dict[str, Stats]:
    """Take the value itself at a site."""
    return {"value": {"x": x.astype(at_least_float32(x.dtype))}}


def _difference(site: Site, seen: dict[str, Stats]) -> dict[str, Stats]:
    """Return the sums of a site's change, given its values at both parameters along axis 0."""
    sums = lambda x: reduce(x, ("squares",), site.layout)  # noqa: E731
    for _ in site.loops:
        sums = jax.vmap(sums)
    start, end = seen["value"]["x"]
    counts = {name: stats for name, stats in seen.items() if name != "value"}
    return jax.tree.map(lambda pair: pair[1], counts) | {"change": sums(end - start)}


@dataclass(frozen=True)
class Model:
    """A model of one width, traced.

    Attributes:
        width: its width.
        loss: `loss(params, batch)`, a scalar.
        probe: of the loss, for the values of its sites.
        names: of its sites and parameters.
        only: a pattern for the names of sites.
    """

    width: int
    loss: Loss
    probe: Probe
    names: SiteNames
    only: str | None

    def sizes(self) -> np.ndarray:
        """Return how many coordinates the value at each row has."""
        return np.array([int(np.prod(site.shape)) for site, _ in self.names.rows()])

    def step(self, pair: Optimizer, rates: list[float]) -> Callable[..., tuple[Any, ...]]:
        """Return the jitted step `(start, params, state, batch) -> (trace, change, params, state)`.

        The trace is of the program at `params`, the change that of its signals since `start` and
        of its parameters by this update.
        """
        measured = value_and_grad(self.loss, measures=MEASURES, only=self.only, sample=None)

        @jax.jit
        def step(start: Tree, params: Tree, state: Any, batch: Tree) -> tuple[Any, ...]:
            (_, grads), trace = measured(params, batch)
            updates, state = pair.update(grads, state, params)
            updates = _scaled(updates, rates)
            moved = self._moved(start, params, batch)
            change = Change(moved, self.names.parameters.sums(updates, (Q,)))
            return trace, change, jax.tree.map(jnp.add, params, updates), state

        return step

    def _moved(self, start: Tree, params: Tree, batch: Tree) -> Seen:
        def values(params: Tree) -> Seen:
            return self.probe(params, batch, self.probe.slots())[1]

        # one compiled body for both, so that what does not move differs by exactly zero
        both = jax.tree.map(lambda *pair: jnp.stack(pair), start, params)
        seen = jax.lax.map(values, both)
        return {site.path: _difference(site, seen[site.path]) for site in self.names.sites}


def _scaled(updates: Tree, rates: list[float]) -> Tree:
    """Return the updates times the learning rate of each parameter."""
    arrays, structure = jax.tree.flatten(updates)
    return structure.unflatten(
        [(rate * x).astype(x.dtype) for rate, x in zip(rates, arrays, strict=True)]
    )


def traced(loss: Loss, params: Tree, batch: Tree, width: int, only: str | None) -> Model:
    """Return the model with its sites.

    Raises:
        UnusableInput: parameters that are not floating-point arrays, a loss that is not a scalar,
            a pattern that matches no site.
    """
    arrays = jax.tree.leaves(params)
    if not arrays or not all(map(is_trainable, arrays)):
        kinds = sorted({type(x).__name__ for x in arrays if not is_trainable(x)})
        raise UnusableInput(
            "params must be a tree of floating-point arrays, and of nothing else, got "
            f"{', '.join(kinds) or 'none'}"
        )
    if getattr(jax.eval_shape(loss, params, batch), "shape", None) != ():
        raise UnusableInput("loss(params, batch) must return one number")
    tapped, names = probe(loss, params, batch, Options(MEASURES, only=only))
    return Model(width, loss, replace(tapped, take=_value), names, only)


def follow(
    step: Callable[..., tuple[Any, ...]],
    pair: Optimizer,
    steps: int,
    start: Tree,
    batch: Tree,
) -> xr.Dataset:
    """Return log10 of second moments after 0 … `steps` updates, of each site and parameter.

    Returns:
        A record with dims (step, site) and (step, weight).
    """
    params, state, found = start, pair.init(start), []
    for _ in range(steps + 1):
        trace, change, params, state = step(start, params, state, batch)
        own = trace.record().assign(change.columns(trace.names))
        found.append(own.drop_vars([str(v) for v in own.variables if v not in KEPT]))
    return stacked(found, "step")


def stacked(records: list[xr.Dataset], dim: str) -> xr.Dataset:
    """Return records of one model as one, with a new dim in front."""
    alike: Any = {"coords": "minimal", "compat": "override", "join": "override"}
    made = xr.concat(records, dim, data_vars="all", combine_attrs="override", **alike)
    return made.assign_coords({dim: np.arange(len(records))})
