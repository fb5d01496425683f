"""The rules for growth along the spine of a custom model, and along the turns of a loop in it."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from propagate.types import Direction
from propagate.verdicts import thresholds
from propagate.verdicts.along_spine import Way, beyond, loops, once, way
from propagate.verdicts.findings import SUBJECTS, Finding, Severity, Verdict
from propagate.verdicts.growth import Growth, of_steps, times
from propagate.verdicts.site_rules.peers import Odd
from propagate.verdicts.site_rules.site_finding import site_finding


def grown(record: xr.Dataset, direction: Direction, odd: Sequence[Odd]) -> Iterator[Finding]:
    """Vanishing or exploding: the level at the end of the spine against that at its start.

    A finding names both sites. Ripples, changes of positions and a small readout are no growth, nor
    is what single layers account for that have faults of their own.

    Args:
        record: of `diagnose`.
        direction: of travel.
        odd: single layers that are at fault.
    """
    whole = way(record, direction)
    alone = without_readout(record, once(record, whole))
    known = sum(o.decades.get(direction, 0.0) for o in odd if o.layer in alone.sites)
    in_loops = [f for name, turns in loops(record, whole) for f in _of_loop(record, name, turns)]
    if _is_growth(alone, known) and not any(f.is_fault for f in in_loops):
        yield from _told(record, alone)
    yield from in_loops


def _limit(total: float) -> float:
    return thresholds.FINE_DECADES if total > 0 else thresholds.VANISHED


def _is_growth(part: Way, known: float) -> bool:
    """Whether a total is more than is fine, without what is known, and from the first quarter on.

    A signal that settles within the first quarter does not go on growing with depth.
    """
    total = beyond(part)
    rest = total - known
    if len(part.sites) < 2 or abs(rest) <= _limit(rest) or rest * part.total <= 0:
        return False
    if abs(total) <= _limit(part.total):
        return False
    steps = len(part.sites) - 1
    quarter = int(thresholds.SETTLED_FROM * steps)
    later = (
        part.of(slice(quarter, None))
        if part.direction == "forward"
        else part.of(slice(None, steps + 1 - quarter))
    )
    return later.total * np.sign(rest) * steps > _limit(rest) * (steps - quarter)


def without_readout(record: xr.Dataset, part: Way) -> Way:
    """Leave out the last layer if it is smaller than others: outputs start small, by design."""
    kind = record["kind"].values[part.sites]
    last = -1 if part.direction == "forward" else 0
    if len(part.sites) <= 2 or kind[last] not in ("matmul", "conv"):
        return part
    others = np.delete(part.steps, last).mean()
    if part.steps[last] > min(others, 0.0) - thresholds.STEP:
        return part
    return part.of(slice(None, -1) if part.direction == "forward" else slice(1, None))


def _told(record: xr.Dataset, part: Way) -> Iterator[Finding]:
    """Yield a finding at each layer that makes most of it, or one for all of them."""
    verdict = Verdict.EXPLODING if part.total > 0 else Verdict.VANISHING
    subject, steps = SUBJECTS[part.direction], part.steps
    start, end = (record["name"].values[k] for k in part.read[[0, -1]])
    reason = f"{part.total:+.2f} decades of the {subject} from {start} to {end}"
    share = steps * np.sign(part.total)
    leading = np.flatnonzero(share >= share.max() / 2)
    if len(leading) <= 2 and (len(steps) <= 2 or share[leading].sum() > abs(part.total) / 2):
        for k in leading:
            site = int(max(part.sites[k : k + 2]))  # the layer that both directions cross
            across = f"across {record['name'].values[site]}"
            step = f"{steps[k]:+.2f} of {reason}, {across}"
            if abs(steps[k]) > abs(part.total):  # other steps undo some of it
                step = f"{reason}, {steps[k]:+.2f} {across} less what others undo"
            step += (
                f": {_cost(part)}; a factor of {times(10 ** (-steps[k] / 2))} there would keep it"
            )
            yield site_finding(record, site, part.direction, verdict, step, rise=of_steps(steps))
        return
    kind = "additions of a residual stream" if _is_stream(record, part) else "layers"
    rise = of_steps(steps)
    remedy = _remedy(record, part, rise)
    severity: Severity = "fault"
    if part.direction == "backward" and part.total > 0 and _is_normalised(record, part):
        severity, remedy = "note", "normalised layers learn the less the larger their weights grow"
    reason = f"{reason}, {rise.rate:+.3f} in each of {len(steps)} {kind}: {_cost(part)}; {remedy}"
    last = int(part.sites[-1])
    yield site_finding(record, last, part.direction, verdict, reason, rise=rise, severity=severity)


def _remedy(record: xr.Dataset, part: Way, rise: Growth) -> str:
    """Return how much larger or smaller to make what grows or shrinks.

    A stream grows by what its branches add: with 1/L of it from each of L, by a factor of e at
    most. Where an activation is bounded, its slope falls as its input grows, and the factor of a
    linear layer is not enough.
    """
    if _is_stream(record, part) and rise.rate > 0:
        scale = times(1 / math.sqrt((10**rise.rate - 1) * rise.layers))
        return (
            f"branches {scale} times as large, each with 1/{rise.layers} of the stream's second "
            "moment, would keep it within a factor of e"
        )
    what = "blocks" if _is_stream(record, part) else "weights"
    bent = np.isin(record["label"].values, thresholds.BOUNDED).any()
    bound = ("at most " if rise.rate > 0 else "at least ") if bent else ""
    return f"{what} {bound}{times(10 ** (-rise.rate / 2))} times as large would keep it"


def _is_stream(record: xr.Dataset, part: Way) -> bool:
    return bool((record["kind"].values[part.sites] == "add").all())


def _is_normalised(record: xr.Dataset, part: Way) -> bool:
    """Whether at least half of the layers are normalised, so that they adapt to their gradients.

    Gradients explode on their way back through batch normalisation (Yang et al. 2019,
    arXiv:1902.08129); but a weight's effective rate falls as its gradient makes it grow (Arora et
    al. 2019, arXiv:1812.03981).
    """
    depth = record["depth"].values
    norms = depth[record["kind"].values == "norm"]
    return 2 * np.isin(depth[part.sites], norms).sum() >= len(part.sites)


def _cost(part: Way) -> str:
    factor = times(10 ** (abs(part.total) / 2))
    if part.direction == "forward":
        return f"its rms ends {factor} times as {'large' if part.total > 0 else 'small'}"
    more = "faster" if part.total > 0 else "more slowly"
    return f"the first layers learn {factor} times {more} than the last"


def _of_loop(record: xr.Dataset, name: str, turns: Way) -> Iterator[Finding]:
    """Growth from turn to turn, once settled; that a loop forgets is a note."""
    steps = len(turns.sites) - 1
    settled = turns.of(slice(int(thresholds.SETTLED_FROM * steps), None))
    if turns.direction == "backward":
        settled = turns
    if abs(beyond(settled)) <= _limit(settled.total):
        return
    rise = of_steps(settled.steps)
    start, end = (record["name"].values[k] for k in settled.read[[0, -1]])
    reason = (
        f"{rise.total:+.2f} decades of the {SUBJECTS[turns.direction]} from {start} to {end}, "
        f"{rise.rate:+.3f} in each of {rise.layers} turns that share {name}"
    )
    severity: Severity = "fault"
    if rise.total > 0:
        reason += f": its recurrence {times(10 ** (-rise.rate / 2))} times as large would keep it"
    elif turns.direction == "backward":
        severity = "note"
        reach = max(int(thresholds.FORGOTTEN / abs(rise.rate)), 1)
        reason += f": at first it learns from the last {reach} turns alone"
    verdict = Verdict.EXPLODING if rise.total > 0 else Verdict.VANISHING
    last = int(settled.sites[-1])
    yield site_finding(
        record,
        last,
        turns.direction,
        verdict,
        reason,
        parameter=name,
        rise=rise,
        severity=severity,
    )
