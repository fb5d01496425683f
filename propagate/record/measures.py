r"""Statistics: each is a name and a pure function of one layer's array.

An array is divided by the power of two $2^k$ next to its largest magnitude before anything is
squared or summed, and sums are float32 or wider. So no statistic over- or underflows while the
values themselves are finite; $k$ travels beside it, and the logarithm is finished on the host
in float64.

`MEASURES` is the table: add a line to it to add a statistic.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from propagate.record.statistics import (
    HISTOGRAM_EDGES,
    correlation,
    dead_fraction,
    histogram,
    largest,
    mean,
    q,
    saturated_fraction,
    subnormal_fraction,
    symmetric_fraction,
    token_correlation,
    variance,
    zero_fraction,
)
from propagate.types import STACK_PLACES, Array, Place, UnusableInput


@dataclass(frozen=True)
class Measure:
    """A statistic and where it is taken.

    Attributes:
        name: the ending of its variables' names.
        fn: array of one layer, (batch, units), to a number.
        places: the signals it is taken of.
        power: the statistic of 2^k y is 2^(k power) times that of y; 0 for ratios and shares.
        bins: how many numbers it consists of, if more than one.
        on_request: whether it is taken only when named.
        shaped: whether `fn` takes (batch, positions, units) rather than (batch, units).
    """

    name: str
    fn: Callable[[Array], Array]
    places: tuple[Place, ...]
    power: int = 0
    bins: int = 0
    on_request: bool = False
    shaped: bool = False

    def variable(self, place: Place) -> str:
        """Return the name of this statistic of `place` in a record."""
        return f"log10_{place}_{self.name}" if self.power else f"{place}_{self.name}"


_SIGNALS: tuple[Place, ...] = ("forward", "activation", "backward")
MEASURES = (
    Measure("q", q, (*_SIGNALS, "weight_gradient"), power=2),
    Measure("variance", variance, ("forward", "activation"), power=2),
    Measure("mean", mean, _SIGNALS),
    Measure("max", largest, ("forward",), power=1),
    Measure("correlation", correlation, ("forward", "backward")),
    Measure("zero_fraction", zero_fraction, _SIGNALS),
    Measure("dead_fraction", dead_fraction, ("activation",)),
    Measure("symmetric_fraction", symmetric_fraction, ("forward",)),
    Measure("saturated_fraction", saturated_fraction, ("activation",)),
    Measure("histogram", histogram, _SIGNALS, bins=len(HISTOGRAM_EDGES) - 1, on_request=True),
)
SITE_MEASURES = (
    *(m for m in MEASURES if m.name not in ("symmetric_fraction", "histogram")),
    Measure("token_correlation", token_correlation, ("forward",)),
    Measure("subnormal_fraction", subnormal_fraction, ("backward",), on_request=True),
)
"""Of the sites of a custom model, whose values may have positions beside inputs and units."""
Q, MEAN, LARGEST = (
    next(m for m in SITE_MEASURES if m.name == name) for name in ("q", "mean", "max")
)
Selection = tuple[tuple[Place, tuple[Measure, ...]], ...]


def select(
    endings: Iterable[str] | None = None, table: tuple[Measure, ...] = MEASURES
) -> Selection:
    """Return the measures of each place whose variables have one of the `endings`.

    Args:
        endings: of variable names: `"q"`, `"mean"`, `"weight_gradient_q"`, `"forward_q"`, …;
            None means all but `"histogram"`, which is taken when named. The plain `"q"` leaves
            out the weight gradient, which costs a matrix product, and what only a family has.
        table: the measures to choose from.

    Raises:
        UnusableInput: an ending that no variable has.
    """
    if isinstance(endings, str):
        endings = (endings,)
    wanted = None if endings is None else set(endings)
    known = {name for m in table for place in m.places for name in _endings(m, place)}
    if wanted is not None and (not wanted or wanted - known):
        raise UnusableInput(
            f"measures must be some of {', '.join(sorted(known))}; "
            f"got {', '.join(sorted(wanted - known)) or 'none'}"
        )
    places = dict.fromkeys((*STACK_PLACES, *(place for m in table for place in m.places)))
    return tuple(
        (place, tuple(m for m in table if place in m.places and _taken(m, place, wanted)))
        for place in places
    )


def _endings(measure: Measure, place: Place) -> tuple[str, ...]:
    """Return what a statistic answers to; a signal's, or one of a kind, also to its bare name."""
    full = (f"{place}_{measure.name}", measure.variable(place))
    plain = place in _SIGNALS and not (measure.shaped and len(measure.places) > 1)
    return (measure.name, *full) if plain else full


def _taken(measure: Measure, place: Place, wanted: set[str] | None) -> bool:
    if wanted is None:
        return not measure.on_request
    return not wanted.isdisjoint(_endings(measure, place))
