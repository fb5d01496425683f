"""A finding on a custom model as a remedy sees it, and what changes are predicted to do.

A factor on a parameter shifts the level of signal and gradient behind it by 2 log10 of the factor,
so the totals of the record tell what becomes of both (exactly where activations are homogeneous).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from propagate.activations import ACTIVATIONS, Activation, activation
from propagate.record.dataset import measured_directions
from propagate.record.spine import LAYERS
from propagate.types import Direction
from propagate.verdicts import thresholds
from propagate.verdicts.along_spine import Way, once, way
from propagate.verdicts.findings import SUBJECTS, Finding, Verdict
from propagate.verdicts.pre_activation import Into, into
from propagate.verdicts.site_rules.beginning import of_inputs

NAMES = {"logistic": "sigmoid", "soft_sign": "softsign", "linear": "identity"}  # of JAX → of ours


class Proposal(NamedTuple):
    """What to do, what it is predicted to do, and factors on parameters."""

    what: str
    predicted: str
    factors: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Place:
    """A finding on a custom model.

    Attributes:
        record: that it was found in.
        finding: the finding.
        ways: along the spine of the record, in each direction that was measured.
    """

    record: xr.Dataset
    finding: Finding
    ways: Mapping[Direction, Way]

    def number(self, name: str) -> float:
        """Return a variable at the finding's site; NaN if it was not measured."""
        k = self.finding.layer
        return math.nan if k is None or name not in self.record else float(self.record[name][k])

    def text(self, name: str) -> str:
        """Return a label of the finding's site; "" if it has none."""
        k = self.finding.layer
        return (
            "" if k is None or name not in self.record.coords else str(self.record[name].values[k])
        )

    def of_weight(self, name: str, path: str) -> float:
        """Return a variable of a parameter; NaN if it was not measured."""
        if name not in self.record or path not in self.record["weight"].values:
            return math.nan
        return float(self.record[name].sel(weight=path))

    def into(self) -> Into | None:
        """Return what comes into the activation of the site, where that is known."""
        k = self.finding.layer
        return None if k is None or self.text("kind") != "activation" else into(self.record, k)

    @property
    def has_wild_inputs(self) -> bool:
        """Whether the site takes inputs of a scale or mean that no initialiser is made for."""
        k = self.finding.layer
        return k is not None and of_inputs(self.record, k) is not None

    @property
    def factor(self) -> float:
        """What undoes the decades that the finding is about."""
        return 10 ** (-self.finding.total / 2)

    @property
    def is_layer(self) -> bool:
        """Whether the finding is on what a parameter of its own makes."""
        own = self.text("parameter")
        return own != "" and own == self.finding.parameter and self.text("kind") in LAYERS


@dataclass(frozen=True)
class SiteRemedy:
    """A way to change a custom model.

    Attributes:
        name: what it changes.
        of: the verdicts that it may mend.
        propose: `Place -> proposals`; none where it does not apply, or is predicted not to help.
        reason: why it helps.
        source: where it was published, or what it follows from.
    """

    name: str
    of: tuple[Verdict, ...]
    propose: Callable[[Place], Iterator[Proposal]]
    reason: str
    source: str


def ways(record: xr.Dataset) -> dict[Direction, Way]:
    """Return the way along the spine in each direction that was measured."""
    return {d: once(record, way(record, d)) for d in measured_directions(record)}


def shifted(place: Place, decades: Mapping[Direction, float]) -> str:
    """Return what becomes of the totals that shifts are added to; "" if they halve none of them.

    Args:
        place: of the finding.
        decades: to add in each direction.
    """
    said, better = [], False
    for d, own in place.ways.items():
        shift = decades.get(d, 0.0)
        was, then = own.total, own.total + shift
        if not shift or not math.isfinite(then):
            continue
        better |= abs(then) <= abs(was) / 2
        worse = abs(then) > max(abs(was), thresholds.FINE_DECADES)
        said.append(f"the {SUBJECTS[d]} {was:+.2f} → {then:+.2f}{', which is worse' * worse}")
    return f"{'; '.join(said)} decades from end to end" if better else ""


def usual_activation(place: Place) -> Activation | None:
    """Return the activation that most sites have, if it is one of the table."""
    labels = place.record["label"].values[place.record["kind"].values == "activation"]
    if not len(labels):
        return activation("identity")
    usual = Counter(map(str, labels)).most_common(1)[0][0]
    name = NAMES.get(usual, usual)
    return activation(name) if name in ACTIVATIONS else None


def spine_weights(place: Place) -> list[str]:
    """Return the parameters along the spine, first to last."""
    sites = np.sort(place.ways["forward"].sites)
    names = [str(name) for name in place.record["parameter"].values[sites]]
    return [name for name in dict.fromkeys(names) if name]


def turns(place: Place) -> int:
    """Return how often the finding's parameter is used: in the turns of a loop more than once."""
    return int((place.record["parameter"].values == place.finding.parameter).sum())


def is_growth(place: Place) -> bool:
    """Whether a finding is about growth along several layers or turns."""
    return math.isfinite(place.finding.rate) and place.finding.total != 0


def in_stream(place: Place) -> bool:
    """Whether a finding is on an addition of a residual stream, and in no loop."""
    return place.text("kind") == "add" and turns(place) <= 1
