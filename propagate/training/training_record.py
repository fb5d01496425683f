"""The record of training: what each run reached after every epoch, and where it is put.

Dims are (init, activation, learning_rate, fold, step, seed), and layer where there are layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from propagate.activations import Activation
from propagate.initializers import Initializer
from propagate.network import Network
from propagate.record import dataset
from propagate.record.measures import Q, Selection
from propagate.record.scaled import decades
from propagate.types import LossKind

CURVES = {
    "train_loss": "mean loss of the epoch's steps",
    "test_loss": "loss on held-out rows",
    "train_accuracy": "share of rows whose class was found, in the epoch's steps",
    "test_accuracy": "share of held-out rows whose class is found",
}
SIZES = {
    "log10_weight_q": "second moment of the weights",
    "log10_update_ratio": "rms of the epoch's last update over that of the weights",
}


class Place(NamedTuple):
    """Where a run belongs in the grid."""

    init: int
    activation: int
    rate: int
    fold: int
    seed: int


@dataclass(frozen=True)
class Grid:
    """What is trained.

    Attributes:
        net: the network, fitted to the data.
        inits: the initialisers.
        activations: the activations.
        rates: learning rates.
        folds: how many.
        seeds: how many.
        epochs: how many.
        steps: updates of an epoch.
        selection: the statistics.
        loss: what is descended.
        spread: variance of the held-out targets of each fold, of a regression.
    """

    net: Network
    inits: list[Initializer]
    activations: list[Activation]
    rates: tuple[float, ...]
    folds: int
    seeds: int
    epochs: int
    steps: int
    selection: Selection
    loss: LossKind
    spread: tuple[float, ...] = ()

    def places(self, activation: int) -> list[Place]:
        """Return the runs of an activation: those of a seed and fold side by side."""
        every = np.ndindex(self.seeds, self.folds, len(self.rates), len(self.inits))
        return [Place(i, activation, r, f, s) for s, f, r, i in every]

    def empty(self) -> xr.Dataset:
        """Return the record of nothing yet: NaN everywhere."""
        steps = np.arange(self.epochs + 1) * self.steps
        coords: dict[str, Any] = {
            "init": [one.name for one in self.inits],
            "activation": [one.name for one in self.activations],
            "learning_rate": list(self.rates),
            "fold": np.arange(self.folds),
            "step": steps,
        }
        found = dataset.new(self.selection, coords, self.seeds, self.net.depth)
        labels = {**coords, "seed": np.arange(self.seeds)}
        empty = np.full([len(values) for values in labels.values()], np.nan)
        layers = np.full((*empty.shape, self.net.depth + 1), np.nan)
        for name, about in CURVES.items():
            if self.loss == "cross_entropy" or not name.endswith("accuracy"):
                found[name] = tuple(labels), empty.copy(), {"long_name": about}
        if self.loss == "mse":
            about = {"long_name": "share of the held-out targets' variance that is explained"}
            found["test_r2"] = tuple(labels), empty.copy(), about
        for name, about in SIZES.items():
            found[name] = (*labels, "layer"), layers.copy(), {"long_name": about, "units": "log10"}
        return found.assign_coords(epoch=("step", np.arange(self.epochs + 1)))

    def write(
        self,
        found: xr.Dataset,
        places: list[Place],
        epoch: int,
        stepped: Mapping[str, Any] | None,
        looked: Mapping[str, Any],
    ) -> None:
        """Put what runs reached after an epoch into the record.

        Args:
            found: the record.
            places: of the runs.
            epoch: counted from 1; 0 is the start.
            stepped: what the steps saw; None at the start.
            looked: what the look after them saw.
        """
        init, phi, rate, fold, seed = (np.array(one) for one in zip(*places, strict=True))
        at = init, phi, rate, fold, epoch, seed
        self._write_curves(found, at, fold, stepped, looked)
        if stepped is not None:
            weight, update = (_decades(stepped[name]) for name in ("weight", "update"))
            found["log10_weight_q"].values[at] = weight
            with np.errstate(invalid="ignore"):  # zeros by zeros
                found["log10_update_ratio"].values[at] = (update - weight) / 2
        for place, measures in self.selection:
            for measure in measures:
                seen = looked["seen"].get(place, {})
                if measure.name not in seen:
                    continue  # a family may have no such place
                value = decades(measure, seen[measure.name], seen["exponent"])[..., 0]
                rows = dataset.along_layers(place, np.moveaxis(value, 1, 0))
                found[measure.variable(place)].values[at] = np.moveaxis(rows, 0, 1)

    def _write_curves(
        self,
        found: xr.Dataset,
        at: tuple[Any, ...],
        fold: np.ndarray,
        stepped: Mapping[str, Any] | None,
        looked: Mapping[str, Any],
    ) -> None:
        curves = {"test_loss": _outcome(looked["loss"]), "test_accuracy": looked["share"]}
        if stepped is not None:
            curves |= {"train_loss": _outcome(stepped["loss"]), "train_accuracy": stepped["share"]}
        if self.loss == "mse":
            curves["test_r2"] = 1 - curves["test_loss"] / np.array(self.spread)[fold]
        for name, values in curves.items():
            if name in found:
                found[name].values[at] = values


def _outcome(loss: np.ndarray) -> np.ndarray:
    """Return losses, infinite where they are no number: NaN is what was not measured."""
    return np.where(np.isnan(loss), np.inf, np.asarray(loss, float))


def _decades(size: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return log10 of second moments, (runs, layers 0 … L), of which the input has none."""
    found = decades(Q, size["q"], size["exponent"])
    return np.pad(found, ((0, 0), (1, 0)), constant_values=np.nan)
