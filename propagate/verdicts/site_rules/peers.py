"""The rules that compare a layer of a custom model with its peers: departing.

Peers are parameters whose names differ in numbers only, the branches into one residual stream, or
the steps of the signal between layers.
"""

import math
import re
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.dataset import measured_directions, second_moment
from propagate.record.spine import spine
from propagate.verdicts import thresholds
from propagate.verdicts.findings import SUBJECTS, Finding, Verdict
from propagate.verdicts.site_rules.site_finding import site_finding


def _peers(names: np.ndarray) -> dict[str, list[int]]:
    """Group names that differ in numbers only: `blocks.3.fc1.kernel`, `dense_2.kernel`."""
    groups: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        groups.setdefault(re.sub(r"_?\d+", "*", str(name)), []).append(k)
    return groups


def _outliers(values: np.ndarray, error: np.ndarray | float = 0.0) -> list[tuple[int, float]]:
    """Return which values are out of line with the rest, given their errors, and by how much."""
    known = np.isfinite(values)
    if known.sum() < thresholds.PEERS:
        return []
    middle = float(np.median(values[known]))
    spread = thresholds.SD_PER_MAD * float(np.median(np.abs(values[known] - middle)))
    wide = np.hypot(spread, error)
    limit = np.maximum(thresholds.STEP, thresholds.STEP_SPREADS * wide)
    far = np.flatnonzero(known & (np.abs(values - middle) > limit))
    return [(int(k), float(values[k] - middle)) for k in far]


def odd_weights(record: xr.Dataset) -> Iterator[Finding]:
    """Departing: a parameter whose fan_in·Var(W) is out of line with that of its peers."""
    if "log10_weight_sigma2" not in record:
        return
    sigma2, names = record["log10_weight_sigma2"].values, record["weight"].values
    for group in _peers(names).values():
        for k, off in _outliers(sigma2[group]):
            name, own = str(names[group[k]]), 10 ** sigma2[group[k]]
            peers = 10 ** (sigma2[group[k]] - off)
            at = np.flatnonzero(record["parameter"].values == name)
            reason = (
                f"fan_in·Var(W) is {own:.3g} where its peers have {peers:.3g}, {off:+.1f} decades"
            )
            first = int(at[0]) if len(at) else None
            yield site_finding(record, first, "forward", Verdict.DEPARTING, reason, parameter=name)


def odd_branches(record: xr.Dataset) -> Iterator[Finding]:
    """Departing: a branch whose share of a residual stream is out of line."""
    if "log10_branch_q" not in record:
        return
    share = record["log10_branch_q"].values - record["log10_skip_q"].values
    adds = np.flatnonzero(record["kind"].values == "add")
    for group in _peers(record["after"].values[adds]).values():
        own = adds[group]
        for k, off in _outliers(share[own]):
            times = 10 ** (off / 2)
            reason = (
                f"the branch into {record['name'].values[own[k]]} is {times:.2g} times as large, "
                "against its skip, as those of its peers"
            )
            yield site_finding(record, int(own[k]), "forward", Verdict.DEPARTING, reason)


def odd_steps(record: xr.Dataset, blamed: set[str]) -> list[Finding]:
    """Departing: a step of the signal or gradient between layers that is out of line."""
    found: list[Finding] = []
    chain = spine(record)
    at = chain["site"].values
    names = chain["parameter"].values
    if not len(at) or (names == "").any():
        return found  # a residual stream: its branches are judged
    for direction in measured_directions(chain):
        q = second_moment(chain, direction).values
        steps = np.diff(np.where(np.isfinite(q), q, math.nan))
        error = thresholds.unit_error(chain["units"].values)
        for k, off in _outliers(steps, np.hypot(error[1:], error[:-1])):
            if blamed & {str(names[k]), str(names[k + 1])}:
                continue
            blamed |= {str(names[k]), str(names[k + 1])}
            culprit = _between(record, int(at[k]), int(at[k + 1]))
            sense = off if direction == "forward" else -off
            reason = (
                f"the {SUBJECTS[direction]} steps by {sense:+.1f} decades more than elsewhere "
                f"between {names[k]} and {names[k + 1]}, through {record['label'].values[culprit]}"
            )
            found.append(site_finding(record, culprit, direction, Verdict.DEPARTING, reason))
    return found


def _between(record: xr.Dataset, first: int, last: int) -> int:
    """Return the site between two layers whose operation is rarest in the model."""
    labels = record["label"].values
    inside = [k for k in range(first + 1, last) if record["kind"].values[k] == "activation"]
    return min(inside, key=lambda k: int((labels == labels[k]).sum()), default=last)


def without_steps(values: np.ndarray) -> np.ndarray:
    """Take out single steps that are out of line: they are findings of their own, not growth."""
    steps = np.diff(values)
    for k, off in _outliers(steps):
        steps[k] -= off
    return np.concatenate([values[:1], values[0] + np.cumsum(steps)])
