"""Where training starts: the inputs that reach the first layer, and a classifier's first loss.

    loss(outputs, labels)       27.1         on an untrained network
    loss(0, labels)              2.30        ln 10: it is a cross-entropy of ten classes

What a loss is, is told by what it gives for equal logits, and for two others.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate.tracing.trace import SiteNames
from propagate.types import Array, Tree

SAME = 0.01  # of a loss: what smoothing of labels and rounding add
ELEMENTS = 1 << 20  # of an input that are looked at


def with_inputs(record: xr.Dataset, names: SiteNames, data: tuple[Any, Any]) -> xr.Dataset:
    """Return the record with mean and standard deviation of what comes in, at each first layer.

    Args:
        record: of the sites.
        names: of the sites.
        data: inputs and labels, the arguments of the program after its parameters.

    Returns:
        The record with `input_mean`, `input_sd` (root of the variance over all elements) and
        `input_number`, NaN where a layer does not take an input, or one times and plus a number;
        `input_alone`, 0 where other values are joined to it; and the coordinate `input_name`. Of
        several inputs it is the one with the largest second moment.
    """
    arguments, _ = jax.tree_util.tree_flatten_with_path(data)
    of_numbers = functools.cache(lambda number: _mean_and_sd(arguments[number][1]))
    columns = np.full((4, record.sizes["site"]), np.nan)
    called = [""] * record.sizes["site"]
    for row, (site, _) in enumerate(names.rows()):
        each = []
        for one in site.reads:
            number = one.number - names.first_input
            mean, sd = of_numbers(number)
            each.append((one.scale * mean + one.shift, abs(one.scale) * sd, number, one.alone))
        if each:
            columns[:, row] = mean, sd, number, _ = max(each, key=lambda one: np.hypot(*one[:2]))
            called[row] = _called([path for path, _ in arguments], number)
    if not any(called):
        return record
    of = ("input_mean", "input_sd", "input_number", "input_alone")
    made = record.assign({k: ("site", v) for k, v in zip(of, columns, strict=True)})
    return made.assign_coords(input_name=("site", np.array(called, np.str_)))


def _called(paths: Sequence[tuple[Any, ...]], number: int) -> str:
    """Return what an input is called: its number among several, its place in a tree."""
    which, *own = paths[number]
    if sum(path[0] == which for path in paths) == 1 or not own:
        return "the inputs"
    return f"input {own[0].idx + 1}{jax.tree_util.keystr(tuple(own[1:]))}"


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
        Outputs of shape (B,) are labels of their own, as those of (B, 1) are; of such labels it has
        `logit_mean`, too.
    """
    leaves = jax.tree.leaves(outputs)
    if loss is None or len(leaves) != 1 or not _may_be_logits(leaves[0]):
        return {}
    out, structure = leaves[0], jax.tree.structure(outputs)
    shape = out.shape if out.ndim > 1 else (*out.shape, 1)

    @functools.cache
    def at(row: tuple[float, ...]) -> float:
        same = jnp.broadcast_to(jnp.asarray(row, out.dtype), shape).reshape(out.shape)
        return float(loss(structure.unflatten([same]), labels))

    classes = int(shape[-1])
    for form in FORMS:
        count = _labels_summed(at, form, shape)
        if count:
            found = {"loss": float(value) / count, "loss_by_chance": form.entropy(classes)}
            return (
                found
                | {"classes": float(classes)}
                | _of_logits(form, np.asarray(out).reshape(shape))
            )
    return {}


def _may_be_logits(x: Any) -> bool:
    real = jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 0 and x.size > 0
    return bool(real) and bool(jnp.isfinite(x).all())


class Form(NamedTuple):
    r"""A kind of cross-entropy, known by what it gives for three rows that are the same for all.

    Equal logits give the entropy of a guess. Logits z of one row and those of -z together give

    $$\ln\sum_k e^{z_k} + \ln\sum_k e^{-z_k}$$

    whatever the labels are, smoothed ones too, since the labels' share is linear in z. An error of
    squares may have the first value by chance, but not both.

    Attributes:
        binary: whether each output is a label of its own.
        probabilities: whether the outputs are those, not logits.
    """

    binary: bool
    probabilities: bool

    def entropy(self, classes: int) -> float:
        """Return the loss of equal probabilities, per label."""
        return math.log(2 if self.binary else classes)

    def probe(self, classes: int) -> np.ndarray:
        """Return logits z that tell it: 2 ln K of one class, whose sum above is about 3 ln K."""
        if self.binary:
            return np.ones(classes)
        return 2 * math.log(classes) * (np.arange(classes) == 0)

    def pair(self, z: np.ndarray) -> float:
        """Return the losses of z and -z together, per label."""
        if self.binary:
            return float(np.logaddexp(0, z).mean() + np.logaddexp(0, -z).mean())
        return float(np.logaddexp.reduce(z) + np.logaddexp.reduce(-z))

    def row(self, z: np.ndarray) -> tuple[float, ...]:
        """Return logits as the outputs that mean them."""
        if self.probabilities:
            e = np.exp(z)
            z = e / (1 + e) if self.binary else e / e.sum()
        return tuple(z.tolist())

    def logits(self, out: np.ndarray) -> np.ndarray:
        """Return the logits of outputs."""
        out = out.astype(np.float64)
        if not self.probabilities:
            return out
        tiny = float(np.finfo(np.float32).tiny)
        rest = np.log(np.maximum(1 - out, tiny)) if self.binary else 0.0
        return np.log(np.maximum(out, tiny)) - rest


FORMS = tuple(Form(binary, of) for of in (False, True) for binary in (False, True))


def _labels_summed(
    at: Callable[[tuple[float, ...]], float], form: Form, shape: tuple[int, ...]
) -> int:
    """Return over how many labels a loss of this form is a sum; 0 if it is none, or unknown."""
    classes = shape[-1]
    chance, z = form.entropy(classes), form.probe(classes)
    if not chance:
        return 0
    rows = math.prod(shape[:-1])
    positions = rows // shape[0]
    equal = at(form.row(0 * z))
    for count in dict.fromkeys((1, rows, positions, shape[0], rows * classes, classes)):
        if abs(equal / (count * chance) - 1) < SAME:
            both = at(form.row(z)) + at(form.row(-z))
            return count if abs(both / (count * form.pair(z)) - 1) < SAME else 0
    return 0


def _of_logits(form: Form, out: np.ndarray) -> dict[str, float]:
    logits = form.logits(out)
    if form.binary:
        largest = 1 / (1 + np.exp(-np.minimum(np.abs(logits), 700.0)))
        found = {"logit_mean": float(logits.mean()), "logit_sd": float(logits.std())}
        return found | {"largest_probability": float(largest.mean())}
    centred = logits - logits.max(-1, keepdims=True)
    largest = 1 / np.exp(centred).sum(-1)
    return {"logit_sd": float(logits.std(-1).mean()), "largest_probability": float(largest.mean())}
