"""The search for the fewest multipliers that balance a model: measure, change what is worst, again.

    parameters ──compiled program──▶ record ──aims──▶ what is off ──leading──▶ multipliers ──┐
         ▲───────────────────────────────────────────────────────────────────────────────────┘

The program is compiled once. Like LSUV (Mishkin & Matas 2016, arXiv:1511.06422) the search goes by
what the data does, and unlike it by both directions. A place is left alone as long as all that are
left alone make no growth beyond chance, so that one layer at fault gets one multiplier, which also
takes up what chance made of the others. Places that are changed are changed together, by Broyden's
method: from the theory of a layer alone to what is measured of all of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import xarray as xr

from propagate.cure.factors.aims import Aim, aims, saturations, shares, start
from propagate.cure.factors.reading import Reading, worst
from propagate.cure.factors.scaling import scaled
from propagate.models.diagnose import Prepared
from propagate.record.measures import OF_SOFTMAX
from propagate.tracing.probe import Options
from propagate.types import Tree
from propagate.verdicts import thresholds

MEASURES = ("saturated_fraction", *OF_SOFTMAX)  # beside q
ROUNDS = 40  # measurements of a search, at most
CHANCE = 3.0  # standard deviations within which what is left alone may be off together
CLOSE = 0.004  # decades within which a value has reached its target
SETTLED = 0.05  # decades within which places must be before the start is turned
NEAR = 0.1  # decades within which one may stay if growth as a whole is as it should be
UNMOVED = 0.1  # share of the expected change below which a weight is said to have no effect
LEADING = 0.5  # share of the largest excess from which another place is changed with it
ENOUGH = 0.3  # decades of a turn that must have an effect
PATIENCE = 12  # measurements without a gain after which the search ends
SMALL = (0.3, 0.2, 0.1)  # decades of multipliers that are tried without
WORTH = 0.5  # share of the growth without it that must be left for the start to be changed
PROBE = 0.5  # decades by which the start is turned to see what it does
REACH = 1.0  # decades that a turn may be, once weights were seen not to act alone

Place = tuple[str, int, int]
START: Place = ("start", -1, -1)


class Turn(NamedTuple):
    """What was done at a place: by how much it was off, and the decades that it was turned by."""

    off: float
    by: float


@dataclass
class Knob:
    """What is turned at one place.

    Attributes:
        weights: that are left to try, the nearest first.
        turned: decades of each weight so far.
        moves: whether they were seen to have an effect.
    """

    weights: tuple[str, ...]
    turned: dict[str, float] = field(default_factory=dict)
    moves: bool = False


@dataclass
class Found:
    """What a search has found so far.

    Attributes:
        decades: by which each parameter's second moment is multiplied.
        reading: with these.
        measured: how many measurements it took.
        unmoved: places that no weight changes.
    """

    decades: dict[str, float]
    reading: Reading
    measured: int = 0
    unmoved: tuple[str, ...] = ()

    @property
    def worst(self) -> float:
        """The fastest growth of both directions, in decades per layer."""
        return worst(self.reading.growth)

    @cached_property
    def sharp(self) -> list[Aim]:
        """What is next to one-hot, or saturated."""
        return saturations(self.reading.record)

    def better(self, other: "Found") -> bool:
        """Whether it is better than another."""
        return (len(self.sharp), self.worst) < (len(other.sharp), other.worst - 1e-4)


class Search:
    """A search: the state that goes from one measurement to the next."""

    def __init__(
        self,
        ready: Prepared,
        params: Tree,
        goal: float,
        tied: Mapping[str, str],
        free: frozenset[str] = frozenset(),
    ) -> None:
        """Take a model, compiled, with the parameters to start from.

        Args:
            ready: the model.
            params: to start from.
            goal: decades per layer that are allowed.
            tied: of each parameter, the one that it is the same array as.
            free: parameters that are changed anyway.
        """
        self.ready, self.params, self.goal = ready, params, goal
        self.tied, self.free = tied, free
        self.names = replace(ready.names, selection=Options(MEASURES).selection)
        self.knobs: dict[Place, Knob] = {}
        self.last: dict[Place, Turn] = {}
        self.slopes = np.eye(0)  # of what is off by what is turned, at the places of `last`
        self.rounds = 0

    def run(self) -> Found:
        """Return the best that was found."""
        found = best = self.measure()
        plain, since = None, 0
        while self.rounds < ROUNDS and since < PATIENCE:
            turns = self.turns(found)
            while self._learn(turns):
                turns = self.turns(found)
            if not turns:
                break
            begun = START in turns and START not in self.knobs
            plain = best if begun else plain
            self.turn(found.reading.record, turns)
            found = self.measure()
            since = 0 if begun or found.better(best) else since + 1
            best = found if found.better(best) else best
        if plain and best.worst > max(self.goal, WORTH * plain.worst):
            best = plain  # the start is not changed for a little
        best = self._fewer(best)
        names, idle = best.reading.record["name"].values, dict(self.knobs)
        idle.pop(START, None)
        best.unmoved = tuple(str(names[p[2]]) for p, knob in idle.items() if not knob.weights)
        best.measured = self.rounds
        return best

    def _fewer(self, best: Found) -> Found:
        """Leave out multipliers next to 1 if growth stays as small as it should be."""
        for least in SMALL:
            kept = {name: d for name, d in best.decades.items() if abs(d) > least}
            if best.worst <= self.goal and len(kept) < len(best.decades):
                fewer = self.measure(kept)
                if fewer.worst <= self.goal and len(fewer.sharp) <= len(best.sharp):
                    return fewer
        return best

    def measure(self, decades: dict[str, float] | None = None) -> Found:
        """Measure the model as it is turned, or with these multipliers."""
        decades = self.decades() if decades is None else decades
        params = scaled(self.params, self.ready.names.parameters, decades)
        trace = self.ready.observe(params).trace
        self.rounds += 1
        return Found(decades, Reading(replace(trace, names=self.names).record()))

    def decades(self) -> dict[str, float]:
        """Return what each parameter is turned by, all places together."""
        total: dict[str, float] = {}
        for knob in self.knobs.values():
            for name, turned in knob.turned.items():
                first = self.tied.get(name, name)
                total[first] = total.get(first, 0.0) + turned
        return {name: d for name, d in total.items() if d}

    def turns(self, found: Found) -> dict[Place, Aim]:
        """Return the places to change next, each with its target; none where all is done."""
        sharp = [a for a in found.sharp if self._movable(a)]
        if sharp:
            return {a.place: a for a in sharp}
        turning = {n for p, k in self.knobs.items() if p[0] == "turns" for n in k.turned}
        every = [a for a in aims(found.reading, self.goal, turning) if math.isfinite(a.value)]
        changed = [a for a in every if self._is_changed(a) and self._movable(a)]
        alone = [a for a in every if a not in changed]
        more = self._leading([a for a in alone if self._movable(a)], alone)
        if more:
            return {a.place: a for a in (*changed, *more) if a.excess}
        chains = [a for a in changed if not a.adds]
        left = sum(a.value for a in alone if not a.adds) / max(len(chains), 1)
        turns = {a.place: a if a.adds else a._replace(target=-left) for a in changed}
        turns = {place: a for place, a in turns.items() if a.excess or not a.adds}
        most = max((abs(a.excess) for a in turns.values()), default=0.0)
        if found.worst <= self.goal and most < NEAR:
            return {}
        if chains and (START in self.knobs or most < SETTLED):
            turns |= self._balance(found)
        return turns if most >= CLOSE or START in turns else {}

    def _balance(self, found: Found) -> dict[Place, Aim]:
        """Return the start of a chain as an aim: what the directions differ by is to be nothing.

        Where layers are not homogeneous, the difference depends on how large the signal is.
        """
        rates = found.reading.growth
        layers = sum(step.layers for step in found.reading.steps)
        apart = layers * (rates["forward"] - rates["backward"]) / 2
        aim = Aim(START, apart, 0.0, False, start(found.reading)[:1], 1)
        return {START: aim} if math.isfinite(aim.value) and self._movable(aim) else {}

    def _movable(self, aim: Aim) -> bool:
        return bool(self.knobs[aim.place].weights if aim.place in self.knobs else aim.weights)

    def _is_changed(self, aim: Aim) -> bool:
        return aim.place in self.knobs or not self.free.isdisjoint(aim.weights)

    def _leading(self, movable: list[Aim], alone: list[Aim]) -> list[Aim]:
        """Return the places that make most of what is beyond chance, none where nothing is."""
        if not movable:
            return []
        excess, adds = np.array([a.excess for a in alone]), movable[0].adds
        spread = thresholds.SD_PER_MAD * np.median(np.abs(excess - np.median(excess)))
        by_units = thresholds.unit_error(np.array([a.units for a in alone]))
        noise = max(float(spread), float(np.median(by_units)))
        total = sum(a.value - a.target for a in alone)
        limit = 0.0 if adds else CHANCE * noise * math.sqrt(len(alone))
        own = np.array([a.excess for a in movable])
        out = np.abs(own) > max(thresholds.STEP, thresholds.STEP_SPREADS * noise)
        out |= np.array([a.place[0] == "turns" for a in movable])
        if not out.any() and (total if adds else abs(total)) <= limit:
            return []
        share = own * np.sign(own[np.abs(own).argmax()] if out.any() else total)
        near = np.maximum(LEADING * share.max(), 1e-9)
        return [a for a, s in zip(movable, share, strict=True) if s >= near]

    def turn(self, record: xr.Dataset, turns: Mapping[Place, Aim]) -> None:
        """Turn the weights of places towards their targets, all together."""
        off = {place: -aim.change(aim.target) for place, aim in turns.items()}
        if START in turns and START not in self.knobs:
            change = np.array([PROBE * (place == START) for place in turns])
        else:
            change = -np.linalg.lstsq(self.slopes, np.array([*off.values()]), rcond=1e-3)[0]
        if not np.array_equal(self.slopes, np.eye(len(turns))):
            change *= min(1.0, REACH / max(np.abs(change).max(), 1e-9))
        self.last = {}
        for (place, aim), own in zip(turns.items(), change.tolist(), strict=True):
            knob = self.knobs.setdefault(place, Knob(aim.weights))
            already = [name for name in knob.weights if name in knob.turned]
            even = dict.fromkeys(already, 1 / max(len(already), 1))
            for name, share in (even or shares(record, knob.weights, own)).items():
                knob.turned[name] = knob.turned.get(name, 0.0) + share * own
            self.last[place] = Turn(off[place], own)

    def _learn(self, turns: Mapping[Place, Aim]) -> bool:
        """Note what the last turns have done; take back those that did nothing, if any."""
        off = {place: -aim.change(aim.target) for place, aim in turns.items()}
        known = [place for place in turns if place in self.last]
        made = np.array([off[place] - self.last[place].off for place in known])
        turned = np.array([self.last[place].by for place in known])
        if list(turns) == list(self.last) and turned.any():
            self.slopes += np.outer(made - self.slopes @ turned, turned) / (turned @ turned)
        else:
            slopes, old = np.eye(len(turns)), list(self.last)
            at, were = [list(turns).index(p) for p in known], [old.index(p) for p in known]
            if known:
                slopes[np.ix_(at, at)] = self.slopes[np.ix_(were, were)]
            self.slopes = slopes
        self.last = {}
        idle = []
        for place, effect, by in zip(known, made.tolist(), turned.tolist(), strict=True):
            knob, enough = self.knobs[place], abs(by) >= ENOUGH
            knob.moves |= enough and abs(effect) >= UNMOVED * abs(by)
            if enough and not knob.moves:
                idle.append(place)
                knob.weights = tuple(name for name in knob.weights if name not in knob.turned)
                knob.turned = {}
        return bool(idle)
