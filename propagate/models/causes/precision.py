r"""What is lost in a dtype of few exponents: gradients and signals flushed to zero.

The gradient is linear in the loss, so that the model itself says what its dtype loses: with the
loss times $2^k$ what was flushed comes back, and what is zero for another reason (a ReLU's mask)
stays zero. `flushed` runs it with the largest $2^k$ that overflows nowhere, and compares zeros.

A signal is not linear in anything. Where one is near the dtype's smallest numbers, each operation
of such a dtype is done once more in float32 (`signals`).
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate import _jax_compat as compat
from propagate._jax_compat import JaxprEqn
from propagate.models.causes.look import Look
from propagate.record import measures
from propagate.record.sums import kept, needed
from propagate.tracing.primitives import LAYOUT
from propagate.tracing.trees import ParameterTable
from propagate.tracing.value_and_grad import observed
from propagate.types import Array

WIDE = np.finfo(np.float32).minexp  # exponents of float32: a dtype with as many loses nothing
HEADROOM = 2  # powers of two between the largest gradient at a site and the dtype's largest
TRIES = 5  # runs until one overflows nowhere
STEP = 6  # powers of two from one try to the next
MOST = 120  # so that 2^k is a float32
START = 24  # the power of two where every gradient is zero, and nothing tells how small they are
SLIGHT = 0.001  # share of gradients that may be flushed with the scale that is recommended
NEAR = 6.0  # decades above the dtype's smallest normal number from which signals are looked at


def narrow(program: Any) -> list[np.dtype]:
    """Return the dtypes of fewer exponents than float32 in which a program computes."""
    body, _ = compat.opened(program)
    found: dict[np.dtype, None] = {}
    for eqn in body.eqns:
        avals: list[Any] = [v.aval for v in eqn.outvars]
        found.update({aval.dtype: None for aval in avals if is_narrow(aval)})
        for inside in compat.inner(eqn):
            found.update(dict.fromkeys(narrow(inside)))
    return list(found)


def is_narrow(value: Any) -> bool:
    """Return whether an array, or what stands for it, has fewer exponents than float32."""
    dtype = getattr(value, "dtype", None)
    return (
        dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).minexp > WIDE
    )


def log10_smallest(dtypes: list[np.dtype]) -> float:
    """Return log10 of the smallest positive number of the dtype that flushes first."""
    return max(math.log10(float(jnp.finfo(d).smallest_subnormal)) for d in dtypes)


class Flushed(NamedTuple):
    """What a gradient loses to its dtype.

    Attributes:
        sites: share of the gradient's elements at each site that are flushed to zero, of those that
            are not zero for another reason, (site,).
        weights: the same of each parameter's gradient, (weight,).
        subnormal: share at each site that is below the smallest normal number, not zero, (site,).
        least: log2 of the smallest factor of the loss with which next to nothing is flushed.
        most: of the largest with which nothing overflows.
    """

    sites: np.ndarray
    weights: np.ndarray
    subnormal: np.ndarray
    least: float
    most: float


class _Run(NamedTuple):
    """Zeros and sizes of one evaluation, (site,) and (weight,); `top` is log2 of the largest."""

    sites: np.ndarray
    subnormal: np.ndarray
    weights: np.ndarray
    top: float
    finite: bool


def flushed(look: Look, dtypes: list[np.dtype]) -> Flushed:
    """Return what the gradient loses to its dtypes, and the scales of the loss that mend it."""
    room = min(math.log2(float(jnp.finfo(d).max)) for d in dtypes) - HEADROOM
    own = _run(look, 0)
    k = math.floor(room - own.top) if own.top > -math.inf else START
    k = min(k, MOST) if own.finite else -STEP
    best = own
    for _ in range(TRIES):
        best = _run(look, k)
        if best.finite and best.top > -math.inf:
            break
        k += 2 * STEP if best.finite else -STEP
    if not best.finite:
        best, k = own, 0
    sites, weights = _lost(own.sites, best.sites), _lost(own.weights, best.weights)
    least = 0.0
    if not own.finite or (sites > SLIGHT).any() or (weights > SLIGHT).any():
        least = _least(look, best, k)
    if not own.finite:
        sites, weights = np.full_like(sites, np.nan), np.full_like(weights, np.nan)
    return Flushed(sites, weights, own.subnormal, least, float(k))


def _lost(zeros: np.ndarray, fewest: np.ndarray) -> np.ndarray:
    """Return the share that is zero, of what need not be."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (zeros - fewest) / (1 - fewest)
    return np.where(fewest < 1, np.maximum(share, 0), 0)


