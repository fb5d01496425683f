r"""What is known of a value on its way through a program, and what operations make of it.

For `jnp.tanh(x @ w + b)` the walk (`find_sites`) keeps these `Facts`, line by line:

    x              data
    w, b           parameters: the first, the second
    x @ w          data, depth 1, after w, origin (0,)
    … + b          data, depth 1, after w, origin (0,)      b has no data: it ends the layer
    tanh(…)        the same: operations on single elements keep the origin

so a value knows its layer (`after`, `depth`), whether a bias or a gain may still belong to it
(`layer`), and an addition of two values with data and two origins is that of a branch. `merge` is
what follows from the operands alone, `follow` what the operation adds to it.

    >>> x, w = Facts(data=True), Facts(parameters=(ParameterSlice(0, (), 9),))
    >>> h = next_layer(merge([x, w]), w.parameters, path=(0,))
    >>> h.data, h.depth, h.after.number, h.origin
    (True, 1, 0, (0,))
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.record.sums import Layout
from propagate.tracing.primitives import ELEMENTWISE, LAYOUT, REDUCTIONS, RESIZING, features
from propagate.tracing.sites import EqnPath, Kind, ParameterSlice, RawInput, Rescaled

Parameters = tuple[ParameterSlice, ...]


class UnfinishedLayer(NamedTuple):
    """A product, or a norm, whose value has met no bias yet.

    Attributes:
        path: of the site that stands for it.
        kind: of that site.
        features: how many outputs it has to one position of an input: its bias has no more.
    """

    path: EqnPath
    kind: Kind
    features: int


@dataclass(frozen=True)
class Facts:
    """What is known of a value.

    Attributes:
        data: whether it depends on the input batch.
        parameters: those that a value without data consists of, the largest first.
        after: the last layer's parameter upstream.
        depth: layers with parameters upstream.
        origin: the last contraction or join upstream, by the path of its equation: values of one
            origin differ by elementwise operations only.
        moment: `"moment"` of a reduced value, `"root"` of its (inverse) square root, else `""`.
        layer: the layer whose output it is, while a bias or a gain may follow.
        exponential: the exp that it is, or is a sum of, by the path of its equation.
        inputs: numbers of the arguments of the batch that it depends on.
        raw: the inputs that it is, or that it holds beside other values, times and plus a number.
        elements: how many of its elements may differ, where it was broadcast; 0: all.
        unit_axis: of channels; None: the last.
        still: whether no gradient flows through it.
        value: the site whose value it is.
        through: operations on all of it since the last site that may change its size.
        content: the site whose numbers it has, as they are or rescaled, in whatever shape.
    """

    data: bool = False
    parameters: Parameters = ()
    after: ParameterSlice | None = None
    depth: int = 0
    origin: EqnPath = ()
    moment: Literal["", "moment", "root"] = ""
    layer: UnfinishedLayer | None = None
    exponential: EqnPath | None = None
    inputs: frozenset[int] = frozenset()
    raw: tuple[RawInput, ...] = ()
    elements: int = 0
    unit_axis: int | None = None
    still: bool = False
    value: EqnPath | None = None
    content: Rescaled | None = None
    through: tuple[str, ...] = ()


def parameters_of(ins: Sequence[Facts]) -> Parameters:
    """Return the parameters of the operands that have no data."""
    return tuple(p for facts in ins if not facts.data for p in facts.parameters)


def merge(ins: Sequence[Facts]) -> Facts:
    """Return what follows from the operands alone."""
    data = [facts for facts in ins if facts.data]
    if not data:
        return Facts(parameters=_largest_first(parameters_of(ins)))
    latest = max(data, key=lambda facts: (facts.depth, facts.origin))
    return Facts(
        data=True,
        after=latest.after,
        depth=latest.depth,
        origin=max(facts.origin for facts in data),
        moment="moment" if all(facts.moment for facts in data) else "",
        still=all(facts.still for facts in data),
        inputs=frozenset().union(*(facts.inputs for facts in data)),
    )


def _largest_first(parameters: Parameters) -> Parameters:
    return tuple(sorted(dict.fromkeys(parameters), key=lambda p: -p.size))


def follow(eqn: JaxprEqn, ins: Sequence[Facts], path: EqnPath) -> Facts:
    """Return what is known of an equation's results before it is known whether it is a site."""
    name, out = eqn.primitive.name, replace(merge(ins), elements=_elements(eqn, ins))
    raw = _joined(ins) if name == "concatenate" else _rescaled(eqn, [f.raw for f in ins])
    content = _rescaled(eqn, [(f.content,) if f.content else () for f in ins])
    out = replace(out, raw=raw, content=next(iter(content), None), through=_through(name, ins))
    if not out.data:
        return replace(out, parameters=indexed(eqn, out.parameters))
    first = next(facts for facts in ins if facts.data)
    out = replace(out, unit_axis=unit_axis(eqn, ins))
    if name in LAYOUT:
        still = first.still or name == "stop_gradient"
        return replace(
            first, unit_axis=out.unit_axis, still=still, value=None, elements=out.elements
        )
    if name in REDUCTIONS:
        return replace(out, moment="moment", origin=path, exponential=first.exponential)
    if name in ("exp", "exp2"):
        return replace(out, exponential=path)
    if name in ("sqrt", "rsqrt", "pow") and (out.moment or name != "pow"):
        return replace(out, moment="root" if out.moment else "")
    if name in ("mul", "div", "add", "max", "select_n") and out.moment:
        root = any(facts.moment == "root" for facts in ins)
        every = tuple(p for facts in ins for p in facts.parameters)
        return replace(out, moment="root" if root else "moment", parameters=every)
    if name in ("mul", "div") and not all(facts.data for facts in ins):
        return replace(out, layer=first.layer, parameters=first.parameters if first.layer else ())
    return out


