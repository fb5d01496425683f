"""The rules for inputs, or positions of an input, that become indistinguishable."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.spine import spine
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import growth, in_words
from propagate.verdicts.site_rules.peers import outliers
from propagate.verdicts.site_rules.site_finding import site_finding


def alike(record: xr.Dataset) -> list[Finding]:
    """Collapsing: the inputs become indistinguishable, by direction or else by variance."""
    return list(parallel(record)) or list(collapsed(record))


def parallel(record: xr.Dataset) -> Iterator[Finding]:
    r"""Collapsing: along the spine the inputs' signals become parallel, whatever their norms.

    The share of the directions that is not common to all is $1 - 1/r$, with r the effective rank.
    """
    chain = spine(record)
    if "forward_effective_rank" not in chain or "forward_correlation" not in chain:
        return
    rank = chain["forward_effective_rank"].values
    at = np.flatnonzero(np.isfinite(rank))
    chain, rank = chain.isel(site=at), rank[at]
    apart = np.log10(np.maximum(1 - 1 / np.maximum(rank, 1), np.finfo(np.float32).eps))
    close = apart < -thresholds.PARALLEL_DECADES
    if len(at) <= thresholds.PEERS or close[0] or not close[-2:].all():
        return
    k = int(np.flatnonzero(~close)[-1]) + 1
    first, site, last = (str(chain["name"].values[i]) for i in (0, k, -1))
    cosine = float(np.abs(chain["forward_correlation"].values[-1]))
    fine = int(np.flatnonzero(apart < -thresholds.FINE_DECADES)[0])
    reason = (
        f"the inputs' signals become parallel: from {first} to {last} their effective rank goes "
        f"from {rank[0]:.2f} to {rank[-1]:.4f} and their mean cosine to {cosine:.4f}; from {site} "
        f"on less than {10**-thresholds.PARALLEL_DECADES:.2%} of it tells them apart. A residual "
        f"connection around each layer, a normalisation across inputs (PairNorm), or at most "
        f"{max(fine, 1)} layers keep them apart"
    )
    number = int(chain["site"].values[k])
    yield site_finding(record, number, "forward", Verdict.COLLAPSING, reason)


def collapsed(record: xr.Dataset) -> Iterator[Finding]:
    """Collapsing: along the spine the inputs become indistinguishable."""
    chain = spine(record)
    if "log10_forward_variance" not in chain or chain.sizes["site"] <= thresholds.PEERS:
        return
    share = (chain["log10_forward_variance"] - chain["log10_forward_q"]).values
    share = np.where(np.isneginf(chain["log10_forward_q"].values), math.nan, share)
    share = share[np.isfinite(share)]
    if len(share) <= thresholds.PEERS:
        return
    fall = growth(_without_steps(share)[None], "forward")
    if fall.high < -thresholds.FINE_DECADES / (len(share) - 1):
        reason = f"the share of the second moment that tells inputs apart goes {in_words(fall)}"
        last = int(chain["site"].values[-1])
        yield site_finding(record, last, "forward", Verdict.COLLAPSING, reason, rise=fall)


def alike_tokens(record: xr.Dataset) -> Iterator[Finding]:
    """Collapsing: attention makes the positions of an input alike."""
    attention = (record["kind"].values == "matmul") & (record["parameter"].values == "")
    if "forward_token_correlation" not in record or not attention.any():
        return
    chain = spine(record)
    cosine = chain["forward_token_correlation"].values
    close = np.flatnonzero(cosine >= thresholds.ALIKE)
    if len(close) and np.isfinite(cosine[0]) and close[0] > 0:
        k = int(chain["site"].values[close[0]])
        reason = f"the mean cosine between positions of an input is {cosine[close[0]]:.3f}"
        if "forward_token_effective_rank" in record:
            rank = chain["forward_token_effective_rank"].values
            reason += f", their effective rank {rank[close[0]]:.3f}, {rank[0]:.2f} at the start"
        yield site_finding(record, k, "forward", Verdict.COLLAPSING, reason)


def _without_steps(values: np.ndarray) -> np.ndarray:
    """Take out single steps that are out of line: they are findings of their own, not growth."""
    steps = np.diff(values)
    for k, off in outliers(steps):
        steps[k] -= off
    return np.concatenate([values[:1], values[0] + np.cumsum(steps)])
