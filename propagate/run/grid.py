"""What is swept, and how its statistics are put into the record."""

import collections
import numbers
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from propagate.activations import Activation
from propagate.initializers import Initializer
from propagate.network import Network
from propagate.record import dataset
from propagate.record.measures import Selection
from propagate.record.scaled import decades
from propagate.run import plan
from propagate.run.pairings import Pairings
from propagate.run.program import StackProgram
from propagate.types import OWN, LossKind, UnusableInput


@dataclass(frozen=True)
class Grid:
    """What is swept and what is measured."""

    net: Network
    laws: list[Initializer]
    phis: list[Activation]
    selection: Selection
    loss: LossKind

    @property
    def coords(self) -> dict[str, list[str]]:
        """The labels of the pairings."""
        return {"init": [i.name for i in self.laws], "activation": [a.name for a in self.phis]}

    def program(self, pairings: Pairings, batch: int) -> StackProgram:
        """Return what is compiled for a block."""
        return plan.program(self.net, self.phis, pairings, self.selection, self.loss, batch)

    def write(self, found: xr.Dataset, turn: Any, raw: dict) -> None:
        """Put the statistics of a step's blocks into the record."""
        for place, measures in self.selection:
            for measure in measures:
                if measure.name not in raw.get(place, ()):
                    continue  # a family may have no such place
                value, exponent = raw[place][measure.name], raw[place]["exponent"]
                layers = decades(measure, value, exponent)  # (slot, layers, C)
                into = found[measure.variable(place)].values
                for slot, (seed, pairings) in enumerate(turn.slots):
                    for config, same in enumerate(pairings.inits):
                        column = dataset.along_layers(place, layers[slot, :, config])
                        into[list(same), pairings.phi, seed] = column


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
        raise UnusableInput(f"{name} names must differ, got {', '.join(twice)} more than once")
    return named


def listed(specs: Any) -> list:
    """Return a list of specifications, also of one alone: a name, a pair of numbers, a function."""
    if isinstance(specs, str) or callable(specs):
        return [specs]
    if isinstance(specs, tuple) and specs and all(isinstance(s, numbers.Real) for s in specs):
        return [specs]
    return list(specs or [])
