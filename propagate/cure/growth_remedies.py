"""Remedies for growth along a custom model: of all its weights, its branches, its recurrence."""

import math
from collections.abc import Iterator

import numpy as np

from propagate.cure.places import (
    Place,
    Proposal,
    in_stream,
    is_growth,
    shifted,
    spine_weights,
    turns,
    usual_activation,
)
from propagate.record.dataset import branch_share
from propagate.theory.criticality import critical_at_unit
from propagate.theory.mean_field import moments_at
from propagate.verdicts import thresholds
from propagate.verdicts.findings import SUBJECTS, Verdict


def law(place: Place) -> Iterator[Proposal]:
    """The critical law of the activation that most layers have, for every weight of the spine."""
    phi = usual_activation(place)
    if phi is None or not is_growth(place) or turns(place) > 1 or in_stream(place):
        return
    point, paths = critical_at_unit(phi), spine_weights(place)
    factors = {path: _times(place, path, point.sigma_w2) for path in paths}
    factors = {path: f for path, f in factors.items() if math.isfinite(f)}
    # the way starts behind the first weight
    shift = 2 * sum(math.log10(f) for path, f in factors.items() if path != paths[0])
    if point.kind == "none" or abs(shift) < thresholds.ALIKE_BY * len(factors):
        return
    if phi.homogeneous:
        predicted = shifted(place, dict.fromkeys(place.ways, shift))
    else:
        totals = [f"{SUBJECTS[d]} {w.total:+.2f}" for d, w in place.ways.items()]
        predicted = f"no growth, where it is {' and '.join(totals)} decades from end to end"
    if predicted:
        biases = f", biases with standard deviation {math.sqrt(point.sigma_b2):.3g}"
        what = (
            f"draw the {len(factors)} weights from {paths[0]} to {paths[-1]} with variance "
            f"{point.sigma_w2:.4g}/fan_in{biases * bool(point.sigma_b2)}, critical for {phi.name}"
        )
        yield Proposal(what, predicted, tuple(factors.items()))


def _times(place: Place, path: str, sigma2: float) -> float:
    own = place.of_weight("log10_weight_sigma2", path)
    return 10 ** ((math.log10(sigma2) - own) / 2) if math.isfinite(own) else math.nan


def every_weight(place: Place) -> Iterator[Proposal]:
    """A factor on all weights that keeps the direction of the finding, where no law would."""
    phi = usual_activation(place)
    if not is_growth(place) or turns(place) > 1 or in_stream(place) or any(law(place)):
        return
    paths, steps = spine_weights(place), len(place.ways[place.finding.direction].steps)
    factor = 10 ** (-place.finding.rate / 2)
    predicted = shifted(place, dict.fromkeys(place.ways, -place.finding.rate * steps))
    if predicted and paths and (phi is None or phi.homogeneous):
        what = f"multiply the {len(paths)} weights from {paths[0]} to {paths[-1]} by {factor:.3g}"
        yield Proposal(what, predicted, tuple((path, factor) for path in paths))


def recurrence(place: Place) -> Iterator[Proposal]:
    """A factor on what a loop's turns share."""
    if not is_growth(place) or turns(place) <= thresholds.PEERS or place.finding.total < 0:
        return
    path, factor = place.finding.parameter, 10 ** (-place.finding.rate / 2)
    total = place.finding.total
    said = f"the {SUBJECTS[place.finding.direction]} {total:+.2f} → +0.00 decades over its turns"
    yield Proposal(f"multiply {path} by {factor:.3g}", said, ((path, factor),))


def orthogonal(place: Place) -> Iterator[Proposal]:
    """Weights of a plain recurrence that keep the length of its state."""
    if not is_growth(place) or turns(place) <= thresholds.PEERS or _is_gated(place):
        return
    path = place.finding.parameter
    yield Proposal(
        f"draw {path} orthogonal", "the length of a state is kept in every turn, up to the slope"
    )


def _is_gated(place: Place) -> bool:
    """Whether sigmoids stand in the turns of the loop, as gates do."""
    record, path = place.record, place.finding.parameter
    own = record["depth"].values[record["parameter"].values == path]
    gates = np.isin(record["label"].values, ("logistic", "sigmoid"))
    return bool(np.isin(record["depth"].values[gates], own).any())


def forget_bias(place: Place) -> Iterator[Proposal]:
    """A bias of the gate that keeps the state, for as long as the loop takes."""
    if not is_growth(place) or turns(place) <= thresholds.PEERS or not _is_gated(place):
        return
    if place.finding.verdict is not Verdict.VANISHING:
        return
    count = turns(place)
    kept = 10 ** (-thresholds.FINE_DECADES / 2 / count)
    bias = math.log(kept / (1 - kept))
    yield Proposal(
        f"add 1 to the bias of the gate that keeps the state (LSTM: forget), or {bias:.2g} for all "
        f"{count} turns",
        f"what it keeps lasts for 3.19 turns, or {1 / math.log1p(math.exp(-bias)):.3g}, where a "
        "bias of 0 keeps it for 1.44",
    )


def _branches(place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Return the additions of the stream, and log10 of branch over skip at each but the first."""
    sites = np.sort(place.ways["forward"].sites)
    sites = sites[place.record["kind"].values[sites] == "add"]
    return sites, branch_share(place.record)[sites[1:]]


def residual_scale(place: Place) -> Iterator[Proposal]:
    """A scale of every branch of a stream, and one that starts at zero."""
    if not in_stream(place) or not is_growth(place) or "log10_branch_q" not in place.record:
        return
    sites, ratio = _branches(place)
    scale = len(sites) ** -0.5
    total = place.ways["forward"].total
    shift = float(np.log10(1 + scale**2 * 10**ratio).sum()) - total
    predicted = shifted(place, dict.fromkeys(place.ways, shift))
    if place.finding.verdict is Verdict.EXPLODING and predicted:
        after = place.record["after"].values[sites]
        factors = tuple((str(path), scale) for path in dict.fromkeys(after) if path)
        what = f"scale the {len(sites)} branches by 1/sqrt({len(sites)}) = {scale:.3g}"
        yield Proposal(what, predicted, factors)
        yield Proposal(
            f"scale the {len(sites)} branches by a learned number that starts at 0 (SkipInit)",
            "the stream keeps what comes in, both ways",
        )


def skip(place: Place) -> Iterator[Proposal]:
    """A skip connection around layers that have none."""
    merged = place.finding.verdict is Verdict.COLLAPSING and not place.has_wild_inputs
    if in_stream(place) or turns(place) > 1 or not (is_growth(place) or merged):
        return
    steps = max(len(own.steps) for own in place.ways.values())
    scale = max(steps, 1) ** -0.5
    what = f"a skip connection around each layer, branches scaled by 1/sqrt({steps}) = {scale:.3g}"
    limit = math.log10(1 + scale**2) * steps
    yield Proposal(what, f"at most {limit:+.2f} decades both ways, for branches that keep the size")


def normalised(place: Place) -> Iterator[Proposal]:
    """A norm before each activation: growth of the gradient is then E phi'^2 / E phi^2."""
    phi = usual_activation(place)
    has = (place.record["kind"].values == "norm").any()
    if phi is None or has or in_stream(place) or turns(place) > 1 or not is_growth(place):
        return
    at = moments_at(phi, 1.0)
    steps = len(place.ways["forward"].steps)
    total = steps * math.log10(at["slope2"] / at["second"])
    if abs(total) <= thresholds.FINE_DECADES:
        yield Proposal(
            "layer normalisation before each activation",
            f"the signal +0.00, the gradient {total:+.2f} decades from end to end",
        )
