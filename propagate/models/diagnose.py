"""`diagnose`: how signals and gradients travel through any JAX model, and what goes wrong first."""

import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate.checks import random_key
from propagate.models import beginning, observation, own_errors
from propagate.models.causes import refused
from propagate.models.causes.explain import explained
from propagate.models.causes.look import Look
from propagate.models.losses import Named, check_classes, loss_of
from propagate.models.pure_function import Pure, pure
from propagate.models.site_theory import theory
from propagate.record import storage
from propagate.record.provenance import how_it_ran
from propagate.tracing.instrument import Probe
from propagate.tracing.probe import Options, Sites, probe
from propagate.tracing.sites import Unopened
from propagate.tracing.trace import SiteNames
from propagate.tracing.value_and_grad import Observed
from propagate.types import Array, Tree
from propagate.verdicts.findings import Findings
from propagate.verdicts.judge import judge


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        record: the statistics, dims (site,) and (weight,); coordinates name, kind, parameter, …
        findings: what is wrong, worst first; empty for a healthy model.
        unopened: what was not looked into, each with the reason.
        outputs: of the model.
        program: the model as it was traced, for `theory`.
    """

    record: xr.Dataset
    findings: Findings
    unopened: tuple[Unopened, ...]
    outputs: Tree
    program: theory.TracedModel = field(repr=False)

    def theory(self) -> xr.Dataset:
        """Return what mean-field theory expects at each site, from the statistics of the weights.

        A record with dim (site,): `log10_forward_q`, `log10_backward_q`, NaN where theory has no
        answer, and `log10_forward_residual`, `log10_backward_residual`, measured less expected.
        It covers chains of products with independent centred weights, anything elementwise, norms
        over units, residual branches and dropout; behind anything else it starts again from what
        was measured (`chain`).
        """
        return theory.expected(self.program, self.record)

    def table(self, every: bool = False) -> Any:
        """Return the sites as a tree in model order, for `print` or `rich.print`."""
        from propagate.report import site_tree

        return site_tree.table(self.record, self.findings, every=every)

    def source(self) -> Any:
        """Return the user's own lines with (→ forward rms, ← backward rms), for `print`."""
        from propagate.report import source_lines

        return source_lines.source(self.record, self.findings)

    def plot(self, ax: Any = None, *, theory: bool = False) -> Any:
        """Draw signal and gradient along the sites, findings marked; return the axis.

        With `theory`, what is expected lies over them.
        """
        from propagate import plot

        ax = plot.variance(self.record, ax=ax, theory=self.theory() if theory else None)
        return plot.mark_findings(ax, self.record, self.findings)

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """Return flat numbers for TensorBoard or W&B."""
        from propagate.report.scalars import scalars

        return scalars(self.record, prefix)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the record as netCDF; `propagate.load` reads it."""
        return storage.save(self.record, path)

    def report(self, path: str | os.PathLike, more: Mapping[str, str] | None = None) -> Path:
        """Write one HTML page for a browser: verdict, pictures, table, source; return its path.

        Its `more` parts, text by title, follow the verdict: `pp.advise(found).part()` is one.
        """
        from propagate.report.html import page

        return page.write(self.record, path, self.findings, more=more)

    @property
    def conclusion(self) -> str:
        """What the findings amount to, such as `healthy: no findings at 13 sites`."""
        return self.findings.conclusion(self.record.sizes["site"])

    def __str__(self) -> str:
        """Return mode, conclusion, findings and what was not opened, one sentence a line."""
        how = how_it_ran(self.record)
        head = f"{self.record.attrs['model']}, {how}:" if how else ""
        opening = self.findings.opening(self.record.sizes["site"])
        lines = (head, opening, str(self.findings), *map(str, self.unopened))
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        from propagate.report import site_tree

        return site_tree.html(self.record, self.findings)


def diagnose(
    model: Any,
    *inputs: Any,
    key: Array,
    loss: Callable[[Any, Any], Array] | Named | None = None,
    labels: Any = None,
    variables: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    vmap: bool = False,
    training: bool | None = None,
    measures: Sequence[str] | None = None,
    sites: Sites = "default",
    only: str | None = None,
    sample: int | None = None,
    kept_bytes: int | None = None,
) -> Diagnosis:
    """Send inputs forward and gradients backward through a model, and say what goes wrong.

    The model is not edited: its program is traced, each matrix product, convolution, activation,
    normalisation and addition of branches is tapped, and named by the parameters that it uses.

    Args:
        model: a function `fn(params, *inputs)`, a Flax Linen or NNX module, an Equinox module, a
            Haiku `Transformed`, a Keras model on the JAX backend.
        inputs: arrays, in any tree, with inputs along the first axis; `jax.ShapeDtypeStruct`s
            are filled with random data. For a function, its parameters come first.
        key: for weights that are not given, random data, dropout, and the cotangent.
        loss: `loss(outputs, labels)`, a scalar, or `"mse"` or `"cross_entropy"` as in `sweep`; by
            default the gradient starts at the outputs, as a unit Gaussian.
        labels: for the loss.
        variables: of a Linen or Haiku model; initialised with `key` by default.
        kwargs: keyword arguments of every call, such as `{"train": True}`.
        vmap: whether the model takes a single input, and is to be mapped over the batch. An Equinox
            module that takes no batch, but each of its examples, is mapped by itself.
        training: whether the model is in training (statistics of the batch, dropout drawn with
            `key`) or in inference; by default what a training step does. Where `kwargs` or `inputs`
            hold the model's own switch, that decides. `record.attrs["mode"]` says which it was, and
            has no entry for a model without a switch.
        measures: endings of the variables to record beside q, such as `("mean",)`; all by default.
        sites: `"default"`, or `"all"` for every floating-point operation.
        only: a pattern for the names of sites, such as `"blocks.*"`.
        sample: how many numbers of each site to look at: whole units, some inputs and positions. A
            largest magnitude and dead units are then those of the sample. All by default.
        kept_bytes: how much of the signals and gradients may be held at once; an eighth of the
            memory by default. Beyond it, statistics are taken within the model's program, which
            then takes longer to compile; they stay the same.

    Raises:
        UnusableInput: not a model, no data, data that is not finite, an output or a loss without a
            gradient, an unknown measure, a pattern that matches nothing, labels without a loss, or
            labels that do not suit the named one, a negative number of bytes, or a sample of none.
        PropagateError: no value in the model depends on the inputs and can be recorded, or no
            gradient flows from the output.

    Example:
        >>> params = {"layers": [jnp.eye(4) * 0.5] * 9}
        >>> def net(params, x):
        ...     for w in params["layers"]:
        ...         x = x @ w
        ...     return x
        >>> x = jax.random.normal(jax.random.key(1), (8, 4))
        >>> found = diagnose(net, params, x, key=jax.random.key(0))
        >>> [(f.verdict.value, f.direction) for f in found.findings]
        [('vanishing', 'forward'), ('vanishing', 'backward')]
    """
    options = Options(None if measures is None else tuple(measures), sites, only)
    weights = {"variables": variables, "kwargs": kwargs, "vmap": vmap, "training": training}
    given = {"key": key, "loss": loss, "labels": labels, "options": options}
    given |= {"sample": sample, "kept_bytes": kept_bytes}
    ready = prepared(model, *inputs, **given, **weights)
    return ready.diagnosis(ready.pure.params)


@dataclass(frozen=True)
class Prepared:
    """A model whose program is compiled, to be diagnosed with its own parameters or with others.

    Attributes:
        name: of the model.
        pure: the model as a function, with its parameters.
        loss: of the outputs and labels, or None.
        data: inputs and labels.
        key: of the cotangent.
        tapped: its program.
        names: of its sites.
        observe: from parameters to what was observed.
        without: what is missing, as the gradient behind a loop that ends it.
    """

    name: str
    pure: Pure
    loss: Any
    data: tuple[tuple[Any, ...], Any]
    key: Array
    tapped: Probe
    names: SiteNames
    observe: Callable[[Tree], Observed] = field(repr=False)
    without: tuple[Unopened, ...] = ()

    def diagnosis(self, params: Tree) -> Diagnosis:
        """Return the diagnosis of the model with such parameters, of its own shapes and dtypes."""
        done, (_, labels) = self.observe(params), self.data
        check_classes(self.loss, labels, done.aux)
        found = done.trace.record()
        if not self.without:
            head = functools.partial(_head, key=self.key)
            found = explained(Look(self.tapped, self.names, params, self.data, head, found))
        found.attrs["model"] = self.name
        if self.pure.mode:
            found.attrs["mode"] = self.pure.mode
        if self.pure.mapped:
            found.attrs["mapped"] = "over the batch"
        found = beginning.with_inputs(found, self.names, self.data)
        found.attrs.update(beginning.alike_inputs(self.data[0], done.aux))
        found.attrs.update(beginning.first_loss(self.loss, done.value, done.aux, labels))
        unopened = (*self.names.unopened, *self.without)
        given = jax.tree.leaves(params), jax.tree.leaves(self.data)
        cotangents = _cotangents(done.aux, self.loss)
        program = theory.TracedModel(self.tapped.jaxpr, self.names, *given, cotangents)
        found.attrs["unopened"] = json.dumps([str(one) for one in unopened])
        return Diagnosis(found, judge(found).worst_first(), unopened, done.aux, program)


def prepared(
    model: Any,
    *inputs: Any,
    key: Array,
    loss: Callable[[Any, Any], Array] | Named | None = None,
    labels: Any = None,
    options: Options,
    sample: int | None = None,
    kept_bytes: int | None = None,
    **weights: Any,
) -> Prepared:
    """Trace a model and compile its program; the arguments are those of `diagnose`."""
    for_model, for_cotangent = jax.random.split(random_key(key))
    loss = loss_of(loss, labels)
    ready = pure(model, *inputs, key=for_model, **weights)
    labels = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, labels)
    data = (ready.inputs, labels)
    refused.check_finite("inputs", ready.inputs)
    refused.check_finite("labels", labels)
    with own_errors.told("the model", ready.params, ready.inputs):
        tapped, names = probe(_with_loss(ready.fn, loss), ready.params, data, options)
    refused.check_outputs(tapped.jaxpr.out_avals, tapped.structure, loss)
    spec = tapped, names, ready.params, data
    observe, without = _observer(*spec, for_cotangent, (kept_bytes, sample))
    name = getattr(model, "__name__", type(model).__name__)
    return Prepared(name, ready, loss, data, for_cotangent, tapped, names, observe, without)


def _cotangents(outputs: Tree, loss: Any) -> list[float]:
    """Return the second moment of the gradient at each result of `_with_loss`."""
    if loss is not None:
        return [math.nan, *(0.0 for _ in jax.tree.leaves(outputs))]
    return [float(jnp.issubdtype(x.dtype, jnp.floating)) for x in jax.tree.leaves(outputs)]


def _with_loss(fn: Callable[..., Any], loss: Callable[[Any, Any], Array] | None) -> Any:
    """Return `run(params, (inputs, labels)) -> (loss or None, outputs)`."""

    def run(params: Tree, data: tuple[tuple[Any, ...], Any]) -> tuple[Any, Any]:
        inputs, labels = data
        outputs = refused.returned(fn(params, *inputs))
        return (None if loss is None else loss(outputs, labels)), outputs

    return run


def _head(out: tuple[Array | None, Tree], key: Array) -> tuple[Array, Tree]:
    """Return what gradients start at, and the outputs, from the results of `_with_loss`."""
    value, outputs = out
    return _dot(outputs, key) if value is None else value, outputs


def _observer(
    tapped: Probe,
    names: SiteNames,
    params: Tree,
    data: Tree,
    key: Array,
    amount: tuple[int | None, int | None],
) -> tuple[Callable[[Tree], Observed], tuple[Unopened, ...]]:
    """Compile the model forward and backward, or forward alone where a loop ends its gradient."""
    compiled = functools.partial(
        observation.observer, tapped, names, params, data, _head, key, *amount
    )
    try:
        return compiled(), ()
    except ValueError as error:
        # a loop may also stand where no gradient flows, so that only JAX can tell
        if not any(one.ends_gradient for one in names.unopened):
            raise
        reason = str(error).splitlines()[0]
    return compiled(backward=False), (Unopened("gradient", 0, reason, None),)


def _dot(outputs: Tree, key: Array) -> Array:
    """Return the product of the outputs with a unit Gaussian, which is then their cotangent."""
    total = jnp.zeros(())
    for k, out in enumerate(jax.tree.leaves(outputs)):
        if jnp.issubdtype(out.dtype, jnp.floating):
            g = jax.random.normal(jax.random.fold_in(key, k), out.shape, jnp.float32)
            total += jnp.sum(out * g.astype(out.dtype), dtype=jnp.float32)
    return total
