"""`judge`: from a record to findings. Numbers first; their prose is a separate, pure function.

A verdict rests on the growth rate in decades per layer along the direction of travel, with a
confidence interval, times the depth; never on an absolute size.
"""

import json
import math
from collections.abc import Iterator
from typing import NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate.types import Direction
from propagate.verdicts import thresholds
from propagate.verdicts.departures import Departure, departures
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import Growth, growth, in_words


class _Expected(NamedTuple):
    """The growth that theory expects, or the layer at which a measurement leaves it."""

    growth: Growth
    departure: Departure | None

    def __str__(self) -> str:
        kept = f"within the band of theory, which expects {self.growth.rate:+.3f} per layer"
        return kept if self.departure is None else f"against theory, {self.departure}"


def expected(record: xr.Dataset, theory: xr.Dataset) -> dict[str, _Expected]:
    """Return what theory says of each direction in which it says something."""
    off = {one.direction: one for one in departures(record, theory)}
    found = {}
    for direction in get_args(Direction):
        name = f"log10_{direction}_q"
        if name in theory and np.isfinite(theory.get(f"{name}_sd", np.nan)).all():
            rise = growth(theory[name].values[None], direction)
            exact = rise._replace(low=rise.rate, high=rise.rate)
            found[direction] = _Expected(exact, off.get(direction))
    return found


class _Signals:
    """One pairing's variables as (seed, layer) arrays, or None where not measured."""

    def __init__(self, cell: xr.Dataset, dtype: str) -> None:
        self._cell = cell if "seed" in cell.dims else cell.expand_dims("seed")
        self.range = jnp.finfo(dtype)

    def __call__(self, name: str) -> np.ndarray | None:
        if name not in self._cell:
            return None
        return self._cell[name].transpose("seed", "layer").values


def pairings(record: xr.Dataset) -> Iterator[tuple[str, str, _Signals]]:
    """Yield initialiser, activation and variables of each pairing."""
    spec = json.loads(record.attrs.get("network", "{}"))
    dtype = record.attrs.get("dtype", "float32")
    for dim in ("init", "activation"):
        if dim not in record.coords:
            record = record.assign_coords({dim: spec.get(dim, "")})
        if dim not in record.dims:
            record = record.expand_dims(dim)
    q = record[next(f"log10_{d}_q" for d in get_args(Direction) if f"log10_{d}_q" in record)]
    for init in record["init"].values:
        for phi in record["activation"].values:
            cell = {"init": init, "activation": phi}
            measured = q.sel(cell).notnull().any("layer")  # an interrupted sweep has gaps
            if measured.any():
                own = record.sel(cell)
                own = own.isel(seed=measured.values) if "seed" in own.dims else own
                yield str(init), str(phi), _Signals(own, dtype)


def judge_pairing(
    signals: _Signals, init: str, phi: str, direction: Direction, expected: _Expected | None
) -> Finding:
    """Return the verdict on one pairing in one direction."""
    log_q = signals(f"log10_{direction}_q")
    assert log_q is not None
    depth = log_q.shape[1] - 1
    rise = growth(log_q, direction)
    if expected is not None and expected.departure is None:
        rise = expected.growth
    for test in (_lost, _grown, _collapsed, _alike_tokens, _saturated):
        found = test(signals, direction, log_q, rise, depth)
        if found is not None:
            break
    else:
        reason = f"{in_words(rise)}, {rise.total:+.2f} decades in all"
        found = _Found(Verdict.STABLE, None, reason)
    verdict, layer, reason, own = found
    reason = reason if expected is None else f"{reason}; {expected}"
    rise = own or rise
    fine = thresholds.FINE_DECADES / abs(rise.rate) if rise.rate else math.inf
    interval = (rise.low, rise.high)
    return Finding(
        init, phi, direction, verdict, rise.rate, interval, rise.total, fine, layer, reason
    )


class _Found(NamedTuple):
    verdict: Verdict
    layer: int | None
    reason: str
    growth: Growth | None = None  # of what the verdict rests on, if not the second moment


def _lost(
    signals: _Signals, direction: Direction, log_q: np.ndarray, rise: Growth, depth: int
) -> _Found | None:
    """Symmetric, overflowed or dead: what cannot be read off a growth rate."""
    if _symmetric(signals):
        gone = np.isneginf(log_q[:, -1 if direction == "forward" else 0]).all()
        what = {"forward": "signals", "backward": "gradients"}[direction]
        fate = f"its {what} are exactly zero" if gone else f"its {what} are those of one unit"
        return _Found(Verdict.SYMMETRIC, 1, f"the units of every layer are identical; {fate}")
    bad = np.flatnonzero(~np.isfinite(log_q).all(axis=0))
    if not len(bad):
        return None
    layer = int(bad[0] if direction == "forward" else bad[-1])
    values = log_q[:, layer]
    lost = values[~np.isfinite(values)]
    since = f"from layer {layer} on" + _in_seeds(log_q)
    if not np.isneginf(lost).all():
        return _Found(Verdict.OVERFLOWED, layer, f"not finite {since}{_until(rise)}")
    if direction == "forward" and _underflowed(signals, log_q[:, :layer], rise):
        reason = f"below the dtype's range {since}{_until(rise)}"
        return _Found(Verdict.VANISHING, layer, reason)
    return _Found(Verdict.DEAD, layer, f"exactly zero {since}")


