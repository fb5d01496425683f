"""The rules for what is out of line at one layer: departing, or exploding or vanishing at one step.

A weight is as it should be if its law has a name (He's, Glorot's, … for its own shape), or if it is
drawn as those of its peers are: parameters whose names differ in numbers only. A step between two
layers is compared with others once the layer's own sigma_w^2 is taken out of it, so that no weight
is blamed for its neighbour's scale.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from propagate.record.dataset import branch_share, measured_directions
from propagate.record.spine import spine
from propagate.types import Direction
from propagate.verdicts import thresholds
from propagate.verdicts.along_spine import (
    Operation,
    Way,
    beyond,
    norm_after,
    once,
    operations,
    owners,
    ripple,
    way,
)
from propagate.verdicts.findings import SUBJECTS, Finding, Verdict
from propagate.verdicts.grouped import without_numbers
from propagate.verdicts.growth import amount, times
from propagate.verdicts.site_rules.site_finding import rows_seen, site_finding

CHANGED: dict[Direction, str] = {"forward": "output", "backward": "derivative"}
UNNAMED = ("normal", "uniform", "truncated", "constant", "zeros", "ones", "not finite")


class Odd(NamedTuple):
    """What is out of line at one layer.

    Attributes:
        site: where it shows, or None.
        layer: the site of the spine at which its effect is whole, or None.
        parameter: the one to blame.
        decades: what it adds to the level, in each direction.
        reason: the evidence, in words.
        of_weight: whether the weight's own scale is to blame.
    """

    site: int | None
    layer: int | None
    parameter: str
    decades: dict[Direction, float]
    reason: str
    of_weight: bool = False

    @property
    def direction(self) -> Direction:
        """The direction in which it shows first."""
        return "forward" if "forward" in self.decades else "backward"


def odd_finding(record: xr.Dataset, odd: Odd) -> Finding:
    """Return the finding: a fault if the whole model suffers, else a note."""
    cost = _cost(record, odd)
    off = odd.decades[odd.direction]
    verdict = Verdict.DEPARTING
    if cost and not odd.of_weight and abs(off) > thresholds.FINE_DECADES:
        verdict = Verdict.EXPLODING if off > 0 else Verdict.VANISHING
    reason = f"{odd.reason}; {cost or 'the model as a whole stays within what is fine'}"
    return site_finding(
        record,
        odd.site,
        odd.direction,
        verdict,
        reason,
        parameter=odd.parameter,
        severity="fault" if cost else "note",
        total=off,
    )


def _cost(record: xr.Dataset, odd: Odd) -> str:
    """Return what a departure does to the model as a whole, in words; empty if nothing."""
    for direction, off in odd.decades.items():
        there = way(record, direction)
        at = np.flatnonzero(there.sites == odd.layer)
        if not len(at) or not off:
            continue
        k = int(at[0]) - (direction == "forward")
        before = there.level[k] if k >= 0 else there.level[0] - off
        left = float(there.level[-1] - before)
        end = record["name"].values[there.sites[-1]]
        subject = SUBJECTS[direction]
        if off >= thresholds.STEEP and left >= max(thresholds.STEEP, off / 2):
            factor = times(10 ** (left / 2))
            return (
                f"the {subject} is {factor} times as large at {end} as before it, {left:+.1f} "
                "decades of its second moment: a learning rate that trains the other layers is too "
                "large"
            )
        whole = beyond(once(record, there))
        if whole < -thresholds.VANISHED and off < thresholds.SHARE * whole:
            factor = times(10 ** (-left / 2))
            return (
                f"the {subject} that reaches {end} is {factor} times as small, {left:+.1f} decades "
                "of its second moment"
            )
    return ""


def _peers(names: np.ndarray) -> dict[str, list[int]]:
    """Group names that differ in numbers only: `blocks.3.fc1.kernel`, `dense_2.kernel`."""
    groups: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        groups.setdefault(without_numbers(str(name)), []).append(k)
    return groups


def outliers(values: np.ndarray, error: np.ndarray | float = 0.0) -> list[tuple[int, float]]:
    """Return which values are out of line with the rest, given their errors, and by how much."""
    known = np.isfinite(values)
    if known.sum() < thresholds.PEERS:
        return []
    middle = float(np.median(values[known]))
    wide = np.hypot(_spread(values[known]), error)
    limit = np.maximum(thresholds.STEP, thresholds.STEP_SPREADS * wide)
    far = np.flatnonzero(known & (np.abs(values - middle) > limit))
    return [(int(k), float(values[k] - middle)) for k in far]


def odd_weights(record: xr.Dataset) -> Iterator[Odd]:
    """Yield the parameters whose law has no name, and whose scale is none of their peers'.

    What the peers have in common may be Var(W), fan_in·Var(W), fan_out·Var(W) or
    (fan_in + fan_out)·Var(W): that which scatters least among them, or each of several.
    """
    if "log10_weight_sigma2" not in record:
        return
    sigma2, names = record["log10_weight_sigma2"].values, record["weight"].values
    named = [not str(law).startswith(UNNAMED) for law in record["weight_law"].values]
    scales = _scales(record)
    for group in _peers(names).values():
        off_by = dict(outliers(sigma2[group]))
        for k in sorted(_odd_in_all([scale[group] for scale in scales]) & set(off_by)):
            n = group[k]
            if named[n]:
                continue
            off, at = off_by[k], np.flatnonzero(record["parameter"].values == names[n])
            own, peers = 10 ** sigma2[n], 10 ** (sigma2[n] - off)
            reason = (
                f"fan_in·Var(W) is {amount(own)} where its peers have {amount(peers)}, "
                f"{off:+.1f} decades: weights {times(10 ** (-off / 2))} times as large would be in "
                "line"
            )
            site = int(at[0]) if len(at) else None
            if off > 0 and _is_forgotten(record, site):
                continue
            both = dict.fromkeys(measured_directions(record), off)
            layer = _layer_after(record, site)
            yield Odd(site, layer, str(names[n]), both, reason, of_weight=True)


def _odd_in_all(scales: list[np.ndarray]) -> set[int]:
    """Return which are out of line in each of the scales that scatter as little as any other."""
    spreads = [_spread(scale[np.isfinite(scale)]) for scale in scales]
    least = min(spreads)
    kept = [s for s, own in zip(scales, spreads, strict=True) if own <= least + thresholds.ALIKE_BY]
    return set.intersection(*({k for k, _ in outliers(scale)} for scale in kept))


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of values most of which are Gaussian."""
    if not len(values):
        return 0.0
    return thresholds.SD_PER_MAD * float(np.median(np.abs(values - np.median(values))))


