"""The rules for a custom model: from a record with dim `site` to what is wrong, and where.

Growth is judged along the spine: the additions that make a residual stream, or else the layers with
parameters. Healthy models get no finding.
"""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.dataset import measured_directions, second_moment
from propagate.record.spine import LAYERS, spine
from propagate.types import Direction, UnusableInput
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Findings, Verdict
from propagate.verdicts.growth import growth, in_words
from propagate.verdicts.peer_rules import odd_branches, odd_steps, odd_weights, without_steps
from propagate.verdicts.site_finding import site_finding


def judge_sites(record: xr.Dataset) -> Findings:
    """Return what is wrong with the model that a record of `diagnose` is of.

    Raises:
        UnusableInput: the record has no second moments.
    """
    if "log10_forward_q" not in record or "kind" not in record:
        raise UnusableInput(
            "judge needs a record of diagnose with kind and log10_forward_q, got variables "
            f"{', '.join(map(str, record.data_vars)) or 'none'}"
        )
    lost = [*_not_finite(record), *(list(_dead(record)) or _silent(record))]
    odd = [*odd_weights(record), *odd_branches(record)]
    odd += odd_steps(record, {f.parameter for f in (*lost, *odd)})
    grown = [] if lost else [f for d in measured_directions(record) for f in _grown(record, d)]
    rest = [*_collapsed(record), *_alike_tokens(record), *_saturated(record)]
    rest += [] if lost else _untrained(record)
    return Findings([*lost, *odd, *grown, *rest, *_constant(record)])


def _not_finite(record: xr.Dataset) -> Iterator[Finding]:
    """Overflowed: the first site, in the direction of travel, whose values are not finite."""
    q = record["log10_forward_q"].values
    bad = np.flatnonzero(record["taken"].values & (np.isnan(q) | (q == math.inf)))
    if len(bad):
        reason = f"values are not finite from {record['name'].values[bad[0]]} on"
        yield site_finding(record, int(bad[0]), "forward", Verdict.OVERFLOWED, reason)


def _dead(record: xr.Dataset) -> Iterator[Finding]:
    """Dead: an activation nearly all of whose channels are zero, though its input is not."""
    if "activation_dead_fraction" not in record:
        return
    share = record["activation_dead_fraction"].values
    enough = record["rows"].values >= thresholds.DEAD_ROWS
    found = np.flatnonzero((share >= thresholds.DEAD) & enough)
    q, depth = record["log10_forward_q"].values, record["depth"].values
    for k in found:
        made = np.flatnonzero(depth[:k] == depth[k])
        if any(np.isneginf(q[j]) for j in made):
            continue  # what came into it was zero already
        phi = record["label"].values[k]
        reason = f"{share[k]:.0%} of the channels of {phi} are zero for every input"
        yield site_finding(record, int(k), "forward", Verdict.DEAD, reason)


def _silent(record: xr.Dataset) -> Iterator[Finding]:
    """Dead: the first layer whose output is all zero, with another layer behind it."""
    q, depth = record["log10_forward_q"].values, record["depth"].values
    kind, taken = record["kind"].values, record["taken"].values
    main = taken & (np.isin(kind, (*LAYERS, "embedding", "activation", "norm", "add")))
    made = np.isin(kind, LAYERS) & (record["parameter"].values != "") & taken
    for k in np.flatnonzero(made & np.isneginf(q)):
        beside, after = main & (depth == depth[k]), made & (depth == depth[k] + 1)
        if after.any() and np.isneginf(q[beside]).all():
            reason = (
                f"its output is exactly zero: nothing reaches {record['name'].values[after][0]}"
            )
            yield site_finding(record, int(k), "forward", Verdict.DEAD, reason)
            return


def _grown(record: xr.Dataset, direction: Direction) -> Iterator[Finding]:
    """Vanishing or exploding: growth along the spine times its length against what is fine."""
    chain = spine(record)
    chain = chain.isel(site=np.isfinite(second_moment(chain, direction).values))
    layers = chain.sizes["site"] - 1
    if layers < thresholds.PEERS:
        return
    rise = growth(without_steps(second_moment(chain, direction).values)[None], direction)
    limit = thresholds.FINE_DECADES / layers
    if rise.high < -limit:
        verdict = Verdict.VANISHING
    elif rise.low > limit:
        verdict = Verdict.EXPLODING
    else:
        return
    stream = "residual stream" if (chain["kind"] == "add").all() else "layers"
    reason = f"{in_words(rise)}, {rise.total:+.2f} decades along {layers + 1} {stream}"
    last = int(chain["site"].values[-1 if direction == "forward" else 0])
    yield site_finding(record, last, direction, verdict, reason, rise=rise)


def _collapsed(record: xr.Dataset) -> Iterator[Finding]:
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


def _alike_tokens(record: xr.Dataset) -> Iterator[Finding]:
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


def _saturated(record: xr.Dataset) -> Iterator[Finding]:
    """Saturated: an activation most of whose inputs lie where it is flat."""
    if "activation_saturated_fraction" not in record:
        return
    share = record["activation_saturated_fraction"].values
    bounded = np.isin(record["label"].values, thresholds.BOUNDED)
    for k in np.flatnonzero(bounded & (share >= thresholds.SATURATED)):
        reason = f"{share[k]:.0%} of the inputs of {record['label'].values[k]} have almost no slope"
        yield site_finding(record, int(k), "forward", Verdict.SATURATED, reason)


def _untrained(record: xr.Dataset) -> list[Finding]:
    """Untrained: parameters whose gradient is exactly zero, unless that is intended."""
    if _zero_gates(record) or "log10_gradient_q" not in record:
        return []
    names = record["weight"].values[np.isneginf(record["log10_gradient_q"].values)]
    reason = "its gradient is exactly zero"
    return [
        site_finding(record, None, "backward", Verdict.UNTRAINED, reason, parameter=str(name))
        for name in names
    ]


def _zero_gates(record: xr.Dataset) -> tuple[str, ...]:
    """Return the parameters that are zero at initialisation and learn, as ReZero's scales do.

    Until they have moved no gradient passes them, which is intended.
    """
    if "log10_gradient_q" not in record:
        return ()
    zero = np.isneginf(record["log10_weight_q"].values)
    learns = np.isfinite(record["log10_gradient_q"].values)
    names = [str(name) for name in record["weight"].values]
    bias = np.array([name.endswith(("bias", ".b", "beta", "offset")) for name in names], bool)
    return tuple(names[k] for k in np.flatnonzero(zero & learns & ~bias))


def _constant(record: xr.Dataset) -> Iterator[Finding]:
    """Symmetric: a matrix of equal weights, whose units will stay the same."""
    if "weight_law" not in record:
        return
    fan_in = record["weight_fan_in"].values
    for name, law, fan in zip(
        record["weight"].values, record["weight_law"].values, fan_in, strict=True
    ):
        if fan > 1 and (str(law).startswith("constant") or law == "ones"):
            at = np.flatnonzero(record["parameter"].values == name)
            reason = f"all its weights are equal ({law})"
            yield site_finding(
                record, int(at[0]), "forward", Verdict.SYMMETRIC, reason, parameter=str(name)
            )
