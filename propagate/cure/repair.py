"""`repair`: the fewest factors of single weights that bring a model's growth back into range."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from propagate.checks import random_key
from propagate.cure.factors import code_lines, redraws, refusals
from propagate.cure.factors.reading import growth as growth_of
from propagate.cure.factors.reading import worst
from propagate.cure.factors.scaling import scaled, tied
from propagate.cure.factors.search import Found, Search
from propagate.models import adapters
from propagate.models.diagnose import Diagnosis, Prepared, prepared
from propagate.models.losses import Named
from propagate.tracing.probe import Options
from propagate.types import Array, Direction, Tree, UnusableInput

GROWTH = 0.02
"""Decades per layer that a repaired model may grow by: 130 layers then keep within what is fine."""

CLEARLY = 0.8  # of the growth before: as much may be left where as many faults are


@dataclass(frozen=True)
class Repair:
    """What `repair` made of a model.

    Attributes:
        params: the parameters in the framework's own form: a new Equinox or NNX module, Linen's
            variables, Haiku's parameters, a function's tree, Keras's values by variable path.
            Where nothing was changed, what was given.
        multipliers: the factor of each parameter that is changed, by its path.
        redrawn: the standard deviation of each that was drawn anew, before its factor.
        before: the diagnosis of the model as it was.
        after: of the model as it is now.
        reasons: why faults that are left stay, and what keeps growth from the goal.
        measured: how often the model was run forward and backward in between.
    """

    params: Any
    multipliers: dict[str, float]
    redrawn: dict[str, float]
    before: Diagnosis
    after: Diagnosis
    reasons: tuple[str, ...]
    measured: int
    _code: str = field(repr=False, default="")
    _model: Any = field(repr=False, default=None)

    @property
    def changed(self) -> bool:
        """Whether any parameter is not what it was."""
        return bool(self.multipliers or self.redrawn)

    @property
    def growth(self) -> tuple[dict[Direction, float], dict[Direction, float]]:
        """Decades per layer before and after, in both directions."""
        return growth_of(self.before.record), growth_of(self.after.record)

    def table(self) -> Any:
        """Return each parameter that is changed, with its factor and its law before and after."""
        from propagate.report import repair_table

        records = self.before.record, self.after.record
        return repair_table.table(self.multipliers, self.redrawn, *records, str(self))

    def plot(self, ax: Any = None) -> Any:
        """Draw signal and gradient along the model before and after; return the axis."""
        from propagate import plot

        return plot.before_after(self.before.record, self.after.record, ax=ax)

    def code(self) -> str:
        """Return the lines of code that change the parameters likewise, at initialisation."""
        return self._code

    def summary(self) -> dict[str, Any]:
        """Return it for JSON: what is changed, growth before and after, and the code."""
        finite = lambda rates: {d: r if math.isfinite(r) else None for d, r in rates.items()}  # noqa: E731
        before, after = map(finite, self.growth)
        return {
            "multipliers": self.multipliers,
            "redrawn": self.redrawn,
            "growth_before": before,
            "growth_after": after,
            "faults_after": [str(fault) for fault in self.after.findings.faults],
            "reasons": list(self.reasons),
            "code": self.code(),
        }

    def set_weights(self) -> None:
        """Write the new values into a Keras model, which `repair` leaves as it is.

        Raises:
            UnusableInput: the model is of another framework: use `.params`.
        """
        if adapters.framework(self._model) != "keras":
            kind = adapters.kind(self._model)
            raise UnusableInput(f"set_weights is for Keras models, got {kind}: use .params")
        for variable, value in zip(
            self._model.trainable_variables, self.params.values(), strict=True
        ):
            variable.assign(value)

    def __str__(self) -> str:
        """Return what was done, growth before and after, and why what is left stays."""
        count = len(self.multipliers.keys() | self.redrawn.keys())
        if self.changed:
            done = f"{count} parameter{'s' * (count > 1)} changed"
        else:
            done = "nothing to repair" if not self.reasons else "nothing changed"
        before, after = self.growth
        rates = [
            f"{direction} {before[direction]:+.3f} → {after[direction]:+.3f}"
            for direction in before
            if math.isfinite(after[direction])
        ]
        head = f"{done}: {', '.join(rates)} decades per layer, {self.after.conclusion}"
        return "\n".join((head, *(f"left: {reason}" for reason in self.reasons)))


def repair(
    model: Any,
    *inputs: Any,
    key: Array,
    growth: float | None = None,
    loss: Callable[[Any, Any], Array] | Named | None = None,
    labels: Any = None,
    variables: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    vmap: bool = False,
    training: bool | None = None,
    kept_bytes: int | None = None,
) -> Repair:
    r"""Find the fewest factors of weights that bring growth into range, forward and backward.

    A model without faults comes back as it is. Of another, the places that are off are changed
    until those left alone make no growth beyond chance, and growth is at most `growth` per layer. A
    factor $m$ changes the levels of signal and gradient of a layer alike, by $2 \log_{10} m$: what
    both are off by together can be mended, what they differ by cannot. Only weights of products and
    embeddings get a factor, one each: gains of norms, biases and zeros that are meant stay; a
    weight that is used twice is one; weights that are all equal by mistake are drawn anew.

    Args:
        model: a function or a model of Flax, Equinox, Haiku or Keras, as `diagnose` takes it. It
            stays as it is.
        inputs: likewise.
        key: for all that is random.
        growth: decades per layer that are allowed, of a model without faults as well; by default
            `GROWTH` of one with faults.
        loss: as in `diagnose`.
        labels: for the loss.
        variables: of a Linen or Haiku model.
        kwargs: keyword arguments of every call.
        vmap: whether the model takes a single input.
        training: whether the model is in training.
        kept_bytes: as in `diagnose`.

    Returns:
        A `Repair`: `.params` in the framework's own form, `.multipliers`, `.before`, `.after`,
        `.reasons`, `.table()`, `.plot()` and `.code()`.

    Raises:
        UnusableInput: growth that is not positive, or what `diagnose` raises.
        PropagateError: as `diagnose` does.

    Example:
        >>> import jax.numpy as jnp
        >>> keys = jax.random.split(jax.random.key(0), 8)
        >>> params = [jax.random.normal(k, (64, 64)) / 8 for k in keys]
        >>> params[3] *= 100.0
        >>> def net(params, x):
        ...     for w in params:
        ...         x = x @ w
        ...     return x
        >>> fixed = repair(net, params, jnp.eye(64), key=jax.random.key(1))
        >>> list(fixed.multipliers), round(100 * fixed.multipliers["3"])
        (['3'], 1)
    """
    goal = _goal(growth)
    given = {"loss": loss, "labels": labels, "kept_bytes": kept_bytes, "vmap": vmap}
    given |= {"variables": variables, "kwargs": kwargs, "training": training}
    ready = prepared(model, *inputs, key=key, options=Options(), **given)
    params = ready.pure.params
    before = ready.diagnosis(params)
    unchanged = Repair(_as_given(model, inputs, variables, ready), {}, {}, before, before, (), 0)
    unchanged = replace(unchanged, _model=model)
    asked = growth is not None and goal < worst(growth_of(before.record)) < math.inf
    if not before.findings.faults and not asked:
        return unchanged
    drawn, stds, start = _drawn(ready, before, jax.random.fold_in(random_key(key), 1))
    scales = any(f.verdict in refusals.SCALES for f in start.findings.faults)
    if not (scales or stds or asked):
        return replace(unchanged, reasons=refusals.reasons(before.findings, None))
    same = tied(params, ready.names.parameters)
    found = Search(ready, drawn, goal, same, frozenset(stds)).run()
    new = scaled(drawn, ready.names.parameters, found.decades)
    after = ready.diagnosis(new)
    if not _better(before, after, found):
        return replace(unchanged, reasons=refusals.reasons(before.findings, found))
    why = refusals.reasons(after.findings, found) or (refusals.floor(found, goal),)
    return Repair(
        params=ready.pure.own(new),
        multipliers={name: 10 ** (d / 2) for name, d in found.decades.items()},
        redrawn=stds,
        before=before,
        after=after,
        reasons=tuple(filter(None, why)),
        measured=found.measured,
        _code=_code(model, ready, after, found.decades, stds),
        _model=model,
    )


def _as_given(model: Any, inputs: tuple[Any, ...], variables: Any, ready: Prepared) -> Any:
    """Return the parameters as they were given, in the same object if there is one."""
    kind = adapters.framework(model)
    if kind in ("nnx", "equinox"):
        return model
    if kind == "function" and variables is None and len(inputs) > 1:
        return inputs[0]
    return ready.pure.own(ready.pure.params) if variables is None else variables


def _drawn(
    ready: Prepared, start: Diagnosis, key: Array
) -> tuple[Tree, dict[str, float], Diagnosis]:
    """Draw anew what is all zero or all equal by mistake; return that and the diagnosis then.

    Behind a weight of zeros another one may show only then.
    """
    params, stds, table = ready.pure.params, {}, ready.names.parameters
    while names := [n for n in redraws.constants(start.record, start.findings) if n not in stds]:
        own = jax.random.fold_in(key, len(stds))
        params, new = redraws.redrawn(params, table, start.record, names, own)
        stds |= new
        start = ready.diagnosis(params)
    return params, stds, start


def _better(before: Diagnosis, after: Diagnosis, found: Found) -> bool:
    """Whether there are fewer faults, or as many and clearly less growth."""
    one, other = len(after.findings.faults), len(before.findings.faults)
    return one < other or (one == other and found.worst < CLEARLY * worst(growth_of(before.record)))


def _goal(growth: float | None) -> float:
    if growth is None:
        return GROWTH
    if not (isinstance(growth, (int, float)) and 0 < growth < math.inf):
        raise UnusableInput(
            f"growth must be a positive number of decades per layer, got {growth!r}: "
            f"leave it out for {GROWTH}"
        )
    return float(growth)


def _code(
    model: Any,
    ready: Prepared,
    after: Diagnosis,
    decades: Mapping[str, float],
    stds: Mapping[str, float],
) -> str:
    weight, sigma2 = (after.record[n].values for n in ("weight", "log10_weight_sigma2"))
    known = {str(n): 10.0**s for n, s in zip(weight, sigma2, strict=True) if math.isfinite(s)}
    factors = {name: 10 ** (d / 2) for name, d in decades.items()}
    own = adapters.framework(model), ready.pure.params, ready.names.parameters
    return code_lines.lines(*own, factors, stds, known)
