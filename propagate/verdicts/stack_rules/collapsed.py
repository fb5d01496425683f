"""The rules for inputs, or positions of an input, that become indistinguishable."""

import math

import numpy as np

from propagate.verdicts import thresholds
from propagate.verdicts.directions import apart, parallel_from, places_apart
from propagate.verdicts.findings import Verdict
from propagate.verdicts.growth import Growth, growth, in_words
from propagate.verdicts.stack_rules.case import Answer, Case


def collapsed(case: Case) -> Answer | None:
    """Collapsing: the variance over inputs vanishes while the second moment does not."""
    variance = case.pairing.values("log10_forward_variance")
    if variance is None:
        return None
    share = variance - case.log_q
    if np.isneginf(share[:, 0]).all():
        return None  # one input, or the same one many times
    floor = 2 * math.log10(float(case.pairing.range.eps)) + thresholds.COLLAPSE_MARGIN
    lost = np.flatnonzero(~(share > floor).all(axis=0))
    followed = share[:, : lost[0]] if len(lost) else share
    fall = growth(followed, "forward")
    if not len(lost) and not fall.high < -case.fine_rate:
        return None
    layer = int(lost[0]) if len(lost) else None
    goes = f"is zero from layer {layer} on" if math.isnan(fall.rate) else f"goes {in_words(fall)}"
    reason = (
        f"the share of the second moment that tells inputs apart {goes}, while q "
        f"stays at 10^{np.median(case.log_q[:, -1]):.2f}{_rank(case, INPUTS)}"
    )
    return Answer(Verdict.COLLAPSING, layer, reason, fall)


def parallel(case: Case) -> Answer | None:
    """Collapsing: the inputs' signals become parallel, though their norms may differ."""
    share = _apart(case, INPUTS)
    start = None if share is None else parallel_from(share)
    if share is None or start is None or start > len(share) - 2:
        return None
    reason = (
        f"the inputs' signals become parallel{_rank(case, INPUTS)}; from layer {start} on less "
        f"than {10**-thresholds.PARALLEL_DECADES:.2%} of it tells them apart, however their norms "
        "differ"
    )
    remedy = f"a skip connection past each layer, or at most {_most_layers(share)}"
    return Answer(Verdict.COLLAPSING, start, reason, _fall(case, INPUTS, start), remedy)


def alike_tokens(case: Case) -> Answer | None:
    """Collapsing: the positions of an input become alike, and stay so.

    What they have in common may be large, and their difference beside it, too: where the effective
    rank was measured, it has to fall as far as that of inputs.
    """
    cosine, share = case.pairing.values("forward_token_correlation"), _apart(case, TOKENS)
    if cosine is None or (share is not None and parallel_from(share) is None):
        return None
    different = np.flatnonzero((cosine < thresholds.ALIKE).any(axis=0))
    if not len(different) or different[-1] == cosine.shape[1] - 1:
        return None
    layer = int(different[-1]) + 1
    seen = f"{cosine[:, layer].mean():.3f} at layer {layer}"
    reason = f"the mean cosine between positions of an input is {seen}, and stays so"
    remedy = "a skip connection past attention, or a smaller share of it"
    if share is not None:
        remedy += f", or at most {_most_layers(share)}"
    reason += _rank(case, TOKENS)
    return Answer(Verdict.COLLAPSING, layer, reason, _fall(case, TOKENS, layer), remedy)


INPUTS, TOKENS = "forward_effective_rank", "forward_token_effective_rank"


def _most_layers(share: np.ndarray) -> str:
    most = max(places_apart(share) - 1, 1)  # the first place is the input
    return f"{most} layer{'s' * (most > 1)}"


def _apart(case: Case, name: str) -> np.ndarray | None:
    """Return the largest share of directions that are not common, of any seed, by layer."""
    rank = case.pairing.values(name)
    return None if rank is None or np.isnan(rank).any() else apart(rank).max(axis=0)


def _fall(case: Case, name: str, layer: int) -> Growth:
    """Return how fast the share of directions that is not common falls, until a layer.

    Of tokens whose rank was not measured, of 1 less their mean cosine.
    """
    rank = case.pairing.values(name)
    if rank is None:
        cosine = case.pairing.values("forward_token_correlation")
        assert cosine is not None, "what is told to collapse was measured"
        share = np.log10(np.maximum(1 - cosine, float(case.pairing.range.eps)))
    else:
        share = apart(rank)
    return growth(share[:, : layer + 1], "forward")


def _rank(case: Case, name: str) -> str:
    """Say how an effective rank changes from the first layer to the last, if it was measured."""
    rank = case.pairing.values(name)
    if rank is None or np.isnan(rank[:, [0, -1]]).any():
        return ""
    first, last = rank[:, 0].mean(), rank[:, -1].mean()
    return f"; their effective rank goes from {first:.2f} to {last:.4f}"
