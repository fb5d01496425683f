"""The compiled part of training: an epoch of steps, and a look at what it led to.

    advance(recipe, data, run, state, epoch) -> state, what the steps saw
    look(recipe, data, run, state)           -> held-out loss and share, statistics per layer

Both are for several runs side by side, which `jax.vmap` makes one program of: initialisers, folds,
seeds and learning rates differ only in the numbers that they are fed.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from propagate.record.measures import Q
from propagate.record.scaled import observe as observed
from propagate.record.scaled import rescale
from propagate.training import stack as stacks
from propagate.training.optimizers import Optimizer
from propagate.training.stack import Params, Stack
from propagate.types import Array, Tree, at_least_float32


@dataclass(frozen=True)
class Recipe:
    """What is fixed of a training run; hashable, so that a program can be compiled for it.

    Attributes:
        training: the stack of a step.
        inference: the same without dropout.
        optimizer: its two functions, at learning rate 1.
        decoupled: whether weights decay by themselves (AdamW) rather than by their gradient (L2).
        steps: updates of an epoch.
        batch: rows of a step.
    """

    training: Stack
    inference: Stack
    optimizer: Optimizer
    decoupled: bool
    steps: int
    batch: int


class Data(NamedTuple):
    """What all runs are trained on.

    Attributes:
        inputs: (rows, features).
        labels: (rows,) classes, or (rows, outputs) targets.
        probe: rows whose statistics are followed.
    """

    inputs: Array
    labels: Array
    probe: Array


class Run(NamedTuple):
    """The numbers of one run; stacked along a leading axis, of those side by side.

    Attributes:
        key: of its order of rows and of what is dropped.
        rate: the learning rate.
        decay: of its weights.
        held_out: which rows are, (rows,).
        tested: those rows, filled up to the longest fold by any.
        counted: which of them count.
    """

    key: Array
    rate: Array
    decay: Array
    held_out: Array
    tested: Array
    counted: Array


class State(NamedTuple):
    """What a step leads on: the parameters, and what the optimiser keeps."""

    params: Params
    kept: Any


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def advance(recipe: Recipe, data: Data, run: Run, state: State, epoch: Array, phi: Array):
    """Train every run for an epoch; return the states, and what the steps saw of each.

    Rows come in an order of the epoch's own, in whole batches: a rest is left for another epoch.
    """

    def one(run: Run, state: State) -> tuple[State, dict[str, Any]]:
        key = jax.random.fold_in(run.key, epoch)
        turn = jax.random.uniform(key, run.held_out.shape) + run.held_out
        rows = jnp.argsort(turn)[: recipe.steps * recipe.batch]
        steps = jnp.arange(recipe.steps), rows.reshape(recipe.steps, recipe.batch)
        empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), _sizes_like(state))
        step = functools.partial(_step, recipe, data, run, phi, key)
        (state, sizes), (losses, shares) = jax.lax.scan(step, (state, empty), steps)
        return state, {"loss": jnp.mean(losses), "share": jnp.mean(shares), **sizes}

    return jax.vmap(one)(run, state)


def _step(recipe: Recipe, data: Data, run: Run, phi: Array, key: Array, carry: Any, own: Any):
    """Make one update; the last of an epoch says how large it is."""
    (state, sizes), (step, rows) = carry, own
    x, y = data.inputs[rows], data.labels[rows]
    stack, dropped = recipe.training, jax.random.fold_in(key, step)

    def loss(params: Params) -> tuple[Array, Array]:
        out = stacks.outputs(stack, params, phi, x, dropped)
        return stacks.loss_of(stack, out, y), out

    (value, out), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    weights = stacks.weights(stack)
    if not recipe.decoupled:
        grads = _decayed(grads, state.params, weights, run.decay)
    updates, kept = recipe.optimizer.update(grads, state.kept, state.params)
    if recipe.decoupled:
        updates = _decayed(updates, state.params, weights, -run.decay)
    updates = jax.tree.map(lambda u: run.rate.astype(u.dtype) * u, updates)
    last = step == recipe.steps - 1
    sizes = jax.lax.cond(last, _sizes, lambda *_: sizes, updates, state.params)
    params = jax.tree.map(jnp.add, state.params, updates)
    return (State(params, kept), sizes), (value, _share(stack, out, y, value))


def _decayed(moved: Tree, params: Tree, weights: Tree, decay: Array) -> Tree:
    """Add a multiple of the weights, and of nothing else, to their gradient or update."""
    return jax.tree.map(
        lambda g, p, is_weight: g + decay.astype(p.dtype) * p if is_weight else g,
        moved,
        params,
        weights,
    )


def _share(stack: Stack, out: Array, y: Array, loss: Array) -> Array:
    """Return the share of inputs whose class is found; of a loss that is no number, none is."""
    if stack.loss != "cross_entropy":
        return jnp.full((), jnp.nan)
    right = (jnp.argmax(out, axis=-1) == y) & jnp.isfinite(loss)
    return jnp.mean(right.astype(jnp.float32))


def _sizes(updates: Params, params: Params) -> dict[str, dict[str, Array]]:
    """Return the second moments, layer by layer, of the weights and of their update."""
    return {"update": _per_layer(updates), "weight": _per_layer(params)}


def _per_layer(params: Params) -> dict[str, Array]:
    rows = []
    for own in params:
        flat = [a.reshape(a.shape[0], 1, -1) for a in own.values() if a.ndim > 2]
        wide = [a.astype(at_least_float32(a.dtype)) for a in flat]
        rows.append(observed(rescale(jnp.concatenate(wide, axis=-1)), (Q,)))
    return {name: jnp.concatenate([row[name] for row in rows]) for name in rows[0]}


def _sizes_like(state: State) -> Any:
    return jax.eval_shape(_sizes, state.params, state.params)


@functools.partial(jax.jit, static_argnums=0)
def look(recipe: Recipe, data: Data, run: Run, state: State, phi: Array):
    """Return the loss on held-out rows, the share found, and the statistics of every layer."""
    stack = recipe.inference

    def one(run: Run, params: Params) -> dict[str, Any]:
        x, y = data.inputs[run.tested], data.labels[run.tested]
        out = stacks.outputs(stack, params, phi, x, run.key)
        seen = stacks.observe(stack, params, phi, data.inputs[data.probe], data.labels[data.probe])
        each = jax.vmap(lambda out, y: stacks.loss_of(stack, out[None], y[None]))(out, y)
        total = jnp.sum(run.counted)
        loss = jnp.sum(jnp.where(run.counted > 0, each, 0)) / total
        found = jax.vmap(lambda *row: _share(stack, *row))(out, y, each)
        share = jnp.sum(jnp.where(run.counted > 0, found, 0)) / total
        return {"loss": loss, "share": share, "seen": seen}

    return jax.vmap(one)(run, state.params)


@functools.partial(jax.jit, static_argnums=0)
def start(recipe: Recipe, params: Params) -> State:
    """Return the states before the first step, of runs side by side."""
    return State(params, jax.vmap(recipe.optimizer.init)(params))
