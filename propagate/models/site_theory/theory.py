r"""What mean-field theory expects at each site of a user's model, from its weights' statistics.

The traced program is interpreted once more. Parameters, and all that follows from them alone, are
arrays as before; what depends on the data is a value of `values`. Take two layers

    h = x @ W        # Moments: mean 0, second moment fan_in E W^2 E x^2; Gaussian, so node 0
    y = relu(h)      # FunctionOfGaussian of h: E y^2 = E h^2/2
    out = y @ V      # Moments: second moment fan_in E V^2 E y^2; node 1

On the way back the gradient of node 0 comes from node 1, with the gradient factor of all that lies
between: fan_in E V^2 for the product times E relu'(h)^2 = 1/2. With E x^2 = 1 and
fan_in E W^2 = fan_in E V^2 = 2, h and out have second moment 2 and their gradients 1:

>>> from propagate.models.diagnose import diagnose
>>> w, x = jnp.tile(jnp.array([0.25, -0.25]), (32, 16)), jnp.ones((8, 32))
>>> model = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]
>>> found = diagnose(model, {"w": w, "v": w}, x, key=jax.random.key(0)).theory()
>>> (10**found.log10_forward_q.values).round(4)
array([2., 1., 2.])
>>> (10**found.log10_backward_q.values).round(4)
array([1., 2., 1.])
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.models.site_theory.elementwise import is_elementwise
from propagate.models.site_theory.gradients import GradientGraph, Node
from propagate.models.site_theory.rules import apply_rule
from propagate.models.site_theory.values import (
    FunctionOfGaussian,
    Moments,
    Random,
    Value,
    gaussian,
    gradient_factors,
    is_data,
    mixture,
    moments,
    scaled,
    slice_of,
    unknown,
)
from propagate.record import provenance
from propagate.record.dataset import residual_name, second_moment_name
from propagate.tracing.primitives import PRODUCTS
from propagate.tracing.sites import EqnPath, Site
from propagate.tracing.trace import SiteNames

Iteration = tuple[int, ...]  # of the scans around an equation, outermost first


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


def expected(model: TracedModel, record: xr.Dataset) -> xr.Dataset:
    r"""Return what theory expects at each site of a model, and how far the measurement is off.

    A product with a parameter of mean 0 has

    $$q' = \mathrm{fan\_in}\cdot E W^2\cdot E x^2,$$

    and what is added to a signal is taken to be independent of it. Gradients start at the outputs,
    as unit Gaussians, and go back along the graph of `gradients`.

    Theory has no answer behind a softmax, pooling, a mean over a batch, tied weights or weights
    whose mean is not 0. The second moment is NaN at such a site, and what follows it starts from
    the measured moments. The same holds for gradients, from the outputs on.

    Args:
        model: as it was traced.
        record: what was measured of it, dim (site,), in both directions or forward alone.

    Returns:
        A record with dim (site,) and the names of the sites: `log10_forward_q` and
        `log10_backward_q`, log10 of second moments, NaN where theory has no answer;
        `log10_forward_residual` and `log10_backward_residual`, measured less expected, in decades.

    Reference:
        Poole et al. (2016), Eq. (3), arXiv:1606.05340, for the signal; Schoenholz et al. (2017),
        arXiv:1611.01232, for the gradient.
    """
    interpreter = _Interpreter(model.meta, record)
    graph = interpreter.graph
    body, consts = compat.opened(model.jaxpr)
    args = [*model.params, *map(_of_input, model.data)]
    outs = interpreter.run(body, consts, args, (), ())
    for var, out, gradient in zip(body.outvars, outs, model.cotangents, strict=True):
        if gradient != 0:
            size = math.prod(var.aval.shape)  # type: ignore[attr-defined]
            graph.connect(gradient_factors(out), Node(size, gradient=gradient))
    measured = _measured_second(record, "backward").tolist()
    q = {"forward": graph.second_moments(len(measured)), "backward": graph.gradients(measured)}
    made = record[[]]
    with np.errstate(divide="ignore", invalid="ignore"):
        for direction, values in q.items():
            name = second_moment_name(direction)
            made[name] = "site", np.log10(np.array(values))
            if name in record:
                made[residual_name(direction)] = record[name] - made[name]
    return made.assign_attrs(provenance.provenance(theory="mean field"))


def _of_input(x: Any) -> Value:
    """Return the moments of an input. A random key stays an array: it is not data."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else Moments(math.nan, math.nan)
    return moments(x)


