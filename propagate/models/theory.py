r"""`expected`: what theory expects at each site of a custom model, from its weights' statistics.

The model's program is run once more on values known by their distribution (`waves`); parameters,
and all that follows from them alone, are arrays. At a product with a parameter

$$q' = \mathrm{fan\_in}\cdot E W^2\cdot E x^2,$$

and whatever is added to a signal is independent of it. Where theory has no answer (a softmax,
pooling, means over a batch, weights used twice, weights that are not centred) the chain starts
again with the moments that were measured: such a site is *given*. On the way back, with N elements
at a site and a sum over the products and additions that its value goes to,

$$N E g^2 = \sum N' E g'^2\cdot\mathrm{fan\_in}\cdot E W^2\cdot E\phi'^2,$$

given where one of those is. At the outputs the gradient is a unit Gaussian, unless a loss is given.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.models.theory_rules import applied, is_elementwise
from propagate.models.theory_values import (
    Blend,
    Random,
    Value,
    Wave,
    blend,
    energy,
    gaussian,
    is_data,
    mixed,
    part,
    scaled,
    unknown,
)
from propagate.record import provenance
from propagate.tracing.primitives import PRODUCTS
from propagate.tracing.sites import EqnPath, Site
from propagate.tracing.trace import SiteNames

Turn = tuple[int, ...]


class TracedModel(NamedTuple):
    """A model as it was traced.

    Attributes:
        jaxpr: closed.
        meta: its sites and parameters.
        params: flat arguments that do not depend on the data.
        data: the flat arguments after them.
        cotangents: second moment of the gradient at each result: NaN where a loss makes it, 0
            where there is none.
    """

    jaxpr: Any
    meta: SiteNames
    params: Sequence[Any]
    data: Sequence[Any]
    cotangents: Sequence[float]


@dataclass
class Node:
    """A value whose gradient is predicted.

    Attributes:
        size: how many elements.
        row: of the record; None if it is no site's.
        q: its second moment by theory; NaN where it is given.
        gradient: the same of its gradient, if that is known beforehand.
        ends: the nodes that its value goes to, with the energy on the way back.
    """

    size: int
    row: int | None = None
    q: float = math.nan
    gradient: float = math.nan
    ends: list[tuple["Node", float]] = field(default_factory=list)


def expected(program: TracedModel, record: xr.Dataset) -> xr.Dataset:
    """Return what theory expects at each site of a model, and by how much it is off.

    Args:
        program: the model.
        record: what was measured of it, in both directions or forward alone.

    Returns:
        A record with dim (site,) and the names of the sites: `log10_forward_q` and
        `log10_backward_q`, NaN where theory has no answer; `log10_forward_residual` and
        `log10_backward_residual`, measured less expected, in decades.
    """
    walk = _Walk(program.meta, record)
    body, consts = compat.opened(program.jaxpr)
    args = [*program.params, *map(_of_input, program.data)]
    outs = walk.run(body, consts, args, (), ())
    for var, out, gradient in zip(body.outvars, outs, program.cotangents, strict=True):
        if gradient != 0:
            size = math.prod(var.aval.shape)  # type: ignore[attr-defined]
            walk.leads(out, Node(size, gradient=gradient))
    q = {"forward": [n.q for n in walk.of_rows()], "backward": walk.gradients()}
    made = record[[]]
    with np.errstate(divide="ignore", invalid="ignore"):
        for direction, values in q.items():
            name = f"log10_{direction}_q"
            made[name] = "site", np.log10(np.array(values))
            if name in record:
                made[f"log10_{direction}_residual"] = record[name] - made[name]
    return made.assign_attrs(provenance.provenance(theory="mean field"))


def _of_input(x: Any) -> Value:
    """Return the moments of an input; of random keys nothing depends on the data."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else Blend(math.nan, math.nan)
    return blend(x)


