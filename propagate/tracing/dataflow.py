"""What is known of a value on its way through a program, and what operations make of it."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.record.sums import Layout
from propagate.tracing.sites import EqnPath, Leaf


@dataclass(frozen=True)
class Facts:
    """What is known of a value.

    Attributes:
        data: whether it depends on the input batch.
        leaves: the parameters that a value without data consists of, the largest first.
        after: the last layer's parameter upstream.
        depth: layers with parameters upstream.
        origin: number of the last contraction or join upstream: values of one origin differ by
            elementwise operations only.
        moment: `"moment"` of a reduced value, `"root"` of its (inverse) square root, else `""`.
        norm: the normalisation that it comes from, if no parameter has scaled it yet.
        unit_axis: of channels; None: the last.
        still: whether no gradient flows through it.
        value: the site whose value it is.
    """

    data: bool = False
    leaves: tuple[Leaf, ...] = ()
    after: Leaf | None = None
    depth: int = 0
    origin: int = 0
    moment: Literal["", "moment", "root"] = ""
    norm: EqnPath | None = None
    unit_axis: int | None = None
    still: bool = False
    value: EqnPath | None = None


def iteration(trail: Facts, loops: tuple[int, ...]) -> Facts:
    """Return the trail of what a scan hands to one iteration."""
    axis = None if trail.unit_axis is None else max(trail.unit_axis - 1, 0)
    leaves = tuple((leaf, (*index, -1 - len(loops))) for leaf, index in trail.leaves)
    return replace(trail, leaves=leaves, unit_axis=axis, value=None)


def of_turn(leaf: Leaf, level: int, turn: int) -> Leaf:
    """Return the slice of a parameter that one turn of a scan used."""
    return leaf[0], tuple(turn if k == -1 - level else k for k in leaf[1])


def indexed(eqn: JaxprEqn, leaves: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
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
        return leaves
    return tuple((leaf, (*index, int(start[0]))) for leaf, index in leaves)


def unit_axis(eqn: JaxprEqn, ins: list[Facts]) -> int | None:
    """Return the axis of channels of the result, or None for the last."""
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "dot_general":
        ((lhs, _), (batch, _)) = eqn.params["dimension_numbers"]
        free = len(eqn.invars[0].aval.shape) - len(lhs) - len(batch)
        return len(batch) + free - 1 if not ins[0].data and free else None
    if name == "conv_general_dilated":
        return eqn.params["dimension_numbers"].out_spec[1]
    k = next(k for k, t in enumerate(ins) if t.data)
    axis, shape = ins[k].unit_axis, getattr(eqn.invars[k].aval, "shape", ())
    if axis is None:
        return None
    if name == "transpose":
        return list(eqn.params["permutation"]).index(axis)
    return axis if shape == getattr(out, "shape", None) else None


def _batch_axis(shape: tuple[int, ...], other: tuple[int, ...] | None) -> int | None:
    if other is None:
        return 0 if shape else None
    if len(other) != len(shape):
        return None
    return next((k for k, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b), None)


def layout(shape: tuple[int, ...], other: tuple[int, ...] | None, unit_axis: int | None) -> Layout:
    """Return which axes are what, of a value that has another shape for one more input."""
    unit = len(shape) - 1 if unit_axis is None else unit_axis
    return Layout(_batch_axis(shape, other), max(unit, 0))


def skip(ins: list[Facts]) -> int:
    """Return which term of an addition has passed fewer layers."""
    return min(range(2), key=lambda k: (ins[k].depth, ins[k].origin))
