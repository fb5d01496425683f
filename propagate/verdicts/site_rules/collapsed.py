"""The rules for inputs, or positions of an input, that become indistinguishable."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.spine import spine
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import growth, in_words
from propagate.verdicts.site_rules.peers import without_steps
from propagate.verdicts.site_rules.site_finding import site_finding


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
    fall = growth(without_steps(share)[None], "forward")
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
    alike = np.flatnonzero(cosine >= thresholds.ALIKE)
    if len(alike) and np.isfinite(cosine[0]) and alike[0] > 0:
        k = int(chain["site"].values[alike[0]])
        reason = f"the mean cosine between positions of an input is {cosine[alike[0]]:.3f}"
        yield site_finding(record, k, "forward", Verdict.COLLAPSING, reason)
