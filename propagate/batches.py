"""Batches to send through a network: random ones, the bundled digits, or a user's file."""

import tokenize
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from propagate import checks
from propagate.types import Array, ArrayLike, Float, InputKind, LossKind, UnusableInput


@dataclass(frozen=True)
class Batch:
    """Inputs and, for a loss, what the outputs are compared with.

    Attributes:
        inputs: any array of finite numbers (B, …), kept as a numpy array (B, features).
        labels: (B,) classes from 0, or (B, outputs) targets of a regression; likewise.
        origin: where it came from, for the record.
        classes: how many classes there are, if more than these labels show.

    Raises:
        UnusableInput: inputs that are not numbers, NaN or infinite, or not as many as labels.

    Example:
        >>> batch = Batch(np.zeros((8, 4, 4)), labels=np.arange(8) % 3)
        >>> batch.inputs.shape, batch.first(2).labels.tolist(), batch.first(2).classes
        ((8, 16), [0, 1], 3)
    """

    inputs: Any
    labels: Any = None
    origin: str = "array"
    classes: int | None = None

    def __post_init__(self) -> None:
        inputs = _numbers("inputs", self.inputs)
        labels = None if self.labels is None else _numbers("labels", self.labels)
        if inputs.ndim < 2 or inputs.size == 0:
            raise UnusableInput(f"inputs must have shape (batch, features), got {inputs.shape}")
        object.__setattr__(self, "inputs", inputs.reshape(len(inputs), -1))
        if labels is not None and labels.shape[:1] != inputs.shape[:1]:
            raise UnusableInput(
                f"{len(inputs)} inputs need as many labels, got labels of shape {labels.shape}"
            )
        object.__setattr__(self, "labels", labels)

    def first(self, batch: int) -> "Batch":
        """Return the first `batch` inputs with their labels; classes are counted over all."""
        if self.labels is None:
            return replace(self, inputs=self.inputs[:batch])
        classes = int(self.labels.max()) + 1 if self.labels.dtype.kind in "iu" else None
        labels = self.labels[:batch]
        return replace(self, inputs=self.inputs[:batch], labels=labels, classes=classes)


def random(
    key: Array, kind: InputKind, batch: int, size: int, cosine: float
) -> Float[Array, "batch size"]:
    r"""Return a Gaussian batch (batch, size) of second moment 1 per feature.

    Args:
        key: a JAX random key.
        kind: `"gaussian"`, independent inputs; or `"pairs"`, any two of which have expected cosine
            c: $x_b = \sqrt c\,z_0 + \sqrt{1-c}\,z_b$.
        batch: how many inputs.
        size: features of each.
        cosine: c of `"pairs"`, in [0, 1].
    """
    common, own = jax.random.split(key)
    x = jax.random.normal(own, (batch, size))
    if kind == "gaussian":
        return x
    return jnp.sqrt(cosine) * jax.random.normal(common, (1, size)) + jnp.sqrt(1 - cosine) * x


def check_random(kind: str, cosine: float) -> None:
    """Raise `UnusableInput` unless `random` can make such a batch."""
    if kind not in get_args(InputKind):
        raise UnusableInput(
            f"random inputs are 'gaussian' or 'pairs', got {kind!r}; for data pass a Batch"
        )
    if not 0 <= cosine <= 1:
        raise UnusableInput(f"cosine must lie in [0, 1], got {cosine:g}")


def load(source: str, batch: int, what: str = "") -> Batch:
    """Return the first inputs of the bundled digits, or of a `.npy` or `.npz` file.

    The digits (8 × 8 pixels, 10 classes) are standardised over all pixels. An `.npz` file holds
    `inputs` (or `x`) and, if wanted, `labels` (or `y`).

    Args:
        source: `"digits"`, or the path of a file.
        batch: how many inputs to take; all, if there are fewer.
        what: must be given, in words, where that is not what `sweep` takes.

    Raises:
        UnusableInput: no such file, not numbers, NaN, or of the wrong shape.
    """
    if source == "digits":
        return _digits(batch)
    path = Path(source)
    if not _is_file(path):
        kinds = ", ".join(get_args(InputKind))
        what = what or f"input must be one of {kinds}, digits, or a .npy or .npz file"
        raise UnusableInput(f"{what}; there is no file {source!r}")
    found = _read(path)
    labels = found.get("labels", found.get("y"))
    inputs = found.get("inputs", found.get("x"))
    if inputs is None:
        raise UnusableInput(f"{path} must hold an array 'inputs' or 'x', it has {list(found)}")
    return Batch(inputs, labels, path.name).first(batch)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


_UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return {"inputs": found} if isinstance(found, np.ndarray) else dict(found)
    except _UNREADABLE as error:
        raise UnusableInput(f"{path} is not a .npy or .npz file of numbers: {error}") from None


def _digits(batch: int) -> Batch:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UnusableInput(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels - pixels.mean()) / pixels.std()
    return Batch(pixels, labels, "digits").first(batch)


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UnusableInput(f"{name} must be an array of numbers: {error}") from None
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.kind != "f":
        array = array.astype(np.float32)  # bfloat16 and its like
    if array.dtype.kind not in "fiub":
        raise UnusableInput(f"{name} must be numbers, got an array of {array.dtype}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise UnusableInput(
            f"{name} must be finite, but {len(bad)} of {array.size} values are NaN or infinite, "
            f"the first at {tuple(map(int, bad[0]))}"
        )
    return array


def as_batch(inputs: ArrayLike | Batch | None, labels: ArrayLike | None, loss: str) -> Batch | None:
    """Return a user's data as a `Batch` that fits the loss; None for random inputs.

    Args:
        inputs: (B, …), a `Batch` with labels of its own, or None.
        labels: (B,) classes or (B, outputs) targets.
        loss: `"gaussian"` needs no labels; `"cross_entropy"` and `"mse"` do.

    Raises:
        UnusableInput: labels without inputs, given twice, without a loss, or missing.
    """
    checks.check_choice("loss", loss, LossKind)
    if inputs is None and (labels is not None or loss != "gaussian"):
        raise UnusableInput(
            f"loss {loss!r} with labels needs inputs that they belong to: pass both"
        )
    if inputs is None:
        return None
    if isinstance(inputs, Batch) and labels is not None:
        raise UnusableInput("this Batch takes its own labels: Batch(inputs, labels), not labels=…")
    if labels is not None and loss == "gaussian":
        raise UnusableInput(
            "labels have no effect with loss 'gaussian', a random gradient: pass "
            "loss='cross_entropy' or loss='mse', or leave them out"
        )
    data = inputs if isinstance(inputs, Batch) else Batch(inputs, labels)
    if loss != "gaussian" and data.labels is None:
        raise UnusableInput(f"loss {loss!r} needs labels, one for each input; got none")
    return data


def output_size(data: Batch, loss: LossKind) -> int:
    """Return how many outputs a network needs: targets of an input, or classes.

    Raises:
        UnusableInput: labels that are not of the kind that the loss compares with.
    """
    labels = data.labels
    if loss == "mse" and labels.ndim > 2:
        raise UnusableInput(f"mse needs targets (batch,) or (batch, outputs), got {labels.shape}")
    if loss == "mse":
        return 1 if labels.ndim == 1 else labels.shape[1]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UnusableInput(
            "cross_entropy needs labels of shape (batch,), whole numbers from 0, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    classes = data.classes or int(labels.max()) + 1
    if classes < 2:
        raise UnusableInput("cross_entropy needs labels of at least two classes, got only class 0")
    return classes