class _Interpreter:
    """Interprets a jaxpr on `Value`s, and builds the graph of gradients on the way.

    Attributes:
        meta: sites and parameters.
        sites: the row of the record and the site, by equation and iteration.
        weights: of the products whose site is the sum with the bias, by the product's equation.
        measured: mean and second moment at each row.
        graph: of the gradients.
        used: the parameters that were used before: from the second time on they are tied.
    """

    def __init__(self, meta: SiteNames, record: xr.Dataset) -> None:
        self.meta = meta
        self.sites: dict[tuple[EqnPath, Iteration], tuple[int, Site]] = {
            (site.path, iteration): (row, site) for row, (site, iteration) in enumerate(meta.rows())
        }
        self.weights = {s.product: s.parameter for s in meta.sites if s.kind in ("matmul", "conv")}
        self.measured = _measured_moments(record)
        self.graph = GradientGraph()
        self.used: set[str] = set()

    def run(
        self, jaxpr: Any, consts: list[Any], args: list[Value], path: EqnPath, iteration: Iteration
    ) -> list[Value]:
        """Interpret one jaxpr; return its results."""
        env: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        read = lambda v: np.asarray(v.val) if isinstance(v, compat.Literal) else env[v]  # noqa: E731
        for k, eqn in enumerate(jaxpr.eqns):
            outs = self._step(eqn, [read(v) for v in eqn.invars], (*path, k), iteration)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _step(
        self, eqn: JaxprEqn, ins: list[Value], path: EqnPath, iteration: Iteration
    ) -> list[Value]:
        """Return the results of an equation."""
        name = eqn.primitive.name
        if not eqn.outvars:
            return []  # as of `jax.debug.print`
        if not any(map(is_data, ins)):
            return compat.bind(eqn, ins)
        if name in compat.CALLS or name in compat.REMATS:
            jaxpr = eqn.params[(compat.CALLS | compat.REMATS)[name]]
            return self._call(jaxpr, ins, path, iteration)
        if name == "scan":
            return self._scan(eqn, ins, path, iteration)
        if name == "cond" and not is_data(ins[0]):
            taken = int(np.clip(ins[0], 0, len(eqn.params["branches"]) - 1))
            return self._call(eqn.params["branches"][taken], ins[1:], (*path, taken), iteration)
        row, site = self.sites.get((path, iteration), (None, None))
        outs = self._results(eqn, ins, path, iteration, site)
        if row is not None and site is not None:
            outs[site.result] = self._at_site(outs[site.result], row, site, eqn)
        sizes = [var.aval.size for var in eqn.outvars]
        return [self._with_node(v, size) for v, size in zip(outs, sizes, strict=True)]

    def _results(
        self,
        eqn: JaxprEqn,
        ins: list[Value],
        path: EqnPath,
        iteration: Iteration,
        site: Site | None,
    ) -> list[Value]:
        """Return the results of an equation, whether or not it is a site."""
        name = eqn.primitive.name
        if name in compat.CUSTOM and not is_elementwise(eqn):
            return self._call(next(compat.inner(eqn)), ins, path, iteration)
        used = site.parameter if site is not None else self.weights.get(path)
        embeds = site is not None and site.kind == "embedding"
        if used and (name in PRODUCTS or embeds):
            parameter = self.meta.parameter(used, iteration)
            tied, self.used = parameter in self.used, self.used | {parameter}
            if tied:
                return [unknown(*ins)]
            if embeds:
                return [replace(moments(ins[0]), is_gaussian=True)]
        elif name in PRODUCTS and not all(map(is_data, ins)):
            return [unknown(*ins)]  # an array that is no parameter: an average, a rotation
        return apply_rule(eqn, ins)

    def _call(
        self, jaxpr: Any, ins: list[Value], path: EqnPath, iteration: Iteration
    ) -> list[Value]:
        body, consts = compat.opened(jaxpr)
        return self.run(body, consts, ins, path, iteration)

    def _scan(
        self, eqn: JaxprEqn, ins: list[Value], path: EqnPath, iteration: Iteration
    ) -> list[Value]:
        """Interpret the body of a scan once for each of its iterations."""
        n_consts, n_carry = compat.scan_split(eqn)
        consts, xs = ins[:n_consts], ins[n_consts + n_carry :]
        carry, length = ins[n_consts : n_consts + n_carry], eqn.params["length"]
        if not length:
            return [unknown(*ins)] * len(eqn.outvars)
        jaxpr, ys = eqn.params["jaxpr"], {}
        for k in reversed(range(length)) if eqn.params["reverse"] else range(length):
            slices = [slice_of(x, positions=True) if is_data(x) else x[k] for x in xs]
            outs = self._call(jaxpr, [*consts, *carry, *slices], path, (*iteration, k))
            carry, ys[k] = outs[:n_carry], outs[n_carry:]
        stacked = zip(*(ys[k] for k in range(length)), strict=True)
        return [*carry, *map(_stack, stacked)]

    def _at_site(self, value: Value, row: int, site: Site, eqn: JaxprEqn) -> Value:
        """Make a site a node: from here on gradients go to it."""
        node = Node(eqn.outvars[site.result].aval.size, row)
        number = self.graph.add(node)
        if not isinstance(value, Random):  # a constant has no second moment over units
            return value
        node.q = value.second
        if math.isnan(node.q):
            return self._restarted(value, number, site)
        if isinstance(value, FunctionOfGaussian):
            ones = np.ones(value.values.shape)
            return replace(value, derivatives=value.derivatives | {number: ones})
        if value.is_gaussian:
            self.graph.connect(value.gradient_factors, node)
            return gaussian(value.mean, node.q, number)
        return replace(value, gradient_factors=value.gradient_factors | {number: 1.0})

    def _restarted(self, value: Random, number: int, site: Site) -> Value:
        """Return a value with the measured moments, where theory has none."""
        node = self.graph[number]
        if self._may_be_statistic(value, site, node.size):
            return value
        self.graph.connect(value.gradient_factors, node)
        mean, second = self.measured[node.row]  # type: ignore[index]
        if site.parameter is not None and site.kind in ("matmul", "conv"):
            return gaussian(mean, second, number)
        return Moments(mean, second, {number: 1.0})

    def _may_be_statistic(self, value: Random, site: Site, size: int) -> bool:
        """Return whether a site may hold a mean or a variance of a batch, and not a signal."""
        smaller = any(self.graph[k].size > size for k in value.gradient_factors)
        return site.kind in ("elementwise", "op") or (site.kind == "norm" and smaller)

    def _with_node(self, value: Value, size: int) -> Value:
        """Return a Gaussian of which only moments are known as a node and argument of its own."""
        if not (isinstance(value, Moments) and value.is_gaussian):
            return value
        node = Node(size)
        self.graph.connect(value.gradient_factors, node)
        return gaussian(value.mean, value.second, self.graph.add(node))


def _stack(values: Sequence[Value]) -> Value:
    """Return the results of all iterations of a scan as one value."""
    if not any(map(is_data, values)):
        return jnp.stack(values)
    return mixture(scaled(moments(v), 1.0, 1 / len(values)) for v in values)


def _measured_second(record: xr.Dataset, direction: str) -> np.ndarray:
    name = second_moment_name(direction)
    if name not in record:
        return np.full(record.sizes["site"], np.nan)
    with np.errstate(over="ignore"):
        return 10 ** record[name].values


def _measured_moments(record: xr.Dataset) -> list[tuple[float, float]]:
    """Return the measured mean and second moment at each site; a mean that was not is zero."""
    second = _measured_second(record, "forward")
    ratio = record["forward_mean"].values if "forward_mean" in record else 0 * second
    mean = np.nan_to_num(ratio) * np.sqrt(second)
    return list(zip(mean.tolist(), second.tolist(), strict=True))
