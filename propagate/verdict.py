"""`judge`: from a record to findings. Numbers first; their prose is a separate, pure function.

A verdict rests on the growth rate in decades per layer along the direction of travel, with a
confidence interval, times the depth; never on an absolute size.
"""

import enum
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate import thresholds
from propagate.types import Direction, UnusableInput


class Verdict(enum.Enum):
    """What becomes of a signal; each member carries its cause and the usual remedy."""

    OVERFLOWED = "overflowed", "values left the range of the dtype", "a smaller scale"
    SYMMETRIC = "symmetric", "all units of a layer are the same", "random weights"
    DEAD = (
        "dead",
        "the signal is exactly zero",
        "a larger scale, or an activation without a flat side",
    )
    EXPLODING = "exploding", "each layer multiplies the signal", "a smaller scale, near criticality"
    VANISHING = "vanishing", "each layer shrinks the signal", "a larger scale, near criticality"
    COLLAPSING = "collapsing", "inputs become indistinguishable", "a larger scale, smaller biases"
    SATURATED = "saturated", "most units sit where the activation is flat", "a smaller scale"
    INCONCLUSIVE = "inconclusive", "the interval of the rate is too wide", "more seeds or width"
    STABLE = "stable", "the signal keeps its size", "none needed"

    def __new__(cls, value: str, cause: str, remedy: str) -> "Verdict":
        """Make a member whose value is its word."""
        member = object.__new__(cls)
        member._value_ = value
        return member

    def __init__(self, value: str, cause: str, remedy: str) -> None:
        self.cause = cause
        self.remedy = remedy


class Growth(NamedTuple):
    """How a second moment changes along its way.

    Attributes:
        rate: decades per layer, once settled.
        low: lower end of the rate's interval.
        high: upper end.
        total: decades over the layers that could be followed.
        layers: how many layers these were.
    """

    rate: float
    low: float
    high: float
    total: float
    layers: int


@dataclass(frozen=True)
class Finding:
    """The verdict on one pairing in one direction, with its numbers.

    Attributes:
        init: the initialiser's name.
        activation: the activation's name.
        direction: `"forward"` or `"backward"`.
        verdict: what becomes of the signal.
        rate: decades per layer, along the direction of travel, of the second moment; where the
            verdict is collapsing, of the share of it that is variance over inputs.
        interval: of the rate, at the level `thresholds.CONFIDENCE`.
        total: decades over the depth, or over the layers until the signal is lost.
        fine_depth: the largest depth at which this rate would still be fine; inf if it is zero.
        layer: the layer at which the signal is lost, or None.
        reason: the evidence, in words.
    """

    init: str
    activation: str
    direction: Direction
    verdict: Verdict
    rate: float
    interval: tuple[float, float]
    total: float
    fine_depth: float
    layer: int | None
    reason: str

    def __str__(self) -> str:
        """Return the finding as a sentence."""
        pairing = f"{self.init} + {self.activation}, {self.direction}"
        return f"{pairing}: {self.verdict.value} ({self.reason})"


class Findings(tuple[Finding, ...]):
    """Findings, two for each pairing; prints as sentences, worst first."""

    def __str__(self) -> str:
        """Return one line for each finding."""
        return "\n".join(map(str, self.worst_first()))

    def worst_first(self) -> "Findings":
        """Return the findings in order of verdict, then of growth."""
        order = list(Verdict)
        key = lambda f: (order.index(f.verdict), -abs(np.nan_to_num(f.rate)))  # noqa: E731
        return Findings(sorted(self, key=key))

    def suited(self) -> dict[str, list[str]]:
        """Return the initialisers stable in both directions for each activation, best first."""
        pairs: dict[tuple[str, str], list[Finding]] = {}
        for f in self:
            pairs.setdefault((f.activation, f.init), []).append(f)
        suited: dict[str, list[tuple[float, str]]] = {f.activation: [] for f in self}
        for (phi, init), own in pairs.items():
            stable = {f.verdict for f in own} == {Verdict.STABLE}
            if stable and len(own) == len(get_args(Direction)):
                suited[phi].append((max(abs(f.rate) for f in own), init))
        return {
            phi: [i for _, i in sorted(inits, key=lambda x: x[0])] for phi, inits in suited.items()
        }


def judge(record: xr.Dataset) -> Findings:
    """Judge every pairing of a record, in both directions.

    Args:
        record: of `measure` or `sweep`; `q` in a direction is needed to judge it. With
            `variance`, `symmetric_fraction`, `saturated_fraction` and `max` more is seen.

    Returns:
        Two findings for each pairing: forward, backward.

    Raises:
        UnusableInput: the record has no second moments.

    Example:
        >>> decay = np.outer(np.ones(3), -0.5 * np.arange(21))
        >>> record = xr.Dataset({"log10_forward_q": (("seed", "layer"), decay)})
        >>> judge(record)[0].verdict.value, judge(record)[0].rate
        ('vanishing', -0.5)
    """
    directions = [d for d in get_args(Direction) if f"log10_{d}_q" in record]
    if "layer" not in record.dims or not directions:
        raise UnusableInput(
            "judge needs a record with dim 'layer' and log10_forward_q or log10_backward_q, "
            f"got variables {', '.join(map(str, record.data_vars)) or 'none'}"
        )
    return Findings(
        _judge(signals, init, phi, direction)
        for init, phi, signals in _pairings(record)
        for direction in directions
    )


