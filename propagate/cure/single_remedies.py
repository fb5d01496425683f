"""Remedies for single places of a custom model: a weight, an activation, the inputs, the loss."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from propagate.cure.places import Place, Proposal, is_growth, shifted, usual_activation
from propagate.record.spine import LAYERS
from propagate.theory.criticality import critical_at_unit
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Verdict
from propagate.verdicts.pre_activation import SLOPES_UP_TO, flat_share
from propagate.verdicts.site_rules.beginning import offset
from propagate.verdicts.site_rules.non_finite import ELSE, REMEDIES
from propagate.verdicts.site_rules.parameters import CAUSES, moved


def inputs(place: Place) -> Iterator[Proposal]:
    """Raw inputs, standardised."""
    if place.has_wild_inputs:
        mean, sd = place.number("input_mean"), place.number("input_sd")
        called = place.text("input_name") or "the inputs"
        what = f"standardise {called} of {place.finding.site}: (x - {mean:.3g}) / {sd:.3g}"
        rms = math.hypot(mean, sd)
        yield Proposal(what, f"inputs of mean 0 and rms 1 in place of {mean:.3g} and {rms:.3g}")


def odd_weight(place: Place) -> Iterator[Proposal]:
    """A weight out of line with its peers, by `total` decades."""
    path, total = place.finding.parameter, place.finding.total
    own = place.of_weight("log10_weight_sigma2", path)
    if not place.is_layer or is_growth(place) or not math.isfinite(total + own):
        return
    predicted = shifted(place, dict.fromkeys(place.ways, -total))
    if predicted:
        what = (
            f"multiply {path} by {place.factor:.3g}, or draw it with variance "
            f"{10 ** (own - total):.3g}/fan_in"
        )
        yield Proposal(what, predicted, ((path, place.factor),))


def odd_branch(place: Place) -> Iterator[Proposal]:
    """A branch out of line with its peers."""
    path, total = place.finding.parameter, place.finding.total
    if place.text("kind") != "add" or not path or not math.isfinite(total):
        return
    if place.finding.verdict is Verdict.DEPARTING or not math.isfinite(place.finding.rate):
        what = f"multiply the branch that {path} ends by {place.factor:.3g}"
        predicted = "its share of the stream is that of its peers"
        yield Proposal(what, predicted, ((path, place.factor),))


def odd_activation(place: Place) -> Iterator[Proposal]:
    """The activation that its peers have."""
    labels = place.record["label"].values[place.record["kind"].values == "activation"]
    own, total = place.text("label"), place.finding.total
    if place.text("kind") != "activation" or not math.isfinite(total) or not len(labels):
        return
    usual = Counter(map(str, labels)).most_common(1)[0][0]
    predicted = shifted(place, {place.finding.direction: -total})
    if usual != own and predicted:
        yield Proposal(f"{usual} in place of {own} at {place.finding.site}", predicted)


def no_bias(place: Place) -> Iterator[Proposal]:
    """A bias that is at least as large as what the weights beside it make."""
    record, owner = place.record, place.finding.parameter.rpartition(".")[0]
    made = np.flatnonzero(record["parameter"].values == place.finding.parameter)
    if not len(made) or not owner or "weight_fan_in" not in record:
        return
    q = float(record["log10_forward_q"].values[made[-1]])
    for path in map(str, record["weight"].values):
        own = place.of_weight("log10_weight_q", path)
        is_bias = math.isnan(place.of_weight("weight_fan_in", path))
        if path.rpartition(".")[0] == owner and is_bias and own > q - math.log10(2):
            rms = 10 ** (own / 2)
            what = f"set {path} to 0 (its rms is {rms:.3g})"
            yield Proposal(what, "inputs of the activation around 0", ((path, 0.0),))


def centred(place: Place) -> Iterator[Proposal]:
    """A bias against the mean of what comes into an activation, where no parameter makes it."""
    made = place.into()
    if made is not None and abs(made.mean) > made.sd and not any(no_bias(place)):
        what = f"add {-made.mean:.3g} to what comes into {place.finding.site}"
        yield Proposal(what, "inputs of the activation around 0")


def leaky(place: Place) -> Iterator[Proposal]:
    """An activation without a flat side."""
    if place.text("kind") != "activation":
        return
    own = place.text("label")
    yield Proposal(
        f"leaky_relu in place of {own} at {place.finding.site}",
        "no channel is zero for every input, and each gets a gradient",
    )


def redraw(place: Place) -> Iterator[Proposal]:
    """Weights that are zero or all equal are drawn anew."""
    path, phi = place.finding.parameter, usual_activation(place)
    law = str(place.record["weight_law"].sel(weight=path).values) if path in _paths(place) else ""
    if not law.startswith(("zeros", "constant", "ones")):
        return
    variance = 1.0 if phi is None else critical_at_unit(phi).sigma_w2
    yield Proposal(
        f"draw {path} at random with variance {variance:.4g}/fan_in", "its units differ and learn"
    )


def _paths(place: Place) -> np.ndarray:
    return place.record["weight"].values if "weight_law" in place.record else np.array([])


def unsaturated(place: Place) -> Iterator[Proposal]:
    """A factor that gives an activation inputs of rms 1."""
    label, made = place.text("label"), place.into()
    if label not in SLOPES_UP_TO or made is None:
        return
    centre = abs(made.mean) > made.sd
    if centre and flat_share(label, made.sd) <= thresholds.SATURATED_CENTRED:
        return
    size = made.sd if centre else made.rms
    if place.finding.parameter and size > 1:
        factor = 1 / size
        what = f"multiply {place.finding.parameter} by {factor:.3g}"
        share = flat_share(label, 1.0)
        once = ", once centred," if centre else ""
        predicted = f"inputs{once} of rms 1 in place of {size:.3g}: {share:.1%} have small slope"
        yield Proposal(what, predicted, ((place.finding.parameter, factor),))


def scores(place: Place) -> Iterator[Proposal]:
    """A scale of the scores of a softmax that is next to one-hot."""
    spread = place.number("activation_score_sd")
    if not math.isfinite(place.number("activation_entropy")) or not spread > 1:
        return
    what = f"scale the scores of {place.finding.site} by {1 / spread:.3g}"
    yield Proposal(what, f"scores of standard deviation 1 in place of {spread:.3g}")


def readout(place: Place) -> Iterator[Proposal]:
    """A scale of the weights that make logits too large."""
    attrs = place.record.attrs
    if "logit_sd" not in attrs or place.text("kind") not in (*LAYERS, ""):
        return
    spread, chance = float(attrs["logit_sd"]), float(attrs["loss_by_chance"])
    path = place.finding.parameter
    if shift := offset(place.record):
        yield Proposal(f"add {shift:.3g} to the logits' bias", "logits of mean 0")
        if spread <= thresholds.SURE_SD:
            return
    what = f"multiply {path or 'the logits'} by {1 / spread:.3g}"
    predicted = f"a first loss of about {chance + 0.5:.3g} in place of {float(attrs['loss']):.3g}"
    yield Proposal(what, predicted, ((path, 1 / spread),) if path else ())


def loss_scale(place: Place) -> Iterator[Proposal]:
    """The factor of the loss at which gradients fit into the dtype."""
    if place.finding.direction == "forward" or "log2_loss_scale_most" not in place.record:
        return
    least, most = (float(place.record[f"log2_loss_scale_{end}"]) for end in ("least", "most"))
    if least > most:
        return
    usual = thresholds.LOSS_SCALE
    k = usual if least <= usual <= most else math.floor((least + most) / 2)
    what = f"multiply the loss by 2^{k:.0f}, and divide the gradients by it"
    yield Proposal(what, "its gradients fit into the dtype", (("loss", 2.0**k),))


def wider_dtype(place: Place) -> Iterator[Proposal]:
    """A dtype of more range."""
    narrow = str(place.record.attrs.get("narrow", ""))
    if narrow == "float16":
        yield Proposal(
            "compute in bfloat16", "numbers from 1e-38 to 3e38 in place of 6e-8 to 65504"
        )
    elif narrow:
        yield Proposal("compute in float32", f"a range and precision beyond {narrow}")


def smaller(place: Place) -> Iterator[Proposal]:
    """A factor on the weights in front of what overflows, by the rate until there."""
    q = place.record["log10_forward_q"].values
    until = np.flatnonzero(np.isfinite(q))
    layers = np.isin(place.record["kind"].values, LAYERS) & (place.record["parameter"].values != "")
    at = until[layers[until] & (until < (place.finding.layer or 0))]
    if len(at) < 2 or not q[at[-1]] > q[at[0]]:
        return
    rate = float(q[at[-1]] - q[at[0]]) / (len(at) - 1)
    what = f"multiply the weights in front of {place.finding.site} by {10 ** (-rate / 2):.3g}"
    paths = dict.fromkeys(str(p) for p in place.record["parameter"].values[at])
    yield Proposal(
        what,
        f"a signal of one size, where it grows by {rate:+.2f} decades a layer",
        tuple((path, 10 ** (-rate / 2)) for path in paths),
    )


def guarded(place: Place) -> Iterator[Proposal]:
    """An operand kept from the point where a derivative is infinite."""
    record = place.record
    if "origin" not in record.dims:
        return
    for k in np.flatnonzero(record["origin_site"].values == (place.finding.layer or -1)):
        primitive = str(record["origin_primitive"].values[k])
        if str(record["origin_how"].values[k]) != "overflow":
            what = REMEDIES.get(primitive, ELSE)
            yield Proposal(f"at {record['origin_operation'].values[k]}: {what}", "finite gradients")


def path_to_loss(place: Place) -> Iterator[Proposal]:
    """What the cause of a zero gradient is, where that tells what is to be done."""
    record, path = place.record, place.finding.parameter
    if "gradient_cause" not in record or path not in record["weight"].values:
        return
    k = int(np.flatnonzero(record["weight"].values == path)[0])
    cause, cut, by = (str(record[f"gradient_{n}"].values[k]) for n in ("cause", "cut", "cut_by"))
    told = CAUSES.get(cause, "").format(cut=cut, by=by, moved=moved(record, k))
    if "; " in told:
        yield Proposal(f"{path}: {told}", "it gets a gradient")