def _through(name: str, ins: Sequence[Facts]) -> tuple[str, ...]:
    """Return the operations that change a value's size, since the last site, and this one's."""
    own = (name,) if name in RESIZING else ()
    before = (each for facts in ins if facts.data for each in facts.through)
    return tuple(dict.fromkeys((*before, *own)))


def _joined(ins: Sequence[Facts]) -> tuple[RawInput, ...]:
    """Return the inputs that are joined, each of which fills a part of the result."""
    alone = len(ins) == 1
    raw = (one._replace(alone=one.alone and alone) for facts in ins for one in facts.raw)
    return tuple(dict.fromkeys(raw))


def _rescaled(eqn: JaxprEqn, ins: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Follow inputs or a site through products and sums with a number, as of `x / 255`."""
    k = next((k for k, each in enumerate(ins) if each), None)
    if k is None or len(ins) != 2 or not isinstance(eqn.invars[1 - k], compat.Literal):
        return ()
    value, name = eqn.invars[1 - k].val, eqn.primitive.name
    if np.size(value) != 1 or (name in ("div", "sub") and k == 1):
        return ()
    by = float(np.ravel(value)[0])
    if name == "mul" or (name == "div" and by):
        factor, shift = (by if name == "mul" else 1 / by), 0.0
    elif name in ("add", "sub"):
        factor, shift = 1.0, (by if name == "add" else -by)
    else:
        return ()
    each = ((one, one.scale * factor, one.shift * factor + shift) for one in ins[k])
    return tuple(one._replace(scale=a, shift=b) for one, a, b in each)


def elements(eqn: JaxprEqn, k: int, facts: Facts) -> int:
    """Return how many elements of an equation's operand number k may differ."""
    return facts.elements or getattr(eqn.invars[k].aval, "size", 1)


def _elements(eqn: JaxprEqn, ins: Sequence[Facts]) -> int:
    """Return how many elements of the result may differ, 0 for all: those of the operand."""
    name, size = eqn.primitive.name, getattr(eqn.outvars[0].aval, "size", 1)
    if name not in LAYOUT | ELEMENTWISE or name in compat.CUSTOM or not ins:
        return 0
    most = max(elements(eqn, k, facts) for k, facts in enumerate(ins))
    return most if most < size else 0


def next_layer(out: Facts, parameters: Parameters, path: EqnPath) -> Facts:
    """Return what is known behind a contraction, one layer deeper if it has a parameter."""
    out = replace(out, origin=path, moment="")
    if not parameters:
        return out
    own = parameters[0]
    return replace(out, depth=out.depth + 1, after=own, parameters=(own,))


def unfinished(eqn: JaxprEqn, kind: Kind, ins: Sequence[Facts], path: EqnPath) -> UnfinishedLayer:
    """Return the layer that a product with a parameter is, before its bias."""
    side = 0 if ins[-1].data else 1
    return UnfinishedLayer(path, kind, features(eqn, side))


def indexed(eqn: JaxprEqn, parameters: Parameters) -> Parameters:
    """Follow `w[3]` of a stacked parameter."""
    start: Any = None
    if eqn.primitive.name == "slice":
        whole = eqn.invars[0].aval.shape
        start = eqn.params["start_indices"]
        size = [b - a for a, b in zip(start, eqn.params["limit_indices"], strict=True)]
    elif eqn.primitive.name == "dynamic_slice" and isinstance(eqn.invars[1], compat.Literal):
        whole, size = eqn.invars[0].aval.shape, list(eqn.params["slice_sizes"])
        start = [eqn.invars[1].val]
    if start is None or len(whole) < 2 or size[0] != 1 or size[1:] != list(whole[1:]):
        return parameters
    return tuple(p.at(int(start[0])) for p in parameters)


def of_results(eqn: JaxprEqn, out: Facts) -> list[Facts]:
    """Return the facts of each result; `for w in weights` of an array gives the slices of it."""
    count = len(eqn.outvars)
    stacked = eqn.primitive.name == "unstack" and eqn.params["axis"] == 0
    if not stacked or len(eqn.invars[0].aval.shape) < 2:
        return [out] * count
    slices = (tuple(p.at(k) for p in out.parameters) for k in range(count))
    return [replace(out, parameters=own) for own in slices]


def of_one_turn(facts: Facts, level: int) -> Facts:
    """Return what is known of what a scan hands to one turn, a slice.

    Args:
        facts: of what is scanned over.
        level: how many scans there are around this one.
    """
    axis = None if facts.unit_axis is None else max(facts.unit_axis - 1, 0)
    slices = tuple(p.at(-1 - level) for p in facts.parameters)
    return replace(outside(facts), parameters=slices, unit_axis=axis, elements=0)


def after_turns(facts: Facts, level: int, length: int, stride: int) -> Facts:
    """Return what is known of a scan's result, from what its last turn returns.

    Args:
        facts: of the result, within the body.
        level: how many scans there are around this one.
        length: of this one.
        stride: by how much a turn makes its carry deeper.
    """

    def last(p: ParameterSlice) -> ParameterSlice:
        index = tuple(length - 1 if k == -1 - level else k for k in p.index)
        return replace(p, index=index)

    return replace(
        facts,
        depth=facts.depth + stride * (length - 1),
        after=facts.after and last(facts.after),
        parameters=tuple(map(last, facts.parameters)),
        value=None,
        content=None,
        layer=None,
        exponential=None,
        elements=0,
        through=(),
    )


def outside(facts: Facts) -> Facts:
    """Return what is known within a program of a value that was made before: its site is not."""
    return replace(facts, value=None, content=None, layer=None, exponential=None, through=())


def carried(before: Facts, after: Facts) -> Facts:
    """Return what holds of a scan's carry before and after a turn."""
    parameters = before.parameters if before.parameters == after.parameters else ()
    data, inputs = before.data or after.data, before.inputs | after.inputs
    made = replace(outside(before), data=data, parameters=parameters, elements=0)
    return replace(made, inputs=inputs)


def unit_axis(eqn: JaxprEqn, ins: Sequence[Facts]) -> int | None:
    """Return the axis of channels of the result, or None for the last."""
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "dot_general":
        ((lhs, _), (batch, _)) = eqn.params["dimension_numbers"]
        free = len(eqn.invars[0].aval.shape) - len(lhs) - len(batch)
        return len(batch) + free - 1 if not ins[0].data and free else None
    if name == "conv_general_dilated":
        return eqn.params["dimension_numbers"].out_spec[1]
    k = next(k for k, facts in enumerate(ins) if facts.data)
    axis, shape = ins[k].unit_axis, getattr(eqn.invars[k].aval, "shape", ())
    if axis is None:
        return None
    if name == "transpose":
        return list(eqn.params["permutation"]).index(axis)
    return axis if shape == getattr(out, "shape", None) else None


def layout(shape: tuple[int, ...], other: tuple[int, ...] | None, unit_axis: int | None) -> Layout:
    """Return which axes are what, of a value that has another shape for one more input."""
    unit = len(shape) - 1 if unit_axis is None else unit_axis
    return Layout(_batch_axis(shape, other), max(unit, 0))


def _batch_axis(shape: tuple[int, ...], other: tuple[int, ...] | None) -> int | None:
    if other is None:
        return 0 if shape else None
    if len(other) != len(shape):
        return None
    return next((k for k, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b), None)


def skip(ins: Sequence[Facts]) -> int:
    """Return which term of an addition has passed fewer layers."""
    return min(range(2), key=lambda k: (ins[k].depth, ins[k].origin))
