"""The rules for inputs, or positions of an input, that become indistinguishable."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.spine import spine
from propagate.verdicts import thresholds
from propagate.verdicts.directions import apart, parallel_from, places_apart
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import growth, in_words
from propagate.verdicts.site_rules.peers import outliers
from propagate.verdicts.site_rules.site_finding import site_finding

FINE = thresholds.FINE_DECADES


def alike(record: xr.Dataset) -> list[Finding]:
    """Collapsing: the inputs become indistinguishable, by direction or else by variance."""
    return list(parallel(record)) or list(collapsed(record))


def parallel(record: xr.Dataset) -> Iterator[Finding]:
    """Collapsing: along the spine the inputs' signals become parallel, whatever their norms."""
    chain = spine(record)
    if "forward_effective_rank" not in chain or "forward_correlation" not in chain:
        return
    chain, share = _with_rank(chain, "forward_effective_rank")
    k = parallel_from(share)
    if len(share) <= thresholds.PEERS or k is None or k > len(share) - 2:
        return
    first, site, last = (str(chain["name"].values[i]) for i in (0, k, -1))
    rank = chain["forward_effective_rank"].values
    cosine = float(np.abs(chain["forward_correlation"].values[-1]))
    reason = (
        f"the inputs' signals become parallel: from {first} to {last} their effective rank goes "
        f"from {rank[0]:.2f} to {rank[-1]:.4f} and their mean cosine to {cosine:.4f}; from {site} "
        f"on less than {10**-thresholds.PARALLEL_DECADES:.2%} of it tells them apart. A residual "
        f"connection around each layer, a normalisation across inputs (PairNorm), or at most "
        f"{max(places_apart(share), 1)} layers keep them apart"
    )
    number = int(chain["site"].values[k])
    yield site_finding(record, number, "forward", Verdict.COLLAPSING, reason)


def _with_rank(chain: xr.Dataset, name: str) -> tuple[xr.Dataset, np.ndarray]:
    """Return the sites that have an effective rank, and the share of directions not common."""
    known = chain.isel(site=np.flatnonzero(chain[name].notnull().values))
    return known, apart(known[name].values)


def collapsed(record: xr.Dataset) -> Iterator[Finding]:
    """Collapsing: along the spine the inputs become indistinguishable."""
    chain = spine(record)
    if "log10_forward_variance" not in chain or chain.sizes["site"] <= thresholds.PEERS:
        return
    share = (chain["log10_forward_variance"] - chain["log10_forward_q"]).values
    share = np.where(np.isneginf(chain["log10_forward_q"].values), math.nan, share)
    known = np.isfinite(share)
    share, names = share[known], chain["name"].values[known]
    if len(share) <= thresholds.PEERS:
        return
    fall = growth(_without_steps(share)[None], "forward")
    if fall.high < -thresholds.FINE_DECADES / (len(share) - 1):
        first, last, least = (f"{10**decades:.2g}" for decades in (*share[[0, -1]], -FINE))
        reason = (
            f"the share of the second moment that tells inputs apart goes {in_words(fall)}, from "
            f"{first} at {names[0]} to {last} at {names[-1]}; larger weights beside smaller "
            f"biases, or at most {max(int(FINE / -fall.rate), 1)} layers, keep it above {least}"
        )
        end = int(chain["site"].values[-1])
        yield site_finding(record, end, "forward", Verdict.COLLAPSING, reason, rise=fall)


def alike_tokens(record: xr.Dataset) -> Iterator[Finding]:
    """Collapsing: attention makes the positions of an input alike, and nothing parts them again.

    A direction that all have in common is not enough: their effective rank has to fall, too.
    """
    attention = (record["kind"].values == "matmul") & (record["parameter"].values == "")
    if "forward_token_correlation" not in record or not attention.any():
        return
    chain = spine(record)
    chain = chain.isel(site=np.flatnonzero(chain["forward_token_correlation"].notnull().values))
    cosine = chain["forward_token_correlation"].values
    different = np.flatnonzero(cosine < thresholds.ALIKE)
    if not len(different) or different[0] > 0 or different[-1] == len(cosine) - 1:
        return
    k = int(different[-1]) + 1
    reason = f"the mean cosine between positions of an input is {cosine[k]:.3f} and stays so"
    if "forward_token_effective_rank" in chain:
        ranked, share = _with_rank(chain, "forward_token_effective_rank")
        if parallel_from(share) is None:
            return
        rank = ranked["forward_token_effective_rank"].values
        reason += (
            f": from {ranked['name'].values[0]} to {ranked['name'].values[-1]} their effective "
            f"rank goes from {rank[0]:.2f} to {rank[-1]:.4f}"
        )
    number = int(chain["site"].values[k])
    reason += "; a skip connection around attention, from its input to its output, keeps them apart"
    yield site_finding(record, number, "forward", Verdict.COLLAPSING, reason)


def _without_steps(values: np.ndarray) -> np.ndarray:
    """Take out single steps that are out of line: they are findings of their own, not growth."""
    steps = np.diff(values)
    for k, off in outliers(steps):
        steps[k] -= off
    return np.concatenate([values[:1], values[0] + np.cumsum(steps)])