def _is_forgotten(record: xr.Dataset, site: int | None) -> bool:
    """Whether a site is the first layer's, and its activation forgets the scale, as SIREN's does.

    The first layer meets inputs of another scale than the layers behind it.
    """
    if site is None or record["depth"].values[site] > 1:
        return False
    after = (record["depth"].values == 1) & (record["kind"].values == "activation")
    return after.any() and bool(np.isin(record["label"].values[after], thresholds.FORGETFUL).all())


def _scales(record: xr.Dataset) -> list[np.ndarray]:
    """Return log10 of Var(W) times 1, fan_in, fan_out and their sum, of every parameter."""
    fan_in = record["weight_fan_in"].values
    made = dict(zip(record["parameter"].values, record["units"].values, strict=True))
    fan_out = np.array([made.get(name, math.nan) for name in record["weight"].values], float)
    sigma2 = record["log10_weight_sigma2"].values
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = sigma2 - np.log10(fan_in)
        rest = [variance + np.log10(f) for f in (fan_out, fan_in + fan_out)]
    return [sigma2, variance, *(np.where(np.isfinite(r), r, sigma2) for r in rest)]


def _layer_after(record: xr.Dataset, site: int | None) -> int | None:
    """Return the first site of the spine at or behind a site."""
    sites = spine(record)["site"].values
    later = sites[sites >= site] if site is not None else []
    return int(later[0]) if len(later) else None


def odd_branches(record: xr.Dataset) -> Iterator[Odd]:
    """Yield the branches whose share of a residual stream is out of line.

    What the peers have in common is their share, or their size where each begins with a norm: then
    a stream that starts small makes the first shares large, and no branch is to blame.
    """
    if "log10_branch_q" not in record:
        return
    share, size = branch_share(record), record["log10_branch_q"].values
    adds = np.flatnonzero(record["kind"].values == "add")
    adds = adds[_once_each(owners(record, adds))]
    for group in _peers(record["after"].values[adds]).values():
        own = adds[group]
        off_by = dict(outliers(share[own]))
        for k in sorted(_odd_in_all([share[own], size[own]]) & set(off_by)):
            off = off_by[k]
            factor, back = times(10 ** (off / 2)), times(10 ** (-off / 2))
            reason = (
                f"the branch into {record['name'].values[own[k]]} is {factor} times as large, "
                f"against its skip, as those of its peers: a factor of {back} would put it in line"
            )
            site = int(own[k])
            yield Odd(site, site, str(record["after"].values[site]), {"forward": off}, reason)


