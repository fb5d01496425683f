"""Where training starts: the inputs that reach the first layer, and a classifier's first loss.

    loss(outputs, labels)       27.1         on an untrained network
    loss(0, labels)              2.30        ln 10: it is a cross-entropy of ten classes

What a loss is, is told by what it gives for equal logits or equal probabilities.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate.tracing.trace import SiteNames
from propagate.types import Array, Tree

SAME = 0.01  # of a loss: what smoothing of labels and rounding add
ELEMENTS = 1 << 20  # of an input that are looked at


def with_inputs(record: xr.Dataset, names: SiteNames, data: Sequence[Any]) -> xr.Dataset:
    """Return the record with mean and standard deviation of what comes in, at each first layer.

    Args:
        record: of the sites.
        names: of the sites.
        data: the flat arguments of the program after its parameters.

    Returns:
        The record with `input_mean`, `input_sd` (root of the variance over inputs, averaged over
        elements, or over all elements if that is larger) and `input_number`, NaN where a layer does
        not take an input, or one times and plus a number.
    """
    taken: dict[int, tuple[float, float]] = {}
    columns = np.full((3, record.sizes["site"]), np.nan)
    offset = len(names.parameters.paths)
    for row, (site, _) in enumerate(names.rows()):
        if site.reads is None:
            continue
        number = site.reads.number - offset
        if number not in taken:
            taken[number] = _mean_and_sd(data[number])
        mean, sd = taken[number]
        scale, shift = site.reads.scale, site.reads.shift
        columns[:, row] = scale * mean + shift, abs(scale) * sd, number
    if not taken:
        return record
    of = ("input_mean", "input_sd", "input_number")
    return record.assign({k: ("site", v) for k, v in zip(of, columns, strict=True)})


def _mean_and_sd(x: Any) -> tuple[float, float]:
    values = np.asarray(x)
    step = max(values.size // ELEMENTS, 1)
    flat = values.reshape(-1)[::step].astype(np.float64)
    return float(flat.mean()), float(flat.std())


def first_loss(
    loss: Callable[[Any, Any], Array] | None, value: Any, outputs: Tree, labels: Any
) -> dict[str, float]:
    """Return what a record says of a classifier's first loss; nothing of another loss.

    Args:
        loss: of outputs and labels.
        value: what it gave.
        outputs: of the model.
        labels: for the loss.

    Returns:
        `loss` and `loss_by_chance`, of equal probabilities, in nats per label; `classes`;
        `logit_sd`, the standard deviation of the logits in a row; `largest_probability`, its mean.
    """
    leaves = jax.tree.leaves(outputs)
    if loss is None or len(leaves) != 1 or not _may_be_logits(leaves[0]):
        return {}
    out, structure = leaves[0], jax.tree.structure(outputs)
    classes = int(out.shape[-1])
    at = lambda number: float(loss(structure.unflatten([jnp.full_like(out, number)]), labels))  # noqa: E731
    rows = out.size // classes
    for equal, logs in ((0.0, False), (1 / classes, True)):
        chance, count = _by_chance(at(equal), classes, rows)
        if count:
            logits = np.asarray(out, np.float64)
            if logs:
                logits = np.log(np.maximum(logits, np.finfo(np.float32).tiny))
            return _of_logits(logits, chance) | {
                "loss": float(value) / count,
                "loss_by_chance": chance,
                "classes": float(classes),
            }
    return {}


def _may_be_logits(x: Any) -> bool:
    real = jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 1 and x.size > 0
    return bool(real) and bool(jnp.isfinite(x).all())


def _by_chance(value: float, classes: int, rows: int) -> tuple[float, int]:
    """Return ln K, or ln 2 of labels by themselves, and over how many labels the loss is a sum."""
    for chance in (math.log(max(classes, 2)), math.log(2)):
        for count in (1, rows, rows * classes, classes):
            if abs(value / (count * chance) - 1) < SAME:
                return chance, count
    return math.nan, 0


def _of_logits(logits: np.ndarray, chance: float) -> dict[str, float]:
    binary = chance < math.log(logits.shape[-1]) or logits.shape[-1] == 1
    if binary:
        largest = 1 / (1 + np.exp(-np.minimum(np.abs(logits), 700.0)))
        return {"logit_sd": float(logits.std()), "largest_probability": float(largest.mean())}
    centred = logits - logits.max(-1, keepdims=True)
    largest = 1 / np.exp(centred).sum(-1)
    return {"logit_sd": float(logits.std(-1).mean()), "largest_probability": float(largest.mean())}
