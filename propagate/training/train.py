"""`train`: initialisers × activations × seeds × folds, trained side by side, to a record."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
import xarray as xr

from propagate import activations, batches
from propagate.batches import Batch, as_batch
from propagate.checks import (
    check_at_most,
    check_choice,
    check_count,
    check_number,
    random_key,
    several_devices,
)
from propagate.initializers import initializer
from propagate.network import Network
from propagate.record import provenance
from propagate.record.measures import select
from propagate.run import memory, plan
from propagate.run.grid import listed, unique
from propagate.run.sweep import Interrupted, Progress, fitted
from propagate.training import optimizers
from propagate.training.folds import Split
from propagate.training.task import Task
from propagate.training.trained import Trained
from propagate.training.training_record import Grid
from propagate.types import Array, LossKind, UnusableInput

RATES = {
    "sgd": (0.01, 0.03, 0.1),
    "momentum": (0.003, 0.01, 0.03),
    "adam": (0.0003, 0.001, 0.003),
    "adamw": (0.0003, 0.001, 0.003),
}
"""Learning rates that are tried by default: each pairing is told of at its own best."""
MEASURES = (
    *("q", "variance", "max", "weight_gradient_q", "activation_mean", "activation_dead_fraction"),
    *("activation_saturated_fraction", "symmetric_fraction"),
)
"""Statistics that are followed by default: what a verdict needs, and dead units."""
OptimizerName = Literal["sgd", "momentum", "adam", "adamw"]
ROWS = "data must be digits, or an .npz file with inputs and labels"
EVERY_ROW = 2**62


def train(
    net: Network,
    *,
    key: Array,
    init: Any = None,
    activation: Any = None,
    data: Batch | str = "digits",
    loss: LossKind = "cross_entropy",
    epochs: int = 10,
    batch: int = 32,
    seeds: int = 3,
    folds: int | None = None,
    held_out: float | None = None,
    optimizer: OptimizerName | Any = "sgd",
    learning_rate: float | Sequence[float] | None = None,
    weight_decay: float = 0.0,
    dropout: float | None = None,
    measures: Sequence[str] | None = MEASURES,
    progress: Progress | None = None,
) -> Trained:
    r"""Train every initialiser × activation pairing for real, and judge it by rows held out.

    All initialisers, learning rates, folds and seeds of an activation are trained together by one
    compiled program. They share what is random: the draws of a seed are those of `sweep` with the
    same key, up to their scale, and the order of the rows is the same. An epoch takes its rows in
    random order and whole batches. Weights that become infinite are an outcome, and no error: the
    loss is then recorded as infinite, and the accuracy as 0.

    Args:
        net: the network; its own `init` and `activation` where the grid has none. Its input and
            output sizes follow from the data.
        key: a JAX random key; everything random follows from it.
        init: initialisers, as `Network` takes them; a list, or one alone.
        activation: activations, likewise.
        data: a `Batch` with labels, `"digits"`, or the path of an `.npz` file with arrays `inputs`
            (or `x`) and `labels` (or `y`). It is taken as it is: standardise it before.
        loss: `"cross_entropy"` of classes, or `"mse"` of targets.
        epochs: how often all rows are gone through.
        batch: rows of an update.
        seeds: number of independent draws of weights and of orders of rows.
        folds: k of k-fold cross-validation, in which every row is held out once.
        held_out: the share of rows that is held out without folds; 0.2 by default.
        optimizer: `"sgd"`, `"momentum"` (0.9), `"adam"`, `"adamw"`, or a pair (init, update) such
            as Optax's, at rate 1.
        learning_rate: one, or several to choose from; by default three (`RATES`). A pairing's best
            is the one of the lowest training loss at the end, so that held-out rows choose nothing.
        weight_decay: $\lambda$ of L2, which adds $\lambda W$ to the gradient of every weight; for
            `"adamw"` the weights shrink by $\lambda$ times the learning rate instead. Biases are
            left alone.
        dropout: the share of units that is dropped in training; the family's own by default.
        measures: endings of the statistics to follow, as in `sweep`; None for all of them. They are
            of `batch` rows, without dropout, after every epoch.
        progress: called with (parts done, parts in all): an epoch of a few runs is one.

    Returns:
        What came of it: `.record` with dims (init, activation, fold, step, seed) and layer, besides
        learning_rate if there are several and without fold if there are none; `.findings`, the
        verdicts before the first step; `.outcomes()`, ranked. It prints as a table.

    Raises:
        UnusableInput: an argument that cannot be used, or data without labels that fit the loss.
        PropagateError: the runs do not fit in memory.
        Interrupted: stopped by the user; carries the record of what was reached.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
        >>> data, key = Batch(x, labels=(x[:, 0] > 0).astype(int)), jax.random.key(0)
        >>> net = Network(depth=2, width=16, activation="tanh")
        >>> found = train(net, init=["he_normal", "zeros"], data=data, key=key, seeds=2, epochs=10)
        >>> [outcome.init for outcome in found.outcomes()]
        ['he_normal', 'zeros']
    """
    for name, count in {"epochs": epochs, "batch": batch, "seeds": seeds}.items():
        check_count(name, count)
    check_number("weight_decay", weight_decay)
    if weight_decay < 0:
        raise UnusableInput(f"weight_decay must be 0 or more, got {weight_decay:g}")
    if isinstance(optimizer, str):
        check_choice("optimizer", optimizer, OptimizerName)
    decoupled = optimizer == "adamw"
    pair = optimizers.pair("adam" if decoupled else optimizer)
    key, rates = random_key(key), _rates(learning_rate, optimizer)
    rows, split = _rows(data, loss), Split(folds, held_out)
    net = fitted(_with_dropout(net, dropout), rows, loss)
    masks = split.masks(rows, np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel()))
    least = int((~masks).sum(axis=1).min())
    check_at_most("batch, out of the rows to train on,", batch, least)
    inits = [initializer(one) for one in listed(init) or [net.init]]
    phis = [activations.activation(one) for one in listed(activation) or [net.activation]]
    grid = Grid(
        net,
        unique("init", inits),
        unique("activation", phis),
        rates,
        len(masks),
        seeds,
        epochs,
        least // batch,
        select(measures, net.family.table),
        loss,
        tuple(float(np.var(rows.labels[mask])) for mask in masks) if loss == "mse" else (),
    )
    for one in grid.inits:
        net.check(one)
    task = Task(grid, key, rows, masks, pair, decoupled, weight_decay, batch)
    _check_memory(task)
    return Trained(_trained(task, progress, _attrs(task, optimizer)))


def _trained(task: Task, progress: Progress | None, attrs: dict[str, str]) -> xr.Dataset:
    """Run a task to its end; return the record, without dims that have no choice."""
    found, total = task.grid.empty().assign_attrs(attrs), task.groups * (task.grid.epochs + 1)
    alone = [name for name in ("learning_rate", "fold") if found.sizes[name] == 1]
    done = 0
    try:
        for done, reached in enumerate(task.run(), 1):
            task.grid.write(found, *reached)
            if progress:
                progress(done, total)
    except KeyboardInterrupt:
        raise Interrupted(found.squeeze(alone), done, total, "parts") from None
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        raise memory.explained(error) from error
    return found.squeeze(alone)


def _rows(data: Any, loss: LossKind) -> Batch:
    """Return the data with labels that fit the loss."""
    if loss == "gaussian":
        raise UnusableInput("loss must be cross_entropy or mse to train, got 'gaussian'")
    if not isinstance(data, (str, Batch)):
        raise UnusableInput(
            "data must be a Batch(inputs, labels), 'digits' or the path of an .npz file, "
            f"got {type(data).__name__}"
        )
    rows = as_batch(
        batches.load(data, EVERY_ROW, ROWS) if isinstance(data, str) else data, None, loss
    )
    assert rows is not None
    return rows


def _with_dropout(net: Network, dropout: float | None) -> Network:
    if dropout is None:
        return net
    return replace(net, family=replace(net.family, dropout=dropout))


def _rates(given: Any, optimizer: Any) -> tuple[float, ...]:
    """Return the learning rates to choose from."""
    if given is None:
        if not isinstance(optimizer, str):
            raise UnusableInput("an optimizer of your own needs a learning_rate, its multiple")
        return RATES[optimizer]
    rates = tuple(given) if isinstance(given, (Sequence, np.ndarray)) else (given,)
    for rate in rates:
        check_number("learning_rate", float(rate) if isinstance(rate, np.floating) else rate)
    if not rates or min(rates) <= 0 or len(set(rates)) < len(rates):
        raise UnusableInput(
            f"learning_rate must be one or more different numbers above 0, got {given!r}"
        )
    return tuple(map(float, rates))


def _check_memory(task: Task) -> None:
    grid = task.grid
    count = len(grid.inits) * len(grid.activations) * len(grid.rates) * grid.folds
    variables = 2 + sum(len(wanted) for _, wanted in grid.selection)
    memory.check_record(count * (grid.epochs + 1), grid.seeds, grid.net.depth, variables)
    task.check_memory()


def _attrs(task: Task, optimizer: Any) -> dict[str, str]:
    """Return where a record comes from; what a sweep says of its parameters, too."""
    grid, net = task.grid, task.grid.net
    device = several_devices(None)[0]
    return provenance.provenance(
        network=net.describe(),
        input=task.rows.origin,
        rows=len(task.rows.inputs),
        held_out=int(task.held_out[0].sum()),
        batch=task.batch,
        loss=grid.loss,
        optimizer=optimizer if isinstance(optimizer, str) else type(optimizer).__name__,
        learning_rates=grid.rates,
        weight_decay=task.decay,
        dropout=net.family.dropout,
        parameters=plan.facts(net, grid.inits, grid.activations),
        key=np.asarray(jax.random.key_data(task.key)).tolist(),
        device=f"{device.device_kind} ({device.platform})",
        dtype=str(net.dtype),
    )
