r"""What may help a stack: the table of remedies, each of which proposes changed networks.

Nothing is claimed here: `advice` measures each proposal. The order is that of how much is changed:
inputs and the scale of the weights first, another kind of layer last.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from propagate.cure import stack_proposals as changed
from propagate.cure.stack_proposals import DE_SMITH, POOLE, Case, Proposal
from propagate.verdicts.findings import Verdict

V = Verdict
GROWTH = (V.VANISHING, V.EXPLODING, V.INCONCLUSIVE)
LOSSES = (V.DEAD, V.OVERFLOWED, V.NON_FINITE, V.UNDERFLOWED, V.SYMMETRIC, V.UNTRAINED)
ANY = (*GROWTH, *LOSSES, V.COLLAPSING, V.SATURATED)


@dataclass(frozen=True)
class StackRemedy:
    """A way to change a stack.

    Attributes:
        name: what it changes.
        of: the verdicts that it may mend.
        propose: `Case -> proposals`; none where it does not apply.
        reason: why it helps.
        source: where it was published.
    """

    name: str
    of: tuple[Verdict, ...]
    propose: Callable[[Case], Iterator[Proposal]]
    reason: str
    source: str


STACK_REMEDIES = (
    StackRemedy(
        "standardised inputs",
        ANY,
        changed.standardised,
        "initialisers are made for inputs of mean 0 and second moment 1",
        "LeCun et al. 1998",
    ),
    StackRemedy(
        "bias zero",
        ANY,
        changed.no_bias,
        "biases are the same for every input, so they hide "
        "how inputs differ, and move activations to where they are flat",
        POOLE,
    ),
    StackRemedy("scale", ANY, changed.scale, "sigma_w² E phi'² = 1 keeps the gradient", POOLE),
    StackRemedy(
        "initialiser",
        ANY,
        changed.critical,
        "at the critical point both the signal and the gradient keep their size",
        POOLE,
    ),
    StackRemedy(
        "initialiser",
        (V.SYMMETRIC, V.UNTRAINED, V.DEAD),
        changed.random,
        "weights that differ let units differ",
        "LeCun et al. 1998",
    ),
    StackRemedy(
        "orthogonal weights",
        ANY,
        changed.orthogonal,
        "they keep the length of every vector, and not on average alone",
        "Saxe et al. 2014, arXiv:1312.6120",
    ),
    StackRemedy(
        "forget bias",
        ANY,
        changed.forget,
        "a cell remembers for -1/ln sigma(b) steps",
        "Gers et al. 2000; Jozefowicz et al. 2015",
    ),
    StackRemedy(
        "residual scale",
        ANY,
        changed.residual_scale,
        "each branch adds to the stream, which so grows with depth unless branches are small",
        DE_SMITH,
    ),
    StackRemedy(
        "normalisation",
        ANY,
        changed.normalised,
        "activations get inputs of unit size, whatever the weights",
        "Ioffe & Szegedy 2015; Ba et al. 2016",
    ),
    StackRemedy(
        "activation",
        ANY,
        changed.other_activation,
        "its slope and its mean decide whether a critical point can be kept to",
        POOLE,
    ),
    StackRemedy(
        "dtype",
        (V.OVERFLOWED, V.UNDERFLOWED, V.DEAD, V.VANISHING, V.EXPLODING),
        changed.wider_dtype,
        "its range holds what the other loses",
        "Micikevicius et al. 2018, arXiv:1710.03740",
    ),
    StackRemedy(
        "skip connection",
        ANY,
        changed.skip,
        "signal and gradient go past each branch as they are",
        "He et al. 2016, arXiv:1512.03385",
    ),
)
"""The remedies of stacks, those that change least first."""


def proposals(case: Case) -> list[tuple[StackRemedy, Proposal]]:
    """Return what may help a stack, in the order of the table; nothing of it is measured yet."""
    found = {f.verdict for f in case.findings}
    asked = [remedy for remedy in STACK_REMEDIES if found & set(remedy.of)]
    return [(remedy, one) for remedy in asked for one in remedy.propose(case)]
