r"""Changed networks that may be better than a stack that is not stable; none is measured yet."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from propagate.activations import activation
from propagate.batches import Batch
from propagate.distributions import NORMAL
from propagate.initializers import ABSENT, initializer
from propagate.network import Network
from propagate.theory.criticality import critical_at_unit
from propagate.types import UnusableInput
from propagate.verdicts.findings import Findings
from propagate.verdicts.thresholds import FINE_DECADES

POOLE = "Poole et al. 2016, arXiv:1606.05340"
DE_SMITH = "De & Smith 2020, arXiv:2002.10444"
GPT2 = "Radford et al. 2019 (GPT-2)"
DEEPNORM = "Wang et al. 2022, arXiv:2203.00555"
NEAR = 0.05  # of a factor, within which a scale is what it should be
OTHERS = ("tanh", "relu", "selu")  # activations whose critical point every input keeps to
DENSE = ("mlp", "residual")


@dataclass(frozen=True)
class Case:
    """A stack that is not stable.

    Attributes:
        net: the network.
        findings: on it, one for each direction.
        data: what it is fed, if that is not random.
    """

    net: Network
    findings: Findings
    data: Batch | None = None

    @property
    def is_dense(self) -> bool:
        """Whether its weights are plain matrices, which the theory of an activation is of."""
        return self.net.family.name in DENSE


@dataclass(frozen=True)
class Proposal:
    """A changed network.

    Attributes:
        what: the change in words.
        net: the network.
        source: where it was published, if that is not the remedy's.
        inputs: the data, if it is they that are changed.
    """

    what: str
    net: Network
    source: str = ""
    inputs: Batch | None = None


def scale(case: Case) -> Iterator[Proposal]:
    """The own law, with the variance of the critical point; of a normal one that is `critical`."""
    init, net = case.net.init, case.net
    point, factor = critical_at_unit(net.activation), _factor(case)
    if init.tuned or init.base is NORMAL or point.sigma_b2:
        return
    if math.isfinite(factor) and abs(factor - 1) > NEAR:
        what = f"weights {factor:.4g} times as large (sigma_w² = {point.sigma_w2:.4g})"
        yield Proposal(what, replace(net, init=float(f"{factor:.6g}") * init))


def _factor(case: Case) -> float:
    """Return the factor that makes dense weights critical; NaN if that is not known."""
    init, width = case.net.init, case.net.width
    if not case.is_dense or init.tuned or init.data_scaled:
        return math.nan
    own = width * init.moments(width, width)[1]
    return math.sqrt(critical_at_unit(case.net.activation).sigma_w2 / own) if own > 0 else math.nan


def critical(case: Case) -> Iterator[Proposal]:
    """The critical initialiser."""
    if case.is_dense or case.net.family.name.startswith("conv"):
        yield from _with_init(case, "critical")


def orthogonal(case: Case) -> Iterator[Proposal]:
    """Orthogonal weights at the critical scale."""
    net = case.net
    if case.is_dense:
        yield from _with_init(case, "critical_orthogonal")
    elif net.family.name.startswith("conv"):
        gain = math.sqrt(critical_at_unit(net.activation).sigma_w2)
        yield from _with_init(case, f"delta_orthogonal({gain:.6g})")
    elif _option(case, "recurrent_init") not in (None, "orthogonal"):
        yield from _with_family(case, "orthogonal recurrent weights", recurrent_init="orthogonal")


def _with_init(case: Case, spec: str) -> Iterator[Proposal]:
    init, factor = initializer(spec), _factor(case)
    if init.name == case.net.init.name:
        return
    point = critical_at_unit(case.net.activation)
    numbers = [f"weights {factor:.4g} times as large"] if math.isfinite(factor) else []
    numbers.append(f"sigma_w² = {point.sigma_w2:.4g}")
    numbers += [f"sigma_b² = {point.sigma_b2:.4g}"] if init.tuned else []
    yield from _made(case, f"init {init.name} ({', '.join(numbers)})", init=init)


def no_bias(case: Case) -> Iterator[Proposal]:
    """The own law without biases."""
    init = case.net.init
    if init.bias.gain and not init.tuned:
        bare = dataclasses.replace(init, name=f"{init.name} without biases", bias=ABSENT)
        yield Proposal("biases of 0", replace(case.net, init=bare))


def forget(case: Case) -> Iterator[Proposal]:
    """1, as Keras has it, and what keeps a cell for as many steps as the stack has."""
    own = _option(case, "forget_bias")
    if own is None:
        return
    kept = 10 ** (-FINE_DECADES / 2 / case.net.depth)  # of the cell, in a step
    for bias in (1.0, round(math.log(kept / (1 - kept)), 2)):
        if bias > own:
            memory = 1 / math.log1p(math.exp(-bias))
            what = f"forget bias {bias:g} (a cell's memory of {memory:.3g} steps)"
            yield from _with_family(case, what, forget=bias)


def residual_scale(case: Case) -> Iterator[Proposal]:
    """Smaller branches of a residual stream."""
    depth = case.net.depth
    if _option(case, "branch") == "plain":
        factor = f"1/√L = {depth**-0.5:.3g}"
        yield from _with_family(case, f"branches scaled by {factor}", DE_SMITH, branch="depth")
        skip = "branches scaled by a learned 0 (SkipInit)"
        yield from _with_family(case, skip, DE_SMITH, branch="skipinit")
    if _option(case, "arrangement") == "pre" and _option(case, "scheme") != "gpt2":
        factor = f"1/√(2L) = {(2 * depth) ** -0.5:.3g}"
        what = f"what leads into the stream scaled by {factor}"
        yield from _with_family(case, what, GPT2, scheme="gpt2")
    if _option(case, "arrangement") == "post":
        alpha, beta = (2 * depth) ** 0.25, (8 * depth) ** -0.25
        what = f"DeepNorm's alpha = {alpha:.3g} and beta = {beta:.3g}"
        yield from _with_family(case, what, DEEPNORM, arrangement="deepnorm")


def normalised(case: Case) -> Iterator[Proposal]:
    """Norms before each activation."""
    if case.net.family.norm == "none" and not case.net.family.wants_gain:
        for norm in ("layer", "batch"):
            where = "before each activation"
            yield from _with_family(case, f"{norm} normalisation {where}", norm=norm)


def skip(case: Case) -> Iterator[Proposal]:
    """A skip connection around layers that have none."""
    net = case.net
    if net.family.name == "mlp" and len({net.width, net.input_size, net.output_size} - {None}) == 1:
        what = (
            f"a skip connection around every two layers, branches scaled by {net.depth**-0.5:.3g}"
        )
        yield from _made(case, what, family="residual(branch=depth)")
    if _option(case, "arrangement") == "attention":
        yield from _with_family(case, "a skip connection past attention", arrangement="skip")
    if _option(case, "arrangement") in ("attention", "skip"):
        yield from _with_family(case, "pre-LN blocks with an MLP", arrangement="pre")


def other_activation(case: Case) -> Iterator[Proposal]:
    """Another activation, with the initialiser as it is, and with the critical one."""
    own = case.net.activation
    for name in OTHERS:
        if name == own.name:
            continue
        yield Proposal(f"activation {name}", replace(case.net, activation=activation(name)))
        if case.is_dense and not case.net.init.tuned:
            what = f"activation {name}, init critical"
            made = replace(case.net, activation=activation(name), init=initializer("critical"))
            yield Proposal(what, made)


def standardised(case: Case) -> Iterator[Proposal]:
    """Data of mean 0 and second moment 1."""
    if case.data is None:
        return
    x = np.asarray(case.data.inputs, np.float64)
    mean, spread = float(x.mean()), float(x.std())
    if spread and (abs(mean) > NEAR or abs(spread - 1) > NEAR):
        data = replace(case.data, inputs=(x - mean) / spread)
        what = f"standardised inputs: subtract {mean:.3g}, divide by {spread:.3g}"
        yield Proposal(what, case.net, inputs=data)


def wider_dtype(case: Case) -> Iterator[Proposal]:
    """A dtype of more range."""
    if case.net.dtype == "float16":
        yield Proposal("dtype bfloat16", replace(case.net, dtype="bfloat16"))
    if case.net.dtype in ("float16", "bfloat16"):
        yield Proposal("dtype float32", replace(case.net, dtype="float32"))


def random(case: Case) -> Iterator[Proposal]:
    """Random weights, where theory has no critical ones."""
    init = case.net.init
    for name in ("lecun_normal",) if not case.is_dense else ():
        if init.name != name:
            yield Proposal(f"init {name}", replace(case.net, init=initializer(name)))


def _with_family(case: Case, what: str, source: str = "", **options: Any) -> Iterator[Proposal]:
    with contextlib.suppress(UnusableInput):
        yield from _made(case, what, source, family=replace(case.net.family, **options))


def _made(case: Case, what: str, source: str = "", **fields: Any) -> Iterator[Proposal]:
    """Yield the network with other fields, if there can be one."""
    with contextlib.suppress(UnusableInput):
        yield Proposal(what, replace(case.net, **fields), source)


def _option(case: Case, name: str) -> Any:
    """Return an option of the family; None if it has none of that name."""
    return getattr(case.net.family, name, None)
