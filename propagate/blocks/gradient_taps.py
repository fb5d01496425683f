"""The custom derivatives of a layer: of weights, signals and activations that are recorded."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from propagate.activations import Activation
from propagate.record.measures import Measure
from propagate.record.scaled import observe, per_config, power_of_two, rescale
from propagate.types import Array, Precision, Tree, at_least_float32

Op = Callable[[Array, Array], Array]  # (weight, x) -> u, linear in both


def matmul(weight: Array, x: Array, precision: Precision) -> Array:
    """Return x W, summed in float32 or wider."""
    wide = at_least_float32(weight.dtype)
    return jnp.matmul(x, weight, precision=precision, preferred_element_type=wide)


def _statistics(measures: tuple[Measure, ...], x: Array) -> Tree:
    """Return the statistics of one array, all as floats."""
    seen = observe(rescale(x[None]), measures)
    return {name: value[0].astype(jnp.float32) for name, value in seen.items()}


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def watched(op: Op, measures, weight: Array, x: Array, scale: Array, slot: Tree) -> Array:
    """Multiply by scale·weight; the cotangent of `slot` is the statistic of the gradient."""
    return op(weight, x) * scale


def _watched_forward(op: Op, measures, weight, x, scale, slot):
    return op(weight, x) * scale, (weight, x, scale)


def _watched_back(op: Op, measures, kept, g):
    weight, x, scale = kept
    (into,) = jax.linear_transpose(partial(op, weight), x)(g * scale)
    (dw,) = jax.linear_transpose(lambda w: op(w, x), weight)(g)
    # undo the transposition that JAX's rule ends with: it costs a copy and changes no statistic
    return None, into, None, _statistics(measures, jnp.swapaxes(dw, -1, -2))


watched.defvjp(_watched_forward, _watched_back)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tapped(measures, x: Array, slot: Tree) -> Array:
    """Return x; the cotangent of `slot` is the statistic of that of x."""
    return x


tapped.defvjp(lambda measures, x, slot: (x, None), lambda m, _, g: (g, _statistics(m, g)))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def activated(
    phis: tuple[Activation, ...], columns: tuple[int, ...], index: Array, h: Array
) -> tuple[Array, Array]:
    """Return phi(h) and phi'(h) of the activation of that index; only phi'(h) is kept.

    A traced index picks a branch, so that one program serves all activations. Where `columns`
    says beforehand which activation each configuration has, none of the others is computed.
    """
    if columns:
        return _by_column(phis, columns)(index, h)
    return jax.lax.switch(index, [partial(_with_slope, phi) for phi in phis], h)


@activated.defjvp
def _activated_jvp(phis, columns, primals, tangents):
    x, slope = activated(phis, columns, *primals)
    return (x, slope), (slope * tangents[1], jnp.zeros_like(slope))


def _with_slope(phi: Activation, h: Array) -> tuple[Array, Array]:
    x, slope = phi.with_slope(h)
    return x.astype(h.dtype), slope.astype(h.dtype)


def _by_column(phis: tuple[Activation, ...], columns: tuple[int, ...]) -> Callable[..., Any]:
    """Return `activated` for configurations side by side, each slice with its own activation.

    The identity, the last of `phis`, takes the place of any of them where the index says so.
    """

    @jax.custom_batching.custom_vmap
    def run(index: Array, h: Array) -> tuple[Array, Array]:
        return jax.lax.switch(index, [partial(_with_slope, phi) for phi in phis], h)

    @run.def_vmap
    def _(size: int, batched: Any, index: Array, h: Array) -> tuple[Any, Any]:
        assert size == len(columns) and all(batched), "configurations are the axis that is mapped"
        ends = [k for k in range(size) if k == 0 or columns[k] != columns[k - 1]] + [size]
        parts = [_with_slope(phis[columns[a]], h[a:b]) for a, b in itertools.pairwise(ends)]
        x, slope = (jnp.concatenate(each) for each in zip(*parts, strict=True))
        plain = per_config(index == len(phis) - 1, h)
        return (jnp.where(plain, h, x), jnp.where(plain, 1, slope)), (True, True)

    return run


def to_unit_variance(scale: Array, u: Array) -> Array:
    """Return the scale that gives the product a standard deviation of `scale`."""
    y, k = rescale(jax.lax.stop_gradient(u)[None])
    std = jnp.std(y)
    return scale * power_of_two(-k[0], y.dtype) / jnp.where(std == 0, 1, std)