def _once_each(names: np.ndarray) -> np.ndarray:
    """Return where a name stands that is there but once: turns of a loop are no peers."""
    return np.array([k for k, name in enumerate(names) if (names == name).sum() == 1], int)


def odd_steps(record: xr.Dataset, blamed: Iterable[str]) -> list[Odd]:
    """Return the steps between layers that are out of line beside what the weights account for.

    Of fewer than `PEERS` steps, those are that change the level by more than is fine at all.
    """
    found: dict[int, Odd] = {}
    done = set(blamed) - {""}
    for direction in measured_directions(record):
        whole = once(record, way(record, direction))
        names = record["parameter"].values[whole.sites]
        if (names == "").any():
            continue  # a residual stream: its branches are judged
        parts = operations(record, whole)
        rest = np.array([sum(d for _, d in own) for own in parts], float)
        sawtooth = max(ripple(whole.level, sign) for sign in (1.0, -1.0)) > thresholds.STEP / 2
        for k, off in _far(record, whole, rest):
            if sawtooth and abs(off) <= thresholds.FINE_DECADES:
                continue  # the sites are not links of one chain
            earlier, later = sorted(whole.sites[k : k + 2].tolist())
            if done & set(names[k : k + 2]) and later not in found:
                continue
            site = _culprit(record, parts, k, off)
            if later in found:
                found[later] = _in_both(found[later], direction, off)
                continue
            through = _operations(record, site)
            a, b = (record["name"].values[s] for s in (earlier, later))
            reason = (
                f"{off:+.1f} decades of the {SUBJECTS[direction]} between {a} and {b}, across "
                f"{through}, beside what weights and other layers account for: its "
                f"{CHANGED[direction]} {times(10 ** (-off / 2))} times as large would be in line"
            )
            parameter = str(owners(record, np.array([site]))[0])
            found[later] = Odd(site, later, parameter, {direction: off}, reason)
    return list(found.values())


def _operations(record: xr.Dataset, site: int) -> str:
    """Return what lies between a site and the one before it: no sites, the site's own, its norm."""
    through = str(record["through"].values[site]).split() if "through" in record.coords else []
    label = str(record["label"].values[site])
    factor = float(record["operand_scale"].values[site]) if through else 1.0
    if math.isfinite(factor) and abs(factor) != 1:
        through = [f"a factor of {factor:.3g}"]
    behind = ["the norm behind it"] if norm_after(record)[site] >= 0 else []
    *most, last = [*(one for one in through if one != label), label, *behind]
    words = f"{', '.join(most)} and {last}" if most else last
    return f"{words} (a mean in place of the sum?)" if through[-1:] == ["reduce_sum"] else words


def _in_both(odd: Odd, direction: Direction, off: float) -> Odd:
    also = f"{odd.reason}; of the {SUBJECTS[direction]} {off:+.1f}"
    return odd._replace(decades=odd.decades | {direction: off}, reason=also)


def _far(record: xr.Dataset, whole: Way, rest: np.ndarray) -> list[tuple[int, float]]:
    """Return the steps that are out of line, and by how much."""
    seen, rows = rows_seen(record)[whole.sites], record["rows"].values[whole.sites]
    units = thresholds.unit_error(record["units"].values[whole.sites])
    error = np.hypot(units, thresholds.sample_error(seen, rows))
    own = np.hypot(error[1:], error[:-1])
    if len(rest) < thresholds.PEERS:
        limit = thresholds.FINE_DECADES + thresholds.STEP_SPREADS * own
        far = [(int(k), float(rest[k])) for k in np.flatnonzero(np.abs(rest) > limit)]
    else:
        far = outliers(rest, own)
    slack = whole.slack
    less = [(k, math.copysign(max(abs(off) - slack[k], 0.0), off)) for k, off in far]
    return [(k, off) for k, off in less if abs(off) > thresholds.STEP]


def _culprit(record: xr.Dataset, parts: Sequence[list[Operation]], step: int, off: float) -> int:
    """Return the site of a step whose change is farthest from that of its like, the same way."""
    label = record["label"].values
    changes: dict[str, list[float]] = {}
    for own in parts:
        for k, change in own:
            changes.setdefault(str(label[k]), []).append(change)
    usual = {name: float(np.median(c)) if len(c) > 2 else 0.0 for name, c in changes.items()}
    return max(parts[step], key=lambda one: (one[1] - usual[str(label[one[0]])]) * off)[0]
