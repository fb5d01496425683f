"""`value_and_grad`: `jax.value_and_grad` that also returns statistics of signals and gradients.

    >>> import jax.numpy as jnp
    >>> loss = lambda params, x: jnp.mean(jnp.tanh(x @ params["w"]) ** 2)
    >>> params, x = {"w": 0.5 * jnp.eye(3)}, jnp.ones((2, 3))
    >>> step = jax.jit(value_and_grad(loss))
    >>> (value, grads), trace = step(params, x)
    >>> float(value) == float(loss(params, x)), grads["w"].shape
    (True, (3, 3))
    >>> record = trace.record()  # of the signal and its gradient, and of the parameters
    >>> record["name"].values.tolist(), record["weight"].values.tolist()
    (['w', 'w/tanh', 'w/integer_pow'], ['w'])
    >>> record["log10_forward_q"].values.round(2).tolist()
    [-0.6, -0.67, -1.34]

`probe` traces the function and finds its sites; `observed` runs it with these tapped, forward and
backward; the sums that come out are the `Trace`.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from propagate import _jax_compat as compat
from propagate.record.kept_values import Kept
from propagate.record.measures import Q
from propagate.tracing import weight_laws
from propagate.tracing.instrument import Probe, Seen, Slots, Stats
from propagate.tracing.probe import Options, Sites, keeping_values, probe, uncollected
from propagate.tracing.sites import Site
from propagate.tracing.trace import BACKWARD, Part, SiteNames, Trace
from propagate.tracing.trees import arguments, partition
from propagate.types import Array, Tree, UnusableInput

SAMPLE = 2**13
"""Numbers of a site that are looked at in a jitted step, by default: more for wide layers, of which
a few inputs and positions are kept. A trace of 310 sites of a GPT has 22 MB of them."""


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    measures: Sequence[str] | None = None,
    sites: Sites = "default",
    only: str | None = None,
    sample: int | None = SAMPLE,
    kept_bytes: int | None = None,
) -> Callable[..., tuple[tuple[Any, Any], Trace]]:
    """Return a function like `jax.value_and_grad(fun)` that also returns a `Trace`.

    It may be jitted, and holds no callback. The value and the gradients are those of `fun`.

    Args:
        fun: a function to a scalar, or to a pair (scalar, anything) with `has_aux`.
        argnums: what to differentiate by: the parameters. The other arguments are the data.
        has_aux: whether `fun` returns a pair.
        measures: endings of the variables to record, such as `("mean", "q")`; all by default.
        sites: `"default"`, or `"all"` for every floating-point operation.
        only: a pattern for the names of sites, such as `"blocks.*"`.
        sample: how many numbers of each site to look at: whole units, some inputs and positions. A
            largest magnitude and dead units are then those of the sample. None for all.
        kept_bytes: how much of these may be held at once; an eighth of the memory by default.
            Beyond it, all values of a site are summed where they are made, which takes longer to
            compile.

    Returns:
        A function to `((value, grads), trace)`; `trace.record()` is the labelled record. It raises
        `PropagateError` where no value depends on the data and can be recorded.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2)
        >>> (value, grads), trace = value_and_grad(loss)(jnp.eye(3), jnp.ones((2, 3)))
        >>> trace.record()["label"].values.tolist()
        ['matmul', 'tanh', 'integer_pow']
    """
    options = Options(None if measures is None else tuple(measures), sites, only)

    several = not isinstance(argnums, int)
    head = (lambda out: out) if has_aux else (lambda out: (out, None))

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> tuple[tuple[Any, Any], Trace]:
        numbers = [k % len(args) for k in np.atleast_1d(argnums)]
        params = tuple(args[k] for k in numbers)
        rest = [None if k in numbers else arg for k, arg in enumerate(args)]
        data, fill = partition((rest, kwargs), lambda x: isinstance(x, (jax.Array, np.ndarray)))

        def program(params: Any, data: Tree) -> Any:
            full, kwargs = fill(data)
            for k, arg in zip(numbers, params if several else (params,), strict=True):
                full[k] = arg
            return _returned(fun(*full, **kwargs))

        own = params if several else params[0]
        tapped, names = probe(program, own, data, options)
        keeping = keeping_values(tapped, sample, kept_bytes)
        done = observed(keeping, names, own, data, head)
        return (((done.value, done.aux) if has_aux else done.value), done.grads), done.trace

    return run


def _returned(out: Any) -> Any:
    if out is None:
        raise UnusableInput("the function returned None: return the loss")
    return out


class Pulled(NamedTuple):
    """What one evaluation of a probed program leaves behind; a pytree.

    Attributes:
        value: the scalar.
        aux: what else the program returned.
        seen: what was recorded at each site.
        grads: by the parameters; None without a backward pass.
        gradients: what was recorded of the gradient at each site.
    """

    value: Array
    aux: Any
    seen: Seen
    grads: Tree | None
    gradients: Slots


class Observed(NamedTuple):
    """A program's value, what else it returned, its gradients, and the statistics."""

    value: Array
    aux: Any
    grads: Tree | None
    trace: Trace


