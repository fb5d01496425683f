"""What is read off a record before it is repaired: steps along the spine, loops, and growth."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import xarray as xr

from propagate.record.dataset import measured_directions
from propagate.types import DIRECTIONS, Direction
from propagate.verdicts import thresholds
from propagate.verdicts.along_spine import Way, loops, once, way
from propagate.verdicts.site_rules.grown import without_readout


class Step(NamedTuple):
    """What one step between two sites of the spine does.

    Attributes:
        start: number of the first site, in program order.
        end: of the last.
        decades: that it makes, in each direction.
        slack: decades of them that shapes may account for.
        layers: how many it counts for.
    """

    start: int
    end: int
    decades: dict[Direction, float]
    slack: float
    layers: int


@dataclass(frozen=True)
class Reading:
    """A record with what is read off it more than once.

    Attributes:
        record: of the model.
    """

    record: xr.Dataset

    @cached_property
    def ways(self) -> dict[Direction, Way]:
        """The way along the spine, in each direction that was measured."""
        return {d: way(self.record, d) for d in measured_directions(self.record)}

    @cached_property
    def steps(self) -> list[Step]:
        """The steps along the spine, without a readout that starts small, by design."""
        return _steps(self.record, self.ways)

    @cached_property
    def growth(self) -> dict[Direction, float]:
        """Decades per layer, in both directions."""
        return _growth(self)


def _steps(record: xr.Dataset, ways: Mapping[Direction, Way]) -> list[Step]:
    depth, found = record["depth"].values, {}
    for direction, whole in ways.items():
        part = without_readout(record, once(record, whole))
        ends = zip(part.sites[:-1].tolist(), part.sites[1:].tolist(), strict=True)
        for pair, made, slack in zip(ends, part.steps.tolist(), part.slack.tolist(), strict=True):
            a, b = sorted(pair)
            known = found.setdefault(
                (a, b), Step(a, b, {}, slack, max(int(depth[b] - depth[a]), 1))
            )
            known.decades[direction] = made
    return [found[pair] for pair in sorted(found)]


def growth(record: xr.Dataset) -> dict[Direction, float]:
    """Return decades per layer along the spine, and along the turns of loops if that is worse.

    What shapes may account for is left out; NaN where nothing is left to follow.
    """
    return Reading(record).growth


def _growth(reading: Reading) -> dict[Direction, float]:
    own, rates = reading.steps, {}
    for direction in DIRECTIONS:
        part = [s for s in own if direction in s.decades]
        layers = sum(s.layers for s in part)
        total = beyond_shapes(sum(s.decades[direction] for s in part), sum(s.slack for s in part))
        known = [total / layers] if layers else []
        loops_too = turning(reading) if known else turning(reading, None)
        known += [made[direction] for _, made, _ in loops_too if direction in made]
        rates[direction] = max(known, key=abs, default=math.nan)
    return rates


def worst(rates: dict[Direction, float]) -> float:
    """Return the fastest growth of both directions; inf where a direction was lost."""
    known = [abs(rate) for rate in rates.values()]
    return max(known) if all(map(math.isfinite, known)) else math.inf


def beyond_shapes(total: float, slack: float) -> float:
    """Return the decades that shapes do not account for."""
    return math.copysign(max(abs(total) - slack, 0.0), total)


def turning(
    reading: Reading, also: Collection[str] | None = ()
) -> Iterator[tuple[str, dict[Direction, float], tuple[int, int]]]:
    """Yield loops: the parameter, decades per turn, the first and the last site.

    Args:
        reading: of the model.
        also: whose loops to follow though they do not grow; None for all. That a gradient fades
            along the turns is no fault: loops learn to remember.
    """
    rates: dict[str, dict[Direction, float]] = {}
    ends: dict[str, tuple[int, int]] = {}
    chosen = set()
    for direction, whole in reading.ways.items():
        for name, turns in loops(reading.record, whole):
            ends[name] = int(min(turns.sites)), int(max(turns.sites))
            settled = int(thresholds.SETTLED_FROM * len(turns.steps))
            part = turns.of(slice(settled if direction == "forward" else 0, None))
            rates.setdefault(name, {})[direction] = part.total / len(part.steps)
            if part.total > thresholds.FINE_DECADES or also is None or name in also:
                chosen.add(name)
    yield from ((name, rates[name], ends[name]) for name in rates if name in chosen)
