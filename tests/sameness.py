"""How far an instrumented program is from the plain one, in units of the plain one's rounding.

XLA fuses differently around a tap, so that results may differ in their last digits, and in more of
them where a model magnifies rounding (batch normalisation of two nearly equal inputs does). So the
difference is judged against what the plain program makes of parameters whose last bit is changed.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import propagate as pp
from propagate.models.pure_function import pure
from propagate.tracing.probe import Options, probe

KEY = jax.random.key(7)


def scalar_of(model: Any, inputs: Any, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return a scalar function of parameters and data (outputs times Gaussian noise), and both."""
    ready = pure(model, *inputs, key=KEY, **options)

    def scalar(params: Any, data: Any) -> jax.Array:
        outs = jax.tree.leaves(ready.fn(params, *data))
        floats = [x for x in outs if jnp.issubdtype(x.dtype, jnp.floating)]
        noise = [jax.random.normal(jax.random.key(k), x.shape) for k, x in enumerate(floats)]
        return sum(jnp.sum(a * x) for a, x in zip(noise, floats, strict=True))

    return scalar, ready.params, ready.inputs


def with_products_tapped(scalar: Any, params: Any, data: Any) -> Any:
    """Return the value and gradients, and the statistics, with a tap at each product only."""
    tapped, _ = probe(scalar, params, data, Options(("q",)))
    only = {p: s for p, s in tapped.sites.items() if s.kind in ("matmul", "conv")}
    ours = replace(tapped, sites=only)

    @jax.jit
    def run(params: Any, data: Any) -> Any:
        def value(params: Any, slots: Any) -> Any:
            return ours(params, data, slots)

        pulled = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)(params, ours.slots())
        (out, seen), (grads, gradients) = pulled
        return (out, grads), (seen, gradients)

    return run(params, data)[0]


def last_bit(params: Any) -> Any:
    """Return the parameters, each float moved by one unit in its last place, up or down."""

    def moved(k: int, x: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            return x
        x = np.asarray(x)
        up = np.random.default_rng(k).random(x.shape) < 0.5
        return jnp.asarray(np.nextafter(x, np.where(up, np.inf, -np.inf).astype(x.dtype)))

    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten([moved(k, x) for k, x in enumerate(leaves)])


def apart(a: Any, b: Any) -> list[float]:
    """Return the largest difference between two trees, leaf by leaf."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0)) for x, y in pairs]


def compared(model: Any, inputs: Any, options: dict[str, Any]) -> tuple[float, float]:
    """Return the difference with a tap at each product, and at each default site.

    In units of what one last bit of every parameter does to the same leaf, or of the leaf's own
    last bit; the largest over the value and all gradients. Zero: bitwise the same.
    """
    scalar, params, data = scalar_of(model, inputs, options)
    plain = jax.jit(jax.value_and_grad(scalar))
    own = plain(params, data)
    size = [float(np.max(np.abs(x), initial=0)) for x in jax.tree.leaves(own)]
    moved = apart(plain(last_bit(params), data), own)
    unit = [max(m, np.finfo(np.float32).eps * s) or 1 for m, s in zip(moved, size, strict=True)]
    every, _ = jax.jit(pp.value_and_grad(scalar, measures=("q",)))(params, data)
    products = with_products_tapped(scalar, params, data)
    worst = lambda ours: max(d / u for d, u in zip(apart(ours, own), unit, strict=True))  # noqa: E731
    return worst(products), worst(every)
