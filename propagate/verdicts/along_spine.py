r"""A signal's or gradient's way along the spine of a custom model: its level at each site.

The level of a signal is log10 of its second moment q. That of a gradient is log10 of its sum of
squares, q times units and positions, since a layer

$$h = W x, \qquad \sum g_x^2 = \mathrm{fan\_in}\cdot Var(W) \sum g_h^2$$

changes both levels by its own $\log_{10} \sigma_w^2$, whatever its shape. A narrow readout or a
bottleneck changes the second moment of a gradient, and is no fault.

What is normalised does not depend on its scale. So the level of a signal that a norm follows is
that of the norm's output; that of its gradient, which the norm divides by the rms of what came in,
is the level of $g_h\,\sqrt{q_h}$, the gradient relative to the size of the signal. Where a
norm stands on a residual stream, behind each sum, both levels are those of the norm's output. Each
level is that of a site, and a total that of the last less that of the first.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from propagate.record.dataset import second_moment
from propagate.record.spine import LAYERS, spine
from propagate.types import Direction
from propagate.verdicts import thresholds

ON_THE_WAY = (*LAYERS, "embedding", "custom", "activation", "norm", "add", "tag", "elementwise")


class Way(NamedTuple):
    """A way along the spine, in the order of travel.

    Attributes:
        sites: numbers of the sites.
        level: at each of them, in decades.
        slack: of each step, decades that shapes may account for: a change of the number of
            positions, or Glorot's law where fan_in and fan_out differ.
        direction: of travel.
        read: numbers of the sites whose levels they are: of a stream, of what goes on.
    """

    sites: np.ndarray
    level: np.ndarray
    slack: np.ndarray
    direction: Direction
    read: np.ndarray

    @property
    def total(self) -> float:
        """Decades from the first site to the last: the level there less that here."""
        return float(self.level[-1] - self.level[0]) if len(self.level) else 0.0

    @property
    def steps(self) -> np.ndarray:
        """Decades from each site to the next."""
        return np.diff(self.level)

    def of(self, kept: np.ndarray | slice) -> "Way":
        """Return the way along some of its sites."""
        numbers = np.arange(len(self.sites))[kept]
        passed = np.concatenate([[0.0], np.cumsum(self.slack)])[numbers]
        slack, read = np.diff(passed), self.read[numbers]
        return Way(self.sites[numbers], self.level[numbers], slack, self.direction, read)


def way(record: xr.Dataset, direction: Direction) -> Way:
    """Return the way along the spine, without sites whose level is not finite."""
    sites = spine(record)["site"].values.astype(int)
    read = _going_on(record, sites)
    level = levels(record, direction)[read]
    known = np.isfinite(level)
    sites, level, read = sites[known], level[known], read[known]
    slack = np.abs(np.diff(np.log10(np.maximum(record["rows"].values[sites], 1))))
    slack = slack + _of_shapes(record)[sites[1:]]
    order = slice(None, None, 1 if direction == "forward" else -1)
    return Way(sites[order], level[order], slack[order], direction, read[order])


def levels(record: xr.Dataset, direction: Direction) -> np.ndarray:
    """Return the level at every site, in decades."""
    q, norm = second_moment(record, direction).values, norm_after(record)
    if direction == "forward":
        return np.where(norm >= 0, q[norm], q)
    sizes = np.log10(np.maximum(record["rows"].values * record["units"].values, 1))
    signal = np.where(norm >= 0, second_moment(record, "forward").values, 0.0)
    return q + sizes + np.where(np.isfinite(signal), signal, 0.0)


def _going_on(record: xr.Dataset, sites: np.ndarray) -> np.ndarray:
    """Return for each site the one whose value goes on: of a stream, what the next sum skips with.

    That is the sum itself; or the output of a norm or an activation behind it, or of a layer, as
    where pictures become smaller. A gate or a decay on the way is none of these: what it takes off
    is seen at the next sum. Behind the last sum it is what it was behind the last but one. Where
    most sums are of two layers' outputs, they are no stream.
    """
    kind = record["kind"].values
    if len(sites) < 2 or "log10_skip_q" not in record or (kind[sites] != "add").any():
        return sites
    q, skip = second_moment(record, "forward").values, record["log10_skip_q"].values
    depth, on = record["depth"].values, sites.copy()
    layer = np.isin(kind, LAYERS) & (record["parameter"].values != "")
    for k, (here, later) in enumerate(itertools.pairwise(sites)):
        inside = np.arange(here + 1, later)
        deeper = depth[inside] - depth[here]
        passed = np.isin(kind[inside], ("norm", "activation")) & (deeper == 0)
        passed |= ((kind[inside] == "norm") | layer[inside]) & (deeper == 1)
        known = [here, *inside[passed]]
        with np.errstate(invalid="ignore"):  # of what is zero
            same = np.abs(q[known] - skip[later]) < thresholds.SAME_VALUE
        on[k] = known[int(np.argmax(same))] if same.any() else here
    if 2 * layer[on].sum() > len(on):
        return sites
    behind = np.flatnonzero((kind == kind[on[-2]]) & (depth == depth[sites[-1]]))
    behind = behind[behind > sites[-1]]
    if kind[on[-2]] in ("norm", "activation") and len(behind):
        on[-1] = behind[0]
    return on


def norm_after(record: xr.Dataset) -> np.ndarray:
    """Return for each layer the site of the norm that takes its values, -1 if none does."""
    kind, depth = record["kind"].values, record["depth"].values
    last = {d: k for k, d in enumerate(depth) if kind[k] == "norm"}
    layers = np.isin(kind, (*LAYERS, "embedding")) & (record["parameter"].values != "")
    after = np.array([last.get(d, -1) for d in depth], int)
    return np.where(layers & (after > np.arange(len(depth))), after, -1)


def _of_shapes(record: xr.Dataset) -> np.ndarray:
    """Return |log10 of fan_in·Var(W)| at each site whose weight follows Glorot's law, else 0.

    That is |log10 of 2 fan_in/(fan_in + fan_out)|, as the framework counts them: 0 for equal ones.
    """
    if "log10_weight_sigma2" not in record or "weight_law" not in record:
        return np.zeros(record.sizes["site"])
    each = zip(
        record["weight"].values,
        record["weight_law"].values,
        record["log10_weight_sigma2"].values,
        strict=True,
    )
    own = {name: abs(s) for name, law, s in each if "glorot" in str(law) and np.isfinite(s)}
    return np.array([own.get(name, 0.0) for name in record["parameter"].values])


def owners(record: xr.Dataset, sites: np.ndarray) -> np.ndarray:
    """Return the parameter of each site: its own, or that of the last layer before it."""
    own, after = record["parameter"].values[sites], record["after"].values[sites]
    return np.where(own == "", after, own)


def once(record: xr.Dataset, whole: Way) -> Way:
    """Return the way past one site for each parameter, of a loop one turn for all.

    Forward that is the last turn. Backward it is the turn that sees most of the gradient: what the
    turns share learns from it, however little the others see.
    """
    names = owners(record, whole.sites)
    chosen: dict[str, int] = {}
    for k, name in enumerate(names):
        known = chosen.get(name)
        if known is None or whole.direction == "forward" or whole.level[k] > whole.level[known]:
            chosen[name] = k
    alone = [k for k, name in enumerate(names) if name == "" or chosen[name] == k]
    return whole.of(np.array(alone, int))


def loops(record: xr.Dataset, whole: Way) -> Iterator[tuple[str, Way]]:
    """Yield the ways through loops whose turns share a parameter, each with its name."""
    names = owners(record, whole.sites)
    for name in dict.fromkeys(names[names != ""]):
        turns = np.flatnonzero(names == name)
        if len(turns) > thresholds.PEERS:
            yield _recurrent(record, whole.sites[turns], str(name)), whole.of(turns)


def _recurrent(record: xr.Dataset, sites: np.ndarray, name: str) -> str:
    """Return the parameter that meets the state, and not the input, in the turns of a loop.

    What it makes is zero in the first turn, where the state is; or it grows the most.
    """
    depth, used = record["depth"].values, record["parameter"].values
    q = record["log10_forward_q"].values
    near = (depth >= depth[sites].min() - 1) & (depth <= depth[sites].max())
    inside = np.isin(record["kind"].values, LAYERS) & near

    def state_like(parameter: str) -> tuple[bool, bool, int, float]:
        own = q[inside & (used == parameter)]
        grown = float(own[-1] - own[0]) if np.isfinite(own[[0, -1]]).all() else 0.0
        return 2 * len(own) > len(sites), bool(np.isneginf(own[0])), len(own), grown

    return max(sorted(set(used[inside]) - {""}), key=state_like, default=name)


def ripple(level: np.ndarray, sign: float) -> float:
    """Return how deep the curve goes and comes out of again, against the direction of `sign`.

    A sawtooth, as of normalised, gated or coupled blocks, may end anywhere on its last tooth.

    Example:
        >>> ripple(np.array([0.0, -2.0, 0.0, -2.0]), sign=-1), ripple(np.arange(3.0), sign=1)
        (2.0, 0.0)
    """
    height = -sign * level
    before = np.maximum.accumulate(height)
    after = np.maximum.accumulate(height[::-1])[::-1]
    return float((np.minimum(before, after) - height).max(initial=0.0))


def beyond(part: Way) -> float:
    """Return the decades of a total that neither ripples nor shapes account for."""
    sign = 1.0 if part.total > 0 else -1.0
    slack = min(float(part.slack.sum()), thresholds.FINE_DECADES)
    return sign * max(abs(part.total) - ripple(part.level, sign) - slack, 0.0)


Operation = tuple[int, float]  # a site, and by how much it changes the level


class _Columns(NamedTuple):
    """What is asked of every site: read from the record once, not once for each step."""

    kind: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    units: np.ndarray
    level: np.ndarray
    scale: list[float]  # log10 fan_in·Var(W) of its weight, NaN where that is not known


def operations(record: xr.Dataset, whole: Way) -> list[list[Operation]]:
    """Return the operations of each step of a way, and what each does to the level."""
    sigma2 = record["log10_weight_sigma2"].values if "log10_weight_sigma2" in record else []
    known = dict(zip(record["weight"].values, sigma2, strict=False))
    scale = [known.get(name, math.nan) for name in record["parameter"].values]
    kind, label, depth, units = (record[n].values for n in ("kind", "label", "depth", "units"))
    columns = _Columns(kind, label, depth, units, levels(record, whole.direction), scale)
    steps = zip(whole.sites[:-1].tolist(), whole.sites[1:].tolist(), strict=True)
    return [_of_step(columns, min(pair), max(pair), whole.direction) for pair in steps]


def _of_step(columns: _Columns, a: int, b: int, direction: Direction) -> list[Operation]:
    """Return the operations from one layer to the next.

    What a weight's scale does is taken out, and what an operation does that forgets its input's.
    """
    kind, label, depth, units, level, scale = columns
    wide = (units[a:b] > 1) | (units[a] == 1)
    inside = [
        k
        for k in range(a + 1, b)
        if kind[k] in ON_THE_WAY and kind[k] not in LAYERS and depth[k] == depth[a] and wide[k - a]
    ]
    norms = [k for k in inside if kind[k] == "norm"]
    path = [a, *(inside[inside.index(norms[-1]) :] if norms else inside), b]
    with np.errstate(invalid="ignore"):  # from nothing to nothing
        change = np.diff(level[path]) if direction == "forward" else -np.diff(level[path])
    change[-1] -= scale[b] if math.isfinite(scale[b]) and kind[b] in LAYERS else 0.0
    change[-1] = change[-1] if math.isfinite(change[-1]) else 0.0
    for i, k in enumerate(path[1:-1]):
        forgets = label[k] in thresholds.FORGETFUL and direction == "forward"
        if kind[k] == "norm" or forgets or not math.isfinite(change[i]):
            change[i] = 0.0
    return list(zip(path[1:], change.tolist(), strict=True))
