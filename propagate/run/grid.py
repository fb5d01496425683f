"""What is swept, and how its statistics are put into the record."""

import collections
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
from propagate.run.pairings import Turn
from propagate.types import OWN, LossKind, Place, UnusableInput

DIMS = ("init", "activation")


@dataclass(frozen=True)
class Grid:
    """What is swept and what is measured."""

    net: Network
    inits: list[Initializer]
    activations: list[Activation]
    selection: Selection
    loss: LossKind

    @property
    def coords(self) -> dict[str, list[str]]:
        """The labels of the pairings."""
        return {name: [one.name for one in getattr(self, f"{name}s")] for name in DIMS}


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
            found[measure.variable(place)].values[init, phi, seed] = np.moveaxis(column, 0, 1)


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
