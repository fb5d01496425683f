"""What may help a custom model: the table of remedies, whose effect follows from its record."""

import xarray as xr

from propagate.cure import growth_remedies as growth
from propagate.cure import single_remedies as single
from propagate.cure.places import Place, Proposal, SiteRemedy, ways
from propagate.cure.remedies import Advice, Change
from propagate.cure.stack_proposals import POOLE
from propagate.verdicts.findings import Finding, Findings
from propagate.verdicts.findings import Verdict as V

GROWN = (V.EXPLODING, V.VANISHING)
OFF = (*GROWN, V.DEPARTING)
RANGE = (V.OVERFLOWED, V.UNDERFLOWED)
SITE_REMEDIES = (
    SiteRemedy(
        "standardised inputs",
        (*GROWN, V.COLLAPSING),
        single.inputs,
        "initialisers are made for inputs of mean 0 and second moment 1",
        "LeCun et al. 1998",
    ),
    SiteRemedy(
        "scale",
        OFF,
        single.odd_weight,
        "its peers have that scale",
        "He et al. 2015, arXiv:1502.01852",
    ),
    SiteRemedy(
        "residual scale",
        OFF,
        single.odd_branch,
        "a stream grows by each branch's share",
        "De & Smith 2020, arXiv:2002.10444",
    ),
    SiteRemedy(
        "activation",
        OFF,
        single.odd_activation,
        "its peers pass that much more or less",
        "Glorot & Bengio 2010",
    ),
    SiteRemedy(
        "initialiser",
        GROWN,
        growth.law,
        "at the critical point both the signal and the gradient keep their size",
        POOLE,
    ),
    SiteRemedy(
        "residual scale",
        GROWN,
        growth.residual_scale,
        "each branch adds to the stream, which so grows with depth unless branches are small",
        "De & Smith 2020, arXiv:2002.10444; GPT-2",
    ),
    SiteRemedy(
        "scale",
        GROWN,
        growth.every_weight,
        "the level shifts with each weight's variance",
        "He et al. 2015, arXiv:1502.01852",
    ),
    SiteRemedy(
        "scale",
        GROWN,
        growth.recurrence,
        "each turn multiplies by the same weights",
        "Pascanu et al. 2013, arXiv:1211.5063",
    ),
    SiteRemedy(
        "forget bias",
        GROWN,
        growth.forget_bias,
        "a cell remembers for -1/ln sigma(b) steps",
        "Gers et al. 2000; Jozefowicz et al. 2015",
    ),
    SiteRemedy(
        "orthogonal weights",
        GROWN,
        growth.orthogonal,
        "they keep the length of a vector, and not on average alone",
        "Saxe et al. 2014, arXiv:1312.6120",
    ),
    SiteRemedy(
        "normalisation",
        GROWN,
        growth.normalised,
        "activations get inputs of unit size, whatever the weights",
        "Ba et al. 2016, arXiv:1607.06450",
    ),
    SiteRemedy(
        "skip connection",
        (*GROWN, V.COLLAPSING),
        growth.skip,
        "signal and gradient go past each branch as they are",
        "He et al. 2016, arXiv:1512.03385",
    ),
    SiteRemedy(
        "initialiser",
        (V.SYMMETRIC, V.DEAD, V.UNTRAINED),
        single.redraw,
        "weights that differ let units differ",
        "LeCun et al. 1998",
    ),
    SiteRemedy(
        "bias zero",
        (V.DEAD, V.SATURATED, V.COLLAPSING),
        single.no_bias,
        "it moves all inputs to where the activation is flat, and hides how they differ",
        POOLE,
    ),
    SiteRemedy(
        "bias",
        (V.DEAD, V.SATURATED),
        single.centred,
        "it moves all inputs to where the activation has a slope",
        POOLE,
    ),
    SiteRemedy("activation", (V.DEAD,), single.leaky, "it has no flat side", "Maas et al. 2013"),
    SiteRemedy(
        "scale",
        (V.SATURATED,),
        single.unsaturated,
        "small inputs are where it has a slope",
        "Glorot & Bengio 2010",
    ),
    SiteRemedy(
        "scale",
        (V.SATURATED,),
        single.scores,
        "weights of a softmax are then not one-hot",
        "Vaswani et al. 2017, arXiv:1706.03762",
    ),
    SiteRemedy(
        "scale",
        (V.SATURATED,),
        single.readout,
        "logits of standard deviation s add s²/2 to the loss of equal probabilities",
        "Gaussian logits",
    ),
    SiteRemedy(
        "loss scale",
        (*RANGE, V.UNTRAINED),
        single.loss_scale,
        "gradients are linear in the loss",
        "Micikevicius et al. 2018, arXiv:1710.03740",
    ),
    SiteRemedy(
        "dtype",
        RANGE,
        single.wider_dtype,
        "its range holds what the other loses",
        "Micikevicius et al. 2018, arXiv:1710.03740",
    ),
    SiteRemedy(
        "scale",
        (V.OVERFLOWED,),
        single.smaller,
        "each layer multiplies the signal",
        "He et al. 2015, arXiv:1502.01852",
    ),
    SiteRemedy(
        "operation",
        (V.NON_FINITE,),
        single.guarded,
        "the derivative is infinite there",
        "its derivative",
    ),
    SiteRemedy(
        "path to the loss",
        (V.UNTRAINED,),
        single.path_to_loss,
        "what cuts the gradient off is known",
        "the program",
    ),
)
"""The remedies of custom models, those that change least first."""


def of_model(record: xr.Dataset, findings: Findings) -> Advice:
    """Return the changes that answer each finding, the least first.

    One that answers several findings is given for the first of them, the worst.

    Args:
        record: of `diagnose`.
        findings: on it.
    """
    found: dict[str, Change] = {}
    there = ways(record) if findings else {}
    for finding in findings.worst_first():
        place = Place(record, finding, there)
        for remedy in SITE_REMEDIES:
            if finding.verdict in remedy.of:
                for one in remedy.propose(place):
                    found.setdefault(one.what, _change(finding, remedy, one))
    return Advice(found.values())


def _change(finding: Finding, remedy: SiteRemedy, one: Proposal) -> Change:
    return Change(
        finding=finding,
        remedy=remedy.name,
        what=one.what,
        reason=remedy.reason,
        source=remedy.source,
        predicted=one.predicted,
        factors=one.factors,
    )
