"""Theory beside a measurement: the growth that it expects, the first layer outside its band."""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from propagate.record.dataset import (
    measured_directions,
    second_moment,
    second_moment_name,
    second_moment_sd,
)
from propagate.types import Direction, UnusableInput
from propagate.verdicts.growth import Growth, growth
from propagate.verdicts.thresholds import BAND_DECADES, BAND_SIGMAS


class Departure(NamedTuple):
    """Where a measurement leaves what theory expects.

    Attributes:
        direction: of travel.
        layer: the first in that direction whose second moment is not the expected one.
        decades: measured less expected.
        sigmas: the difference in standard errors of a mean over the seeds.
    """

    direction: Direction
    layer: int
    decades: float
    sigmas: float

    def __str__(self) -> str:
        """Return a sentence."""
        return (
            f"{self.direction}: layer {self.layer} is the first to leave the prediction, "
            f"by {self.decades:+.2f} decades ({self.sigmas:.1f} standard errors)"
        )


def departures(record: xr.Dataset, theory: xr.Dataset) -> list[Departure]:
    """Return the first layer, in each direction, that leaves the band of theory.

    A layer leaves it when the mean over seeds of its log10 second moment is more than 4.5 standard
    errors, and 0.02 decades, from the expected one. Of networks that are as predicted less than one
    in a thousand is called.

    Args:
        record: of `measure`, with dims (layer) and perhaps (seed).
        theory: of `predict`, for the same network.

    Raises:
        UnusableInput: not records of one network and its theory, or theory gives no band.

    Example:
        >>> theory = xr.Dataset({"log10_forward_q": ("layer", [0.0, 0.0]),
        ...                      "log10_forward_q_sd": ("layer", [0.01, 0.01])})
        >>> record = xr.Dataset({"log10_forward_q": ("layer", [0.0, 0.5])})
        >>> departures(record, theory)[0].layer
        1
    """
    found, compared = [], False
    for direction in measured_directions(record):
        sd = second_moment_sd(theory, direction)
        if sd is None:
            continue
        signal = second_moment(record, direction)
        if (
            set(signal.dims) - {"seed"} != {"layer"}
            or signal.sizes["layer"] != theory.sizes["layer"]
        ):
            raise UnusableInput(
                "departures compares one network with its theory: "
                f"{second_moment_name(direction)} has dims "
                f"{dict(signal.sizes)}, theory has {theory.sizes['layer']} layers"
            )
        compared |= bool(np.isfinite(sd).any())
        found += _first(direction, signal, second_moment(theory, direction).values, sd.values)
    if not compared:
        raise UnusableInput(
            "departures needs log10_forward_q or log10_backward_q in the record and, in theory, "
            "the same with a finite ..._sd: the width may be too small for theory to give a band"
        )
    return found


def _first(
    direction: Direction, signal: xr.DataArray, expected: np.ndarray, sd: np.ndarray
) -> list[Departure]:
    seeds = signal.sizes.get("seed", 1)
    mean = signal.mean("seed").values if "seed" in signal.dims else signal.values
    error = np.hypot(sd / math.sqrt(seeds), BAND_DECADES / BAND_SIGMAS)
    off = np.abs(mean - expected) > BAND_SIGMAS * error
    off |= np.isnan(mean)
    layers = np.flatnonzero(off & np.isfinite(sd))
    if not layers.size:
        return []
    k = int(layers[0] if direction == "forward" else layers[-1])
    gap = float(mean[k] - expected[k])
    return [Departure(direction, k, gap, abs(gap) / float(error[k]))]


class Expectation(NamedTuple):
    """The growth that theory expects in one direction, and where the measurement leaves it.

    Attributes:
        growth: of theory, whose interval has no width.
        departure: the first layer outside the band of theory, or None if there is none.
    """

    growth: Growth
    departure: Departure | None

    def __str__(self) -> str:
        """Return half a sentence, to be put behind a reason."""
        kept = f"within the band of theory, which expects {self.growth.rate:+.3f} per layer"
        return kept if self.departure is None else f"against theory, {self.departure}"


def expectations(record: xr.Dataset, theory: xr.Dataset) -> dict[Direction, Expectation]:
    """Return what theory expects in each direction for which it has a band at every layer."""
    off = {one.direction: one for one in departures(record, theory)}
    found = {}
    for direction in measured_directions(theory):
        sd = second_moment_sd(theory, direction)
        if sd is not None and np.isfinite(sd).all():
            rise = growth(second_moment(theory, direction).values[None], direction)
            exact = rise._replace(low=rise.rate, high=rise.rate)
            found[direction] = Expectation(exact, off.get(direction))
    return found
