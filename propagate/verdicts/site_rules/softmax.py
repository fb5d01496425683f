"""The rule for weights of a softmax that are next to one-hot, as attention's without 1/sqrt(d)."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.spine import LAYERS
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Severity, Verdict
from propagate.verdicts.growth import times
from propagate.verdicts.site_rules.site_finding import site_finding


def one_hot(record: xr.Dataset) -> Iterator[Finding]:
    """Saturated: a softmax whose scores are spread so far that one of them takes all."""
    if "activation_entropy" not in record or "activation_score_sd" not in record:
        return
    entropy = record["activation_entropy"].values
    lowest = record.get("activation_lowest_entropy", record["activation_entropy"]).values
    for k in np.flatnonzero(np.isfinite(entropy)):
        if entropy[k] < thresholds.SHARP_ENTROPY:
            yield _finding(record, int(k), entropy[k], "", "fault")
        elif lowest[k] < thresholds.ONE_HOT_ENTROPY:
            yield _finding(record, int(k), lowest[k], " in one head", "note")


def _finding(record: xr.Dataset, k: int, entropy: float, where: str, how: Severity) -> Finding:
    name, spread = str(record["name"].values[k]), float(record["activation_score_sd"].values[k])
    weight, keys = "", int(record["units"].values[k])
    if "activation_largest_weight" in record and not where:
        largest = float(record["activation_largest_weight"].values[k])
        weight = f", and the largest weight {largest:.2f} on average"
    remedy = _remedy(record, _scores(record, k), spread)
    reason = (
        f"{name} is next to one-hot{where}: its entropy is {entropy:.0%} of that of equal weights"
        f"{weight}, so that a row draws on {times(keys**entropy)} of up to {keys} values (its "
        "perplexity) and learns little about the others. Its scores have standard deviation "
        f"{spread:.3g}{remedy}"
    )
    return site_finding(record, k, "forward", Verdict.SATURATED, reason, severity=how)


def _scores(record: xr.Dataset, k: int) -> int | None:
    """Return the last product before a softmax that has as many elements to a row."""
    kind, units, rows = (record[name].values for name in ("kind", "units", "rows"))
    same = np.isin(kind[:k], LAYERS) & (units[:k] == units[k]) & (rows[:k] == rows[k])
    before = np.flatnonzero(same)
    return int(before[-1]) if len(before) else None


def _remedy(record: xr.Dataset, product: int | None, spread: float) -> str:
    """Return what to scale, and by how much."""
    to_one = f"scale them by 1/{spread:.3g}" if math.isfinite(spread) and spread > 0 else "a scale"
    if product is None:
        return f": {to_one}"
    parameter = str(record["parameter"].values[product])
    if parameter:
        return f": scale the weights of {parameter} by 1/{spread:.3g}"
    summed = int(record["terms_summed"].values[product]) if "terms_summed" in record else 0
    size = 10 ** (float(record["log10_forward_q"].values[product]) / 2)
    unscaled = summed > 1 and spread > size * thresholds.UNSCALED_SHARE
    if unscaled and spread / math.sqrt(summed) < thresholds.SCALED_SPREAD:
        root = f"1/sqrt({summed})"
        return (
            f", as sums of {summed} products that are not divided by sqrt({summed}): scale them by "
            f"{root} = {1 / math.sqrt(summed):.3g}"
        )
    return f", though they are sums of {summed} products: {to_one}"
