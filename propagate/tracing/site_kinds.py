"""Which equation is a site, and of which kind: `KINDS`, rules that are asked in order.

A rule takes an equation, the facts of its operands, those that follow for its result, and its path;
it returns the kind and the result's facts, or None where it has nothing to say:

    dot_general(x, w)      `_layer`:     "matmul", one layer deeper, after w
    add(x, branch)         `_addition`:  "add", for the two have different origins
    add(x @ w, b)          `finished`:   "matmul" again: the sum stands for the layer
    mul(x - mean, rsqrt)   `_norm`:      "norm"
    mul(norm, gain)        `finished`:   "norm" again
    tanh(h)                `_pointwise`: "activation"

    >>> import jax, jax.numpy as jnp
    >>> from propagate.tracing.dataflow import follow
    >>> from propagate.tracing.sites import ParameterSlice
    >>> eqn, = jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 4))).eqns
    >>> x, w = Facts(data=True), Facts(parameters=(ParameterSlice(0, (), 12),))
    >>> kind, facts = kind_of(eqn, [x, w], follow(eqn, [x, w], (0,)), (0,))
    >>> kind, facts.depth
    ('matmul', 1)
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.record.spine import POINTWISE
from propagate.tracing import source_labels
from propagate.tracing.dataflow import (
    Facts,
    UnfinishedLayer,
    elements,
    next_layer,
    parameters_of,
    unfinished,
)
from propagate.tracing.primitives import BENDS, CURVES, PRODUCTS, SLOPES, products
from propagate.tracing.sites import EqnPath, Kind, Site

Operands = Sequence[Facts]
Ruling = tuple[Kind | None, Facts]
WITHOUT_PARAMETER = ("add", "tag", "op", *POINTWISE)  # what is added or bent is made elsewhere


def kind_of(eqn: JaxprEqn, ins: Operands, out: Facts, path: EqnPath) -> Ruling:
    """Return the kind of site that an equation is, if any, and what is known of its result.

    Args:
        eqn: with a real result that depends on the data.
        ins: facts of its operands.
        out: facts of its result, of `follow`.
        path: of the equation.
    """
    rulings = (rule(eqn, ins, out, path) for rule in KINDS)
    return next((ruling for ruling in rulings if ruling is not None), (None, out))


def _layer(eqn: JaxprEqn, ins: Operands, out: Facts, path: EqnPath) -> Ruling | None:
    name, parameters = eqn.primitive.name, parameters_of(ins)
    if name in PRODUCTS:
        kind, out = PRODUCTS[name], next_layer(out, parameters, path)
        return kind, replace(out, layer=unfinished(eqn, kind, ins, path) if parameters else None)
    if name == "gather" and parameters:
        return "embedding", next_layer(out, parameters, path)
    if name in compat.CUSTOM and sum(map(products, compat.inner(eqn))):
        return "custom", next_layer(out, parameters, path)
    return None


def _tag(eqn: JaxprEqn, ins: Operands, out: Facts, path: EqnPath) -> Ruling | None:
    return ("tag", out) if eqn.primitive.name == compat.TAG else None


def _norm(eqn: JaxprEqn, ins: Operands, out: Facts, path: EqnPath) -> Ruling | None:
    """Find a value over a root of its moment, or times the inverse of one.

    The mean over a root is no norm: it is as small as the root. What was pooled is larger.
    """
    data = [(elements(eqn, k, facts), facts) for k, facts in enumerate(ins) if facts.data]
    roots = [(size, facts) for size, facts in data if facts.moment == "root"]
    if eqn.primitive.name not in ("mul", "div") or not 0 < len(roots) < len(data):
        return None
    (smallest, root), (largest, value) = roots[0], max(data, key=lambda pair: pair[0])
    if all(facts.moment for _, facts in data) and largest <= smallest:
        return None
    features = _units(eqn, value)
    layer = UnfinishedLayer(path, "norm", features)
    return "norm", replace(out, origin=path, layer=layer, parameters=root.parameters, moment="")


def _units(eqn: JaxprEqn, facts: Facts) -> int:
    shape = eqn.outvars[0].aval.shape
    return shape[-1 if facts.unit_axis is None else facts.unit_axis] if shape else 1


def finished(eqn: JaxprEqn, ins: Operands, out: Facts, path: EqnPath) -> Ruling | None:
    """Find a layer's bias, the gain of a norm, or the rest of a norm written as x/s + (b - m/s).

    From then on the site of the layer is this equation, its output. It is asked before `KINDS`.
    """
    name = eqn.primitive.name
    k = next((k for k, facts in enumerate(ins) if facts.layer), None)
    if k is None or len(ins) != 2:
        return None
    layer, other = ins[k].layer, ins[1 - k]
    assert layer is not None
    adds = name in ("add", "add_any") or (name == "sub" and k == 0)
    if other.data:
        rest = adds and layer.kind == "norm" and other.moment == "root"
        if not rest:
            return None
        layer = layer._replace(path=path)
        return layer.kind, replace(
            out, layer=layer, origin=ins[k].origin, parameters=ins[k].parameters
        )
    used, features = parameters_of(ins), elements(eqn, 1 - k, other)
    gain = name == "mul" and layer.kind == "norm"
    if not used or not (gain or (adds and features <= layer.features)):
        return None
    moved = layer._replace(path=path, features=max(features, layer.features)) if gain else None
    own = ins[k].parameters or used
    return layer.kind, replace(out, layer=moved, parameters=own)


def _addition(eqn: JaxprEqn, ins: Operands, out: Facts, path: EqnPath) -> Ruling | None:
    """Find a sum of two signals that do not come from one by elementwise operations."""
    data = [facts for facts in ins if facts.data]
    if eqn.primitive.name not in ("add", "add_any") or len(data) != 2:
        return None
    same_shape = len({v.aval.shape for v in eqn.invars}) == 1
    if any(facts.moment for facts in data) or not same_shape or data[0].origin == data[1].origin:
        return None
    return "add", replace(out, origin=path)


def _softmax(eqn: JaxprEqn, ins: Operands, out: Facts, path: EqnPath) -> Ruling | None:
    return ("activation", out) if is_softmax(eqn, ins) else None


def is_softmax(eqn: JaxprEqn, ins: Operands) -> bool:
    """Return whether an equation is exp(s) over the sum of the same, as a softmax is written."""
    if eqn.primitive.name != "div" or ins[0].exponential is None:
        return False
    return ins[0].exponential == ins[1].exponential and ins[1].moment == "moment"


def _pointwise(eqn: JaxprEqn, ins: Operands, out: Facts, path: EqnPath) -> Ruling | None:
    name, live = eqn.primitive.name, [facts.data and not facts.still for facts in ins]
    bends = name in BENDS | CURVES and any(live) and (name != "select_n" or ins[0].data)
    joins = name in ("mul", "div", "add", "sub", "add_any") and all(live)
    over = name == "div" and live[1]
    if not (bends or joins or over or name in compat.CUSTOM):
        return None
    of_moment = all(facts.moment for facts in ins if facts.data)
    return ("activation" if name in BENDS and not of_moment else "elementwise"), out


KINDS: tuple[Callable[..., Ruling | None], ...] = (
    _layer,
    _tag,
    _norm,
    _addition,
    _softmax,
    _pointwise,
)


def largest_slope(eqn: JaxprEqn, ins: Operands) -> float | None:
    """Return sup|phi'| of an activation of one value; 1 for those with a rule of their own."""
    name = eqn.primitive.name
    if sum(facts.data for facts in ins) != 1 or name not in BENDS:
        return None
    known = name in (*SLOPES, "custom_jvp_call", "clamp", "min")  # a custom_vjp has no slope
    return SLOPES.get(name, 1.0) if known else None


def activations_joined(sites: Sequence[Site]) -> list[Site]:
    """Make the last operation of a named activation stand for it: `tanh` and `mul` of a gelu."""
    return [_joined(site, sites[k + 1 :]) for k, site in enumerate(sites)]


def _joined(site: Site, later: Sequence[Site]) -> Site:
    if site.label not in source_labels.NAMED or site.kind not in POINTWISE:
        return site
    following = next((s for s in later if s.kind != "add"), None)
    last = following is None or (following.label, following.frame) != (site.label, site.frame)
    whole = site.shape != () and last
    kind: Kind = "activation" if whole else "elementwise"
    return replace(site, kind=kind, slope=site.slope if whole else None)