class _Signals:
    """One pairing's variables as (seed, layer) arrays, or None where not measured."""

    def __init__(self, cell: xr.Dataset, dtype: str) -> None:
        self._cell = cell if "seed" in cell.dims else cell.expand_dims("seed")
        self.range = jnp.finfo(dtype)

    def __call__(self, name: str) -> np.ndarray | None:
        if name not in self._cell:
            return None
        return self._cell[name].transpose("seed", "layer").values


def _pairings(record: xr.Dataset) -> Iterator[tuple[str, str, _Signals]]:
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


def _judge(signals: _Signals, init: str, phi: str, direction: Direction) -> Finding:
    log_q = signals(f"log10_{direction}_q")
    assert log_q is not None
    depth = log_q.shape[1] - 1
    rise = growth(log_q, direction)
    for test in (_lost, _grown, _collapsed, _saturated):
        found = test(signals, direction, log_q, rise, depth)
        if found is not None:
            break
    else:
        reason = f"{_rate(rise)}, {rise.total:+.2f} decades in all"
        found = _Found(Verdict.STABLE, None, reason)
    verdict, layer, reason, own = found
    rise = own or rise
    fine = thresholds.FINE_DECADES / abs(rise.rate) if rise.rate else math.inf
    interval = (rise.low, rise.high)
    return Finding(
        init, phi, direction, verdict, rise.rate, interval, rise.total, fine, layer, reason
    )


def growth(log_q: np.ndarray, direction: Direction) -> Growth:
    r"""Return how log10 q, of shape (seed, layer 0 … L), grows per layer in order of travel.

    Per seed the rate is the difference between the ends of the settled layers, L/4 … L, over
    their number; its mean over seeds has a Student-t interval. The first quarter is left out in
    both directions: the gradient's factor there is that of a forward signal still in transit.
    If the signal is lost on the way, only the layers until then count. NaN where fewer than two
    layers can be followed.
    """
    onward = 1 if direction == "forward" else -1
    travelled = log_q[:, ::onward]
    lost = np.flatnonzero(~np.isfinite(travelled).all(axis=0))
    count = int(lost[0]) if lost.size else travelled.shape[1]
    if count < 2:
        return Growth(math.nan, math.nan, math.nan, math.nan, max(count - 1, 0))
    followed = travelled[:, :count]
    skipped = min(math.ceil(thresholds.SETTLED_FROM * (count - 1)), count - 2)
    settled = followed[:, skipped:] if direction == "forward" else followed[:, : count - skipped]
    samples = (settled[:, -1] - settled[:, 0]) / (settled.shape[1] - 1)
    rate = float(samples.mean())
    if len(samples) < thresholds.ENOUGH_SEEDS:
        samples = np.diff(settled).ravel()
    half = _half_width(samples)
    total = float((followed[:, -1] - followed[:, 0]).mean())
    return Growth(rate, rate - half, rate + half, total, count - 1)


def _half_width(samples: np.ndarray) -> float:
    from scipy.special import stdtrit  # a tenth of the time of `import propagate`

    if len(samples) < 2:
        return math.inf
    t = stdtrit(len(samples) - 1, (1 + thresholds.CONFIDENCE) / 2)
    return float(t * samples.std(ddof=1) / math.sqrt(len(samples)))


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
    return "" if math.isnan(rise.rate) else f"; until then {_rate(rise)}"


def _grown(
    signals: _Signals, direction: Direction, log_q: np.ndarray, rise: Growth, depth: int
) -> _Found | None:
    """Vanishing, exploding or inconclusive: the rate times the depth against what is fine."""
    limit = thresholds.FINE_DECADES / max(depth, 1)
    numbers = f"{_rate(rise)}, {rise.total:+.2f} decades in all{_range_left(signals, direction)}"
    if rise.high < -limit:
        return _Found(Verdict.VANISHING, None, numbers)
    if rise.low > limit:
        return _Found(Verdict.EXPLODING, None, numbers)
    if -limit <= rise.low and rise.high <= limit:
        return None
    return _Found(Verdict.INCONCLUSIVE, None, f"{_rate(rise)} does not settle it at ±{limit:.3f}")


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
        f"the share of the second moment that tells inputs apart goes {_rate(fall)}, "
        f"while q stays at 10^{np.median(log_q[:, -1]):.2f}"
    )
    return _Found(Verdict.COLLAPSING, layer, reason, fall)


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


def _rate(rise: Growth) -> str:
    half = (rise.high - rise.low) / 2
    return f"{rise.rate:+.3f} ± {half:.3f} decades per layer"