def observed(
    tapped: Probe,
    names: SiteNames,
    params: Tree,
    data: Tree,
    head: Callable[[Any], tuple[Array, Any]],
) -> Observed:
    """Run a program that was probed, and record its sites.

    Args:
        tapped: of `probe`.
        names: likewise.
        params: what to differentiate by.
        data: the batch and whatever else the program takes.
        head: from the program's result to a scalar and anything else.
    """
    # within a jitted step this is tracing, too; otherwise it is the user's own computation
    inside = any(map(compat.is_traced, arguments(params, data)))
    with uncollected() if inside else contextlib.nullcontext():
        got = pulled(tapped, params, data, head)
    return with_trace(tapped, names, params, got)


def _kept(tapped: Probe, got: Pulled) -> dict[Part, Kept]:
    """Return the values that sites handed out, with the sums that are wanted of them."""
    found: dict[Part, Kept] = {}

    def ask(site: Site, part: str, stats: Stats, sums: tuple[str, ...]) -> None:
        if "values" in stats:
            taken = tapped.taken(site)
            own = Kept(stats["values"], sums, site.layout, len(site.loops), taken)
            found[site.path, part] = own

    for path, site in tapped.sites.items():
        for part, sums in tapped.parts(site).items():
            ask(site, part, got.seen[path][part], sums)
        if path in got.gradients:
            ask(site, BACKWARD, got.gradients[path], tapped.gradient_sums())
    return found


def with_trace(tapped: Probe, names: SiteNames, params: Tree, got: Pulled) -> Observed:
    """Return what was evaluated, with a trace of what was recorded and of the parameters."""
    weights = names.parameters.sums(params, weight_laws.MOMENTS)
    of_weights = None if got.grads is None else names.parameters.sums(got.grads, (Q,))
    sums = got.seen, got.gradients, weights, of_weights
    taken = ((path, tapped.taken(site)) for path, site in tapped.sites.items())
    kept = tapped.kept or ()
    sampled = tuple((path, one.numbers) for path, one in taken if one and path in kept)
    wanted = tuple((part, one._replace(values=None)) for part, one in _kept(tapped, got).items())
    trace = Trace(*sums, names, wanted, sampled)
    return Observed(got.value, got.aux, got.grads, trace)


def pulled(
    tapped: Probe,
    params: Tree,
    data: Tree,
    head: Callable[[Any], tuple[Array, Any]],
    *,
    consts: list[Any] | None = None,
    backward: bool = True,
) -> Pulled:
    """Evaluate a probed program, forward and backward.

    Args:
        tapped: of `probe`.
        params: what to differentiate by.
        data: the batch and whatever else the program takes.
        head: from the program's result to a scalar and anything else.
        consts: in place of the program's own.
        backward: whether to take gradients too.
    """

    def scalar(params: Tree, slots: Slots) -> tuple[Array, Any]:
        outputs, seen = tapped(params, data, slots, consts)
        value, aux = head(outputs)
        return value, (aux, seen)

    if not backward:
        value, (aux, seen) = scalar(params, tapped.slots())
        return Pulled(value, aux, seen, None, {})
    run = jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True)
    (value, (aux, seen)), (grads, gradients) = run(params, tapped.slots())
    return Pulled(value, aux, seen, grads, gradients)
