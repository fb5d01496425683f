"""Batches to send through a network: random ones, the bundled digits, or a user's file."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from propagate.types import Array, Float, InputKind, UnusableInput


@dataclass(frozen=True)
class Batch:
    """Inputs and, for a loss, what the outputs are compared with.

    Attributes:
        inputs: (B, features).
        labels: (B,) classes, or (B, outputs) targets of a regression.
        origin: where it came from, for the record.
    """

    inputs: np.ndarray
    labels: np.ndarray | None = None
    origin: str = "array"

    def __post_init__(self) -> None:
        inputs = _numbers("inputs", self.inputs)
        if inputs.ndim < 2 or inputs.size == 0:
            raise UnusableInput(f"inputs must have shape (batch, features), got {inputs.shape}")
        object.__setattr__(self, "inputs", inputs.reshape(len(inputs), -1))
        if self.labels is not None:
            labels = _numbers("labels", self.labels)
            if len(labels) != len(inputs):
                raise UnusableInput(f"{len(inputs)} inputs need as many labels, got {len(labels)}")
            object.__setattr__(self, "labels", labels)


def random(
    key: Array, kind: InputKind, batch: int, size: int, cosine: float
) -> Float[Array, "batch size"]:
    r"""Return a Gaussian batch of second moment 1 per feature.

    `"pairs"`: any two inputs have expected cosine c, $x_b = \sqrt c\,z_0 + \sqrt{1-c}\,z_b$.
    """
    common, own = jax.random.split(key)
    x = jax.random.normal(own, (batch, size))
    if kind == "gaussian":
        return x
    return jnp.sqrt(cosine) * jax.random.normal(common, (size,)) + jnp.sqrt(1 - cosine) * x


def check_random(kind: str, cosine: float) -> None:
    """Raise `UnusableInput` unless `random` can make such a batch."""
    if kind not in ("gaussian", "pairs"):
        raise UnusableInput(
            f"random inputs are 'gaussian' or 'pairs', got {kind!r}; for data pass a Batch"
        )
    if not 0 <= cosine <= 1:
        raise UnusableInput(f"cosine must lie in [0, 1], got {cosine:g}")


def load(source: str, batch: int) -> Batch:
    """Return the first `batch` rows of the bundled digits, or of a `.npy` or `.npz` file.

    The digits (8 × 8 pixels, 10 classes) are standardised over all pixels. An `.npz` file holds
    `inputs` (or `x`) and, if wanted, `labels` (or `y`).

    Raises:
        UnusableInput: no such file, not numbers, NaN, or of the wrong shape.
    """
    if source == "digits":
        return _digits(batch)
    path = Path(source)
    if not path.is_file():
        raise UnusableInput(
            f"input must be one of {', '.join(get_args(InputKind))} or a .npy/.npz file; "
            f"there is no file {source!r}"
        )
    found = _read(path)
    labels = found.get("labels", found.get("y"))
    inputs = found.get("inputs", found.get("x"))
    if inputs is None:
        raise UnusableInput(f"{path} must hold an array 'inputs' or 'x', it has {list(found)}")
    return Batch(inputs[:batch], None if labels is None else labels[:batch], path.name)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        found = np.load(path, allow_pickle=False)
        return {"inputs": found} if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
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
    return Batch(pixels[:batch], labels[:batch], "digits")


def _numbers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UnusableInput(f"{name} must be numbers, got an array of {array.dtype}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise UnusableInput(
            f"{name} must be finite, but {len(bad)} of {array.size} values are NaN or infinite, "
            f"the first at {tuple(map(int, bad[0]))}"
        )
    return array