def _least(look: Look, best: _Run, most: int) -> float:
    """Return the smallest power of two, by halving, with which next to nothing is flushed."""
    low, high = min(0, most - STEP), most
    while high - low > 1:
        middle = (low + high) // 2
        run = _run(look, middle)
        more = [_lost(run.sites, best.sites), _lost(run.weights, best.weights)]
        enough = all(not (x > SLIGHT).any() for x in more)
        low, high = (low, middle) if enough else (middle, high)
    return float(high)


def _run(look: Look, k: int) -> _Run:
    """Run the model with its loss times 2^k."""
    wanted = measures.select(("q", "zero_fraction", "subnormal_fraction"), measures.SITE_MEASURES)
    tapped = replace(look.tapped, selection=wanted)

    def head(outputs: Any) -> tuple[Array, Any]:
        value, aux = look.head(outputs)
        wide = jnp.promote_types(value.dtype, jnp.float32)
        return value.astype(wide) * jnp.asarray(2.0**k, wide), aux

    done = observed(tapped, look.names, look.params, look.data, head)
    names = replace(look.names, selection=wanted)
    trace = replace(done.trace, names=names)
    record = trace.record()
    zeros, subnormal = (record[f"backward_{n}_fraction"].values for n in ("zero", "subnormal"))
    table, grads = look.names.parameters, jax.tree.leaves(done.grads)
    shares, tops = _of_parameters(table, grads)
    sizes = [*tops, *_tops(look, done.trace)]
    finite = all(map(math.isfinite, sizes))
    top = max((math.log2(x) for x in sizes if 0 < x < math.inf), default=-math.inf)
    return _Run(zeros, subnormal, shares, top, finite)


def _of_parameters(table: ParameterTable, grads: list[Any]) -> tuple[np.ndarray, list[float]]:
    """Return the share of zeros in each row's gradient, and the largest magnitudes."""
    shares, tops = [], []
    for number, index in table.rows():
        g = np.asarray(grads[number])[index].astype(np.float64)
        shares.append(float(np.mean(g == 0)) if g.size else math.nan)
        tops.append(float(np.max(np.abs(g))) if g.size else 0.0)
    return np.array(shares), tops


def _tops(look: Look, trace: Any) -> Iterator[float]:
    """Yield the largest magnitude of the gradient at each site."""
    for site in look.names.sites:
        stats = trace.gradients[site.path]
        values = kept(stats, needed((measures.Q,)), site.layout)
        yield float(np.max(np.asarray(values["largest"], np.float64)))


def signals(look: Look, dtypes: list[np.dtype]) -> tuple[np.ndarray, list[str]]:
    """Return the share of each site's signal that its dtype flushed to zero, and what did it.

    An operation that is no site counts for the next one.
    """
    rows = look.record.sizes["site"]
    shares, by = np.full(rows, np.nan), [""] * rows
    if not _near_the_end(look, dtypes):
        return shares, by
    tape = look.tape
    for step in tape.steps:
        outs = [k for k in step.outs if is_narrow(jnp.asarray(tape.values[k]))]
        if not outs or step.eqn.primitive.name in LAYOUT - {"convert_element_type"}:
            continue
        exact = _in_float32(step.eqn, [tape.values[k] for k in step.ins])
        if exact is None:
            continue
        own, wide = np.asarray(tape.values[outs[0]]).astype(np.float64), exact.astype(np.float64)
        share = float(np.mean((own == 0) & (wide != 0))) if own.size else 0.0
        k = min(look.site(step) + (share > 0 and not look.is_site(step)), rows - 1)
        if k >= 0 and not 2 * shares[k] >= share:  # the first, unless a later one loses more
            shares[k], by[k] = share, look.operation(step)
    return shares, by


def _near_the_end(look: Look, dtypes: list[np.dtype]) -> bool:
    """Return whether some signal is zero or next to the smallest numbers of a dtype."""
    tiny = max(math.log10(float(jnp.finfo(d).tiny)) for d in dtypes)
    rms = look.record["log10_forward_q"].values / 2
    return bool((rms < tiny + NEAR / 2).any())


def _in_float32(eqn: JaxprEqn, ins: list[Any]) -> np.ndarray | None:
    """Return the first result of an equation done in float32; None where it cannot be."""
    if any(True for _ in compat.inner(eqn)):
        return None
    raised = [jnp.asarray(x, jnp.float32) if is_narrow(jnp.asarray(x)) else x for x in ins]
    options = {
        k: jnp.dtype(jnp.float32) if k in ("new_dtype", "preferred_element_type") and v else v
        for k, v in eqn.params.items()
    }
    try:
        out = eqn.primitive.bind(*raised, **eqn.primitive.get_bind_params(options))
    except (TypeError, ValueError):
        return None
    return np.asarray(out[0] if eqn.primitive.multiple_results else out)
