"""What is swept, and how its statistics, and theory beside them, are put into the record."""

import collections
import functools
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from propagate.activations import Activation
from propagate.initializers import Initializer
from propagate.network import Network
from propagate.record import dataset
from propagate.record.measures import Selection
from propagate.record.scaled import decades
from propagate.run.feed import Feed
from propagate.run.pairings import Turn
from propagate.theory.criticality import critical_at_unit
from propagate.theory.predict import predict
from propagate.types import OWN, LossKind, Place, UnusableInput
from propagate.verdicts.growth import settles


@dataclass(frozen=True)
class Grid:
    """What is swept and what is measured."""

    net: Network
    inits: list[Initializer]
    activations: list[Activation]
    selection: Selection
    loss: LossKind
    beside: tuple[Activation, ...] = ()  # what else programs are compiled for

    @property
    def branches(self) -> list[Activation]:
        """What a program is compiled for, in an order that does not hang on which are swept."""
        return [*self.beside, *(phi for phi in self.activations if phi not in self.beside)]

    @property
    def coords(self) -> dict[str, list[str]]:
        """The labels of the pairings."""
        pairs = {"init": self.inits, "activation": self.activations}
        return {dim: [one.name for one in own] for dim, own in pairs.items()}

    @property
    def critical(self) -> dict[str, dict[str, Any]] | None:
        """What critical initialisers draw for each activation; None if the grid has none."""
        if not any(init.tuned for init in self.inits):
            return None
        points = {phi.name: critical_at_unit(phi) for phi in self.activations}
        wanted = ("sigma_w2", "sigma_b2", "kind", "reason")
        return {phi: {name: getattr(p, name) for name in wanted} for phi, p in points.items()}


def write(
    found: xr.Dataset,
    selection: Selection,
    turn: Turn,
    raw: Mapping[Place, Mapping[str, np.ndarray]],
) -> None:
    """Put the statistics of a turn's blocks, (slots, members, layers, C), into the record."""
    slot, member, config, init, phi, seed = np.array(list(_cells(turn))).T
    for place, measures in selection:
        for measure in measures:
            if measure.name not in raw.get(place, ()):
                continue  # a family may have no such place
            value, exponent = raw[place][measure.name], raw[place]["exponent"]
            exponent = exponent.reshape(*exponent.shape, *(1,) * (value.ndim - exponent.ndim))
            layers = np.moveaxis(decades(measure, value, exponent), 2, 0)  # layers first
            column = dataset.along_layers(place, layers)[:, slot, member, config]
            values = found.variables[measure.variable(place)].values
            values[init, phi, seed] = np.moveaxis(column, 0, 1)


def _cells(turn: Turn) -> Iterator[tuple[int, ...]]:
    """Yield slot, member and configuration of every pairing, and where it belongs in the grid."""
    for slot, jobs in enumerate(turn.slots):
        for member, (seed, pairings) in enumerate(jobs):
            for k, phi in enumerate(pairings.activations):
                for c, same in enumerate(pairings.inits):
                    for init in same:
                        yield slot, member, k * pairings.size + c, init, phi, seed


def unique(name: str, members: list) -> list:
    """Return the members, each with a name of its own: functions of one name are numbered."""
    seen: dict[str, int] = {}
    named = []
    for member in members:
        seen[member.name] = seen.get(member.name, 0) + 1
        if seen[member.name] > 1 and member.source == OWN:
            member = replace(member, name=f"{member.name}_{seen[member.name]}")
        named.append(member)
    twice = [n for n, k in collections.Counter(m.name for m in named).items() if k > 1]
    if twice:
        raise UnusableInput(
            f"{name} names must differ, got {', '.join(twice)} more than once. Some have several "
            "names, such as he_normal and kaiming_normal: pass each once"
        )
    return named


def listed(specs: Any) -> list:
    """Return a list of specifications, also of one alone: a name, a pair of numbers, a function."""
    if isinstance(specs, str) or callable(specs):
        return [specs]
    if isinstance(specs, tuple) and specs and all(isinstance(s, numbers.Real) for s in specs):
        return [specs]
    return list(specs or [])


def expect(found: xr.Dataset, grid: Grid, feed: Feed) -> xr.Dataset:
    """Return the record with what theory expects of pairings whose seeds do not settle a growth.

    Theory has a band for plain stacks on random inputs; backward for cotangents that are drawn.
    """
    if feed.data is not None or str(grid.net.family) != "mlp":
        return found
    cosine = feed.cosine if feed.kind == "pairs" else 0.0
    columns: dict[str, np.ndarray] = {}
    for direction in dataset.measured_directions(found):
        log_q = dataset.second_moment(found, direction).values
        for i, k in zip(*np.nonzero(~settles(log_q, direction)), strict=True):
            net = replace(grid.net, init=grid.inits[i], activation=grid.activations[k])
            theory = _predicted(net, feed.size, cosine)
            if theory is None:
                continue
            values = dataset.second_moment(theory, direction)
            sd = dataset.second_moment_sd(theory, direction)
            for name, one in zip(dataset.expected_names(direction), (values, sd), strict=True):
                columns.setdefault(name, np.full((*log_q.shape[:2], log_q.shape[-1]), np.nan))
                columns[name][i, k] = one
    about = {"long_name": "second moment, or its spread over draws, by theory", "units": "log10"}
    dims = ("init", "activation", "layer")
    rows = {name: (dims, values, about) for name, values in columns.items()}
    return found.assign(rows)


@functools.lru_cache(maxsize=256)
def _predicted(net: Network, batch: int, cosine: float) -> xr.Dataset | None:
    """Return what theory expects, or None if it does not cover the network."""
    try:
        return predict(net, batch=batch, correlation=cosine)
    except UnusableInput:
        return None