class _Walk:
    """The environment, and the nodes that grow as it goes."""

    def __init__(self, meta: SiteNames, record: xr.Dataset) -> None:
        rows = meta.rows()
        self.meta = meta
        self.sites: dict[tuple[EqnPath, Turn], tuple[int, Site]] = {
            (site.path, turn): (k, site) for k, (site, turn) in enumerate(rows)
        }
        self.measured = _moments(record)
        self.backward = _second(record, "backward")
        self.nodes: list[Node] = []
        self.used: set[str] = set()

    def run(
        self, jaxpr: Any, consts: list[Any], args: list[Value], place: EqnPath, turn: Turn
    ) -> list[Value]:
        """Follow one jaxpr; return what is known of its results."""
        env: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        read = lambda v: np.asarray(v.val) if isinstance(v, compat.Literal) else env[v]  # noqa: E731
        for k, eqn in enumerate(jaxpr.eqns):
            outs = self.step(eqn, [read(v) for v in eqn.invars], (*place, k), turn)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def step(self, eqn: JaxprEqn, ins: list[Value], place: EqnPath, turn: Turn) -> list[Value]:
        """Return what is known of an equation's results."""
        name = eqn.primitive.name
        if not any(map(is_data, ins)):
            return compat.bind(eqn, ins)
        if name in compat.CALLS or name in compat.REMATS:
            return self._call(eqn.params[(compat.CALLS | compat.REMATS)[name]], ins, place, turn)
        if name == "scan":
            return self._scan(eqn, ins, place, turn)
        if name == "cond" and not is_data(ins[0]):
            taken = int(np.clip(ins[0], 0, len(eqn.params["branches"]) - 1))
            return self._call(eqn.params["branches"][taken], ins[1:], (*place, taken), turn)
        number, site = self.sites.get((place, turn), (None, None))
        outs = self._outs(eqn, ins, place, turn, site)
        if number is not None and site is not None:
            outs[site.result] = self._at_site(outs[site.result], number, site, eqn)
        return [self._settled(v, var.aval.size) for v, var in zip(outs, eqn.outvars, strict=True)]

    def _outs(
        self, eqn: JaxprEqn, ins: list[Value], place: EqnPath, turn: Turn, site: Site | None
    ) -> list[Value]:
        name = eqn.primitive.name
        if name in compat.CUSTOM and not is_elementwise(eqn):
            return self._call(next(compat.inner(eqn)), ins, place, turn)
        if site is not None and site.parameter and (name in PRODUCTS or site.kind == "embedding"):
            path = self.meta.parameter(site.parameter, turn)
            again, self.used = path in self.used, self.used | {path}
            if again:
                return [unknown(*ins)]
            if site.kind == "embedding":
                return [replace(blend(ins[0]), normal=True)]
        elif name in PRODUCTS and not all(map(is_data, ins)):
            return [unknown(*ins)]  # with what is no parameter: an average, a rotation
        return applied(eqn, ins)

    def _call(self, jaxpr: Any, ins: list[Value], place: EqnPath, turn: Turn) -> list[Value]:
        body, consts = compat.opened(jaxpr)
        return self.run(body, consts, ins, place, turn)

    def _scan(self, eqn: JaxprEqn, ins: list[Value], place: EqnPath, turn: Turn) -> list[Value]:
        n_consts, n_carry = compat.scan_split(eqn)
        consts, xs = ins[:n_consts], ins[n_consts + n_carry :]
        carry, length = ins[n_consts : n_consts + n_carry], eqn.params["length"]
        turns = range(length)[::-1] if eqn.params["reverse"] else range(length)
        stacked: dict[int, list[Value]] = {}
        for k in turns:
            slices = [part(x, positions=True) if is_data(x) else x[k] for x in xs]
            outs = self._call(eqn.params["jaxpr"], [*consts, *carry, *slices], place, (*turn, k))
            carry, stacked[k] = outs[:n_carry], outs[n_carry:]
        if not length:
            return [unknown(*ins)] * len(eqn.outvars)
        return [
            *carry,
            *(_stack(ys) for ys in zip(*(stacked[k] for k in range(length)), strict=True)),
        ]

    def _at_site(self, value: Value, number: int, site: Site, eqn: JaxprEqn) -> Value:
        """Make a site a node: from here on gradients go to it too."""
        node = Node(eqn.outvars[site.result].aval.size, number)
        self.nodes.append(node)
        if not isinstance(value, Random):  # a level, by its mean alone
            return value
        node.q, at = value.second, len(self.nodes) - 1
        if math.isnan(node.q):
            if self._is_moment(value, site, node.size):
                return value
            self.leads(value, node)
            mean, second = self.measured[number]
            made = site.parameter is not None and site.kind in ("matmul", "conv")
            return gaussian(mean, second, at) if made else Blend(mean, second, {at: 1.0})
        if isinstance(value, Blend) and value.normal:
            self.leads(value, node)
            return gaussian(value.mean, node.q, at)
        if isinstance(value, Wave):
            return replace(value, slopes=value.slopes | {at: np.ones(value.at.shape)})
        return replace(value, energy=value.energy | {at: 1.0})

    def _is_moment(self, value: Random, site: Site, size: int) -> bool:
        """Whether what is measured may be of a moment of a batch, and not of a signal."""
        smaller = any(self.nodes[k].size > size for k in value.energy)
        return site.kind in ("elementwise", "op") or (site.kind == "norm" and smaller)

    def _settled(self, value: Value, size: int) -> Value:
        """Return the Gaussian that a sum of several is, as a node of its own."""
        if not (isinstance(value, Blend) and value.normal):
            return value
        self.nodes.append(Node(size))
        self.leads(value, self.nodes[-1])
        return gaussian(value.mean, value.second, len(self.nodes) - 1)

    def leads(self, value: Value, node: Node) -> None:
        """Note where a node's gradient goes."""
        for k, through in energy(value).items():
            self.nodes[k].ends.append((node, through))

    def of_rows(self) -> list[Node]:
        """Return the node of each row of the record; an empty one where there is none."""
        found = {node.row: node for node in self.nodes if node.row is not None}
        return [found.get(k, Node(1)) for k in range(len(self.measured))]

    def gradients(self) -> list[float]:
        """Return the second moment of the gradient at each row, from the last node to the first."""
        expected: dict[int | None, float] = {}
        for node in reversed(self.nodes):
            came = [end.size / node.size * through * end.gradient for end, through in node.ends]
            node.gradient = expected[node.row] = sum(came) if came else math.nan
            if math.isnan(node.gradient) and node.row is not None:
                node.gradient = self.backward[node.row]
        return [expected.get(k, math.nan) for k in range(len(self.measured))]


def _stack(values: Sequence[Value]) -> Value:
    if not any(map(is_data, values)):
        return jnp.stack(values)
    return mixed(scaled(blend(v), 1.0, 1 / len(values)) for v in values)


def _second(record: xr.Dataset, direction: str) -> np.ndarray:
    name = f"log10_{direction}_q"
    if name not in record:
        return np.full(record.sizes["site"], np.nan)
    with np.errstate(over="ignore"):
        return 10 ** record[name].values


def _moments(record: xr.Dataset) -> list[tuple[float, float]]:
    """Return the measured mean and second moment at each site; a mean that was not is zero."""
    second = _second(record, "forward")
    ratio = record["forward_mean"].values if "forward_mean" in record else 0 * second
    mean = np.nan_to_num(ratio) * np.sqrt(second)
    return list(zip(mean.tolist(), second.tolist(), strict=True))
