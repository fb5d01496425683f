"""Theory beside a measurement: the growth that it expects, the first layer outside its band.

Theory of a plain stack has a band: by how much one draw of the weights is off. That of other
families is the limit of wide layers alone, and has none: growth is then the measurement's.
"""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from propagate.record.dataset import (
    expected_names,
    measured_directions,
    second_moment,
    second_moment_name,
    second_moment_sd,
)
from propagate.record.provenance import about_parameters
from propagate.types import Direction, UnusableInput
from propagate.verdicts.growth import Growth, growth, in_words
from propagate.verdicts.thresholds import BAND_DECADES, BAND_SIGMAS

WIDE = "mean field"  # the `theory` attribute of a prediction without a band


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
        signal = _of_one(record, theory, direction)
        compared |= bool(np.isfinite(sd).any())
        found += _first(direction, signal, second_moment(theory, direction).values, sd.values)
    if not compared:
        raise UnusableInput(
            "departures needs log10_forward_q or log10_backward_q in the record and, in theory, "
            f"the same with a finite ..._sd{_why_no_band(theory)}"
        )
    return found


def _of_one(record: xr.Dataset, theory: xr.Dataset, direction: Direction) -> xr.DataArray:
    """Return the measured second moment, if it is that of one network with theory's layers."""
    signal = second_moment(record, direction)
    if set(signal.dims) - {"seed"} != {"layer"} or signal.sizes["layer"] != theory.sizes["layer"]:
        raise UnusableInput(
            "theory is of one network, and so must the record be: "
            f"{second_moment_name(direction)} has dims "
            f"{dict(signal.sizes)}, theory has {theory.sizes['layer']} layers"
        )
    return signal


def _why_no_band(theory: xr.Dataset) -> str:
    """Say why theory has no band at a layer."""
    if theory.attrs.get("theory") == WIDE:
        return ": of this family theory is the limit of wide layers, which has no band"
    return ": the width may be too small for theory to give a band"


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
        banded: whether theory has a band at every layer, so that it can be kept to.
    """

    growth: Growth
    departure: Departure | None
    banded: bool = True

    @property
    def kept(self) -> bool:
        """Whether the measurement is known to be as expected, so that growth is theory's."""
        return self.banded and self.departure is None

    def beside(self, measured: Growth, *, of_another: bool = False) -> str:
        """Return half a sentence, to be put behind a reason.

        Args:
            measured: the growth that was measured.
            of_another: whether the reason is about another quantity than this second moment.
        """
        expects = f"expects {self.growth.rate:+.3f} per layer"
        if self.departure is not None:
            return f"against theory, {self.departure}"
        if self.banded and of_another:
            return f"q itself is within the band of theory, which {expects}"
        if self.banded:
            return f"the measurement, {in_words(measured)}, is within its band"
        within = measured.low <= self.growth.rate <= measured.high
        where = "within" if within else "outside"
        return (
            f"theory, which has no band here, {expects}, {where} the interval of the measurement, "
            "on which the verdict rests"
        )


def expectations(record: xr.Dataset, theory: xr.Dataset) -> dict[Direction, Expectation]:
    """Return what theory expects in each direction, with a band or without.

    Args:
        record: of `measure`, with dims (layer) and perhaps (seed).
        theory: of `predict`, for the same network.

    Raises:
        UnusableInput: not records of one network and its theory.
    """
    found = {}
    normed_end = about_parameters(record).get("normed_end", False)
    for direction in measured_directions(theory):
        if direction in measured_directions(record):
            signal, sd = _of_one(record, theory, direction), second_moment_sd(theory, direction)
            expected = second_moment(theory, direction).values
            sd = np.full(expected.shape, np.inf) if sd is None else sd
            found[direction] = _beside(direction, signal, expected, sd, normed_end)
    if not found:
        raise UnusableInput(
            "theory must have log10_forward_q or log10_backward_q, as the record of predict has, "
            f"got {', '.join(map(str, theory.data_vars)) or 'none'}"
        )
    return found


def written(record: xr.Dataset, direction: Direction) -> Expectation | None:
    """Return what a record's own variables expect, if they have a band that is kept to.

    Args:
        record: of one pairing, dims (seed, layer).
        direction: of travel.
    """
    names = expected_names(direction)
    if not all(name in record for name in names):
        return None
    expected, sd = (record[name].values for name in names)
    if not np.isfinite(sd).all():
        return None
    found = _beside(direction, second_moment(record, direction), expected, sd)
    return found if found.kept else None


def _beside(
    direction: Direction,
    signal: xr.DataArray,
    expected: np.ndarray,
    sd: np.ndarray | xr.DataArray,
    normed_end: bool = False,
) -> Expectation:
    rise = growth(expected[None], direction, normed_end=normed_end)
    exact = rise._replace(low=rise.rate, high=rise.rate, by_theory=True)
    off = _first(direction, signal, expected, np.asarray(sd))
    return Expectation(exact, off[0] if off else None, bool(np.isfinite(sd).all()))
