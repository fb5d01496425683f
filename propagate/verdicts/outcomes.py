"""What became of pairings that were trained: held-out score, time to a target, divergence."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from propagate.types import UnusableInput
from propagate.verdicts.growth import student

SCORES = {"test_accuracy": "held-out accuracy", "test_r2": "held-out R²"}
TARGET = 0.9  # of the score, by default


@dataclass(frozen=True)
class Outcome:
    """What became of one initialiser with one activation, at its best learning rate.

    Attributes:
        init: the initialiser's name.
        activation: the activation's name.
        learning_rate: the one of the lowest mean training loss at the end.
        score: held-out accuracy, or the share of variance explained; mean over seeds and folds.
        half_width: of the mean's interval, by Student's t over seeds and folds; NaN of one run.
        epochs: median number of epochs until the target was reached; infinite if most never did.
        reached: how many runs reached the target.
        diverged: how many runs ended with a loss that is no number.
        runs: seeds times folds.

    The folds of a cross-validation share most of their rows, so that the interval over them is
    narrower than over new data.
    """

    init: str
    activation: str
    learning_rate: float
    score: float
    half_width: float
    epochs: float
    reached: int
    diverged: int
    runs: int

    def __str__(self) -> str:
        """Return the outcome as a sentence."""
        ended = f", {self.diverged} of {self.runs} diverged" if self.diverged else ""
        return (
            f"{self.init} + {self.activation}: {self.score:.3f} ± {self.half_width:.3f} "
            f"at learning rate {self.learning_rate:g}{ended}"
        )


def outcomes(record: xr.Dataset, target: float = TARGET) -> tuple[Outcome, ...]:
    """Return the outcome of each pairing of a training record, per activation, the best first.

    Args:
        record: of `train`; of an interrupted one, what all runs of an activation reached counts.
        target: the score whose first epoch is told.

    Raises:
        UnusableInput: the record is not of a training.
    """
    name = score_name(record)
    found = [
        _outcome(own, name, target)
        for own in best_rates(record)
        if own[name].notnull().all("run").any()
    ]
    order = {name: k for k, name in enumerate(map(str, np.atleast_1d(record["activation"])))}
    return tuple(sorted(found, key=lambda one: (order[one.activation], -np.nan_to_num(one.score))))


def is_training(record: xr.Dataset) -> bool:
    """Whether a record is of `train`."""
    return "test_loss" in record and "step" in record.dims


def beginning(record: xr.Dataset) -> xr.Dataset:
    """Return the record before the first step, which folds and learning rates have in common."""
    dims = [dim for dim in ("learning_rate", "fold") if dim in record.dims]
    return record.isel({"step": 0, **dict.fromkeys(dims, 0)}, drop=True)


def score_name(record: xr.Dataset) -> str:
    """Return the name of the held-out score of a training record.

    Raises:
        UnusableInput: it has none.
    """
    name = next((name for name in SCORES if name in record), None)
    if name is None or "step" not in record.dims:
        raise UnusableInput("a record of propagate.train is required, with held-out scores by step")
    return name


def best_rates(record: xr.Dataset) -> Iterator[xr.Dataset]:
    """Yield each pairing at its best learning rate, with dims run, step, layer."""
    for dim in ("init", "activation", "learning_rate", "fold"):
        if dim not in record.dims:
            record = record.expand_dims(dim)
    stacked = record.stack(run=("fold", "seed"), create_index=False)
    for phi in range(record.sizes["activation"]):
        for init in range(record.sizes["init"]):
            own = stacked.isel(init=init, activation=phi)
            last = _last(own)
            losses = own["train_loss"].isel(step=last).mean("run")
            rate = int(np.argmin(np.nan_to_num(losses.values, nan=np.inf)))
            yield own.isel(learning_rate=rate)


def _last(own: xr.Dataset) -> int:
    """Return the last step that all runs reached."""
    dims = [dim for dim in own["test_loss"].dims if dim != "step"]
    return max(int(own["test_loss"].notnull().all(dims).sum()) - 1, 0)


def _outcome(own: xr.Dataset, name: str, target: float) -> Outcome:
    last, scores = _last(own), own[name].transpose("run", "step").values
    final, count = scores[:, last], scores.shape[0]
    half = math.nan
    if count > 1:
        half = student(count - 1) * float(final.std(ddof=1)) / math.sqrt(count)
    hits = np.nan_to_num(scores[:, : last + 1], nan=-np.inf) >= target
    epochs = own["epoch"].values[: last + 1]
    first = np.where(hits.any(axis=1), epochs[hits.argmax(axis=1)], np.inf)
    losses = own["test_loss"].isel(step=last).values
    return Outcome(
        init=str(own["init"].values),
        activation=str(own["activation"].values),
        learning_rate=float(own["learning_rate"]),
        score=float(final.mean()),
        half_width=half,
        epochs=float(np.median(first)) if np.isfinite(first).any() else math.inf,
        reached=int(hits.any(axis=1).sum()),
        diverged=int(np.isinf(losses).sum()),
        runs=count,
    )
