r"""What a repair aims at, read off a record: how far each place is from where it should be.

Between two sites of the spine a weight that is $10^{u/2}$ times as large changes the levels of
signal and gradient by

$$\Delta = u \quad\text{in a chain},\qquad
\Delta = \log_{10}\frac{1 + 10^u \rho}{1 + \rho},\quad \rho = 10^d - 1 \quad\text{at an addition}$$

that made d decades, in both directions alike: it cannot change the difference between the two. So
in a chain the mean of both steps should be 0, and at an addition, which only adds, the larger one
at most its share of the whole. A softmax wants scores of standard deviation 1, a bounded activation
inputs of q = 1. Levels are those of the verdicts (`verdicts.along_spine`): in them a layer that is
not square changes both directions alike, too.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from propagate.cure.factors.reading import Reading, Step, beyond_shapes, turning
from propagate.record.dataset import branch_share
from propagate.record.spine import LAYERS
from propagate.verdicts import thresholds
from propagate.verdicts.site_rules.saturated import saturated
from propagate.verdicts.site_rules.softmax import one_hot

MARGIN = 0.9  # share of the allowed growth that an addition is set to
SOUND = (math.log10(1 / 3), math.log10(2.0))
"""Between which log10 fan_in·Var(W) lies by the laws that frameworks and authors draw from: from
PyTorch's default to He's."""
LAWLESS = 0.5  # decades beyond that from which a weight alone is at fault


class Aim(NamedTuple):
    """A place, and how its weights would have to change.

    Attributes:
        place: what it is, the same in every record of a model.
        value: decades that are measured there.
        target: decades that should be.
        adds: whether it is an addition of a residual stream.
        weights: the parameters that may change it, the nearest first.
        units: of the site at its end.
    """

    place: tuple[str, int, int]
    value: float
    target: float
    adds: bool
    weights: tuple[str, ...]
    units: int

    @property
    def excess(self) -> float:
        """Decades by which the value is off; an addition is not too small."""
        off = self.value - self.target
        return max(off, 0.0) if self.adds else off

    def change(self, target: float) -> float:
        """Return the decades by which the weights' second moment must change for a target."""
        if not self.adds:
            return target - self.value
        if min(self.value, target) <= 0:
            return 0.0
        return math.log10((10**target - 1) / (10**self.value - 1))


def aims(reading: Reading, goal: float, also: Collection[str] = ()) -> list[Aim]:
    """Return what is to be changed along the spine and along the turns of loops.

    Args:
        reading: of the model.
        goal: decades per layer that are allowed, in both directions.
        also: parameters of loops to be followed, beside those of loops that grow.
    """
    own, record = reading.steps, reading.record
    units = record["units"].values
    found = []
    for step in own:
        adds = record["kind"].values[step.end] == "add"
        made = list(step.decades.values())
        value = beyond_shapes(max(made) if adds else sum(made) / len(made), step.slack)
        target = MARGIN * goal * step.layers if adds else 0.0
        weights = _weights(record, _inside(record, step.start, step.end))
        place = ("step", step.start, step.end)
        found.append(Aim(place, value, target, bool(adds), weights, int(units[step.end])))
    if own and found[0].adds:
        found += _first_branch(record, own[0], found[0].target)
    for name, made, (first, last) in turning(reading, also):
        value = sum(made.values()) / len(made)
        place = ("turns", first, last)
        found.append(Aim(place, value, 0.0, False, (name,), int(units[last])))
    return found


def _first_branch(record: xr.Dataset, step: Step, target: float) -> list[Aim]:
    """Return the first addition of a stream as an aim, if a weight in it is beyond every law.

    By what it adds to its skip alone it is no fault: embeddings may be small.
    """
    share = branch_share(record)
    weights = _weights(record, _inside(record, -1, step.start))
    odd = [name for name in weights if _scales(record)[name] > SOUND[1] + LAWLESS]
    value = math.log10(1 + 10 ** float(share[step.start]))
    if not odd or not math.isfinite(value):
        return []
    return [Aim(("step", -1, step.start), value, target, True, tuple(odd), 1)]


def saturations(record: xr.Dataset) -> list[Aim]:
    """Return an aim for each softmax that is next to one-hot, and each saturated activation."""
    found, numbers = [], np.arange(record.sizes["site"])
    depth, products = record["depth"].values, _products(record)
    for finding in (*one_hot(record), *saturated(record)):
        k = finding.layer
        if finding.severity == "note" or k is None:
            continue
        near = np.flatnonzero(products & (numbers < k) & (depth == depth[k]))
        if record["label"].values[k] in thresholds.BOUNDED:
            value = float(record["log10_forward_q"].values[near[-1]]) if len(near) else math.nan
            near = near[-1:]
        else:
            value = float(2 * np.log10(record["activation_score_sd"].values[k]))
        found.append(Aim(("saturated", k, k), value, 0.0, False, _weights(record, near), 1))
    return found


def start(reading: Reading) -> tuple[str, ...]:
    """Return the weights before the first site of the spine and at it, the last first."""
    own, record = reading.steps, reading.record
    return _weights(record, _inside(record, -1, own[0].start)) if own else ()


def _products(record: xr.Dataset) -> np.ndarray:
    return np.isin(record["kind"].values, (*LAYERS, "embedding"))


def _inside(record: xr.Dataset, start: int, end: int) -> np.ndarray:
    """Return the products behind one site up to another."""
    inside = np.flatnonzero(_products(record))
    return inside[(inside > start) & (inside <= end)]


def _weights(record: xr.Dataset, sites: np.ndarray) -> tuple[str, ...]:
    """Return the parameters of sites, the last first."""
    names = record["parameter"].values[sites[::-1]]
    return tuple(dict.fromkeys(str(name) for name in names if name))


def _scales(record: xr.Dataset) -> dict[str, float]:
    """Return log10 fan_in·Var(W) of every parameter; NaN of what is in no product."""
    sigma2 = record["log10_weight_sigma2"].values.tolist()
    return dict(zip(record["weight"].values.tolist(), sigma2, strict=True))


def shares(record: xr.Dataset, weights: Sequence[str], change: float) -> dict[str, float]:
    """Return how a change is shared: by those beyond every usual law, else by the nearest alone.

    Args:
        record: with the laws of the weights.
        weights: that may be changed.
        change: decades of their second moment, together.
    """
    known, (low, high) = _scales(record), SOUND
    scale = {name: known.get(name, math.nan) for name in weights}
    beyond = {n: max(s - high if change < 0 else low - s, 0.0) for n, s in scale.items()}
    beyond = {n: b for n, b in beyond.items() if math.isfinite(b) and b > 0.1 * abs(change)}
    if not beyond:
        return dict.fromkeys(weights[:1], 1.0)
    return {n: b / sum(beyond.values()) for n, b in beyond.items()}