def _in_seeds(log_q: np.ndarray) -> str:
    lost = int((~np.isfinite(log_q)).any(axis=1).sum())
    return "" if lost == len(log_q) else f" in {lost} of {len(log_q)} seeds"


def _symmetric(signals: _Signals) -> bool:
    """Whether all units of every layer agree although the activations are alive."""
    twins, active = signals("forward_symmetric_fraction"), signals("log10_activation_q")
    if twins is None or (active is not None and np.isneginf(active[:, 0]).all()):
        return False
    known = twins[:, 1:][~np.isnan(twins[:, 1:])]  # a layer of one unit has none to compare
    return known.size > 0 and bool((known >= thresholds.SYMMETRIC).all())


def _underflowed(signals: _Signals, before: np.ndarray, rise: Growth) -> bool:
    """Whether a zero came about by shrinking below the smallest normal number."""
    if not before.shape[1]:
        return False
    smallest = math.log10(float(signals.range.tiny)) + thresholds.UNDERFLOW_MARGIN
    step = 0.0 if math.isnan(rise.rate) else rise.rate
    return bool(np.median(before[:, -1] + step) / 2 < smallest)


def _until(rise: Growth) -> str:
    return "" if math.isnan(rise.rate) else f"; until then {in_words(rise)}"


def _grown(
    signals: _Signals, direction: Direction, log_q: np.ndarray, rise: Growth, depth: int
) -> _Found | None:
    """Vanishing, exploding or inconclusive: the rate times the depth against what is fine."""
    limit = thresholds.FINE_DECADES / max(depth, 1)
    numbers = f"{in_words(rise)}, {rise.total:+.2f} decades in all{_range_left(signals, direction)}"
    if rise.high < -limit:
        return _Found(Verdict.VANISHING, None, numbers)
    if rise.low > limit:
        return _Found(Verdict.EXPLODING, None, numbers)
    if -limit <= rise.low and rise.high <= limit:
        return None
    return _Found(
        Verdict.INCONCLUSIVE, None, f"{in_words(rise)} does not settle it at ±{limit:.3f}"
    )


def _range_left(signals: _Signals, direction: Direction) -> str:
    """Say where plain arithmetic would have left the dtype's range, if it would have."""
    largest = signals("log10_forward_max")
    if direction != "forward" or largest is None:
        return ""
    low, high = (math.log10(float(v)) for v in (signals.range.tiny, signals.range.max))
    out = np.flatnonzero(((largest > high) | (largest < low)).any(axis=0))
    return f"; plain {signals.range.dtype} is left at layer {out[0]}" if len(out) else ""


def _collapsed(
    signals: _Signals, direction: Direction, log_q: np.ndarray, rise: Growth, depth: int
) -> _Found | None:
    """Collapsing: variance over inputs dies while the second moment lives."""
    variance = signals("log10_forward_variance")
    if direction != "forward" or variance is None:
        return None
    share = variance - log_q
    if np.isneginf(share[:, 0]).all():
        return None  # one input, or the same one many times
    floor = 2 * math.log10(float(signals.range.eps)) + thresholds.COLLAPSE_MARGIN
    lost = np.flatnonzero(~(share > floor).all(axis=0))
    followed = share[:, : lost[0]] if len(lost) else share
    fall = growth(followed, "forward")
    limit = thresholds.FINE_DECADES / max(depth, 1)
    if not len(lost) and not fall.high < -limit:
        return None
    layer = int(lost[0]) if len(lost) else None
    reason = (
        f"the share of the second moment that tells inputs apart goes {in_words(fall)}, "
        f"while q stays at 10^{np.median(log_q[:, -1]):.2f}"
    )
    return _Found(Verdict.COLLAPSING, layer, reason, fall)


def _alike_tokens(
    signals: _Signals, direction: Direction, log_q: np.ndarray, rise: Growth, depth: int
) -> _Found | None:
    """Collapsing: the positions of an input become alike, and stay so."""
    cosine = signals("forward_token_correlation")
    if direction != "forward" or cosine is None:
        return None
    apart = np.flatnonzero((cosine < thresholds.ALIKE).any(axis=0))
    if not len(apart) or apart[-1] == depth:
        return None
    layer = int(apart[-1]) + 1
    seen = f"{cosine[:, layer].mean():.3f} at layer {layer}"
    reason = f"the mean cosine between positions of an input is {seen}, and stays so"
    return _Found(Verdict.COLLAPSING, layer, reason)


def _saturated(
    signals: _Signals, direction: Direction, log_q: np.ndarray, rise: Growth, depth: int
) -> _Found | None:
    """Saturated: most units sit where the activation is flat."""
    flat = signals("activation_saturated_fraction")
    if direction != "forward" or flat is None or depth < 2:
        return None
    share = float(np.nanmean(flat[:, 1:-1]))
    if share < thresholds.SATURATED:
        return None
    return _Found(Verdict.SATURATED, None, f"{share:.0%} of the units have almost no slope")
