"""Histograms of signals and gradients by layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from propagate.plot.style import (
    BESIDE,
    depth_dim,
    each_pairing,
    new_figure,
    not_measured,
    positions,
)
from propagate.record.dataset import second_moment, second_moment_name
from propagate.types import UnusableInput

SHOWN_LAYERS = 6
SAME_SCALE_DECADES = 4.0  # of second moments, a factor of 100 in rms: one unit for all layers


def histograms(record: xr.Dataset, *, axes: Sequence[Axes] | None = None) -> Figure:
    """Draw the distributions of activations and gradients at up to six layers of one network.

    Values beyond the outermost bins, which end at 5.25 times the rms, are counted in them.

    Args:
        record: of one pairing, measured with `measures=("q", "histogram")`.
        axes: two, for activations and gradients; those of a new figure by default.

    Returns:
        The figure; x is the value, or its multiple of the layer's rms where these differ by more
        than a factor of 100 between layers.

    Raises:
        UnusableInput: the histograms are missing, or there are several pairings.

    Example:
        `histograms(pp.measure(net, key, measures=("q", "histogram"))).savefig("values.png")`

    Reference:
        Glorot and Bengio (2010), Figures 6 and 7.
    """
    places = {"activation": "activation x", "backward": "gradient at h"}
    for place in places:
        q = second_moment_name(place)
        if f"{place}_histogram" not in record or q not in record:
            raise not_measured(f"{place}_histogram with {q}", '("q", "histogram")')
    found = [one for _, one in each_pairing(record)]
    if len(found) > 1:
        raise UnusableInput(
            f"a record of one pairing is required, got {len(found)}: "
            "choose one with record.sel(init=…, activation=…)"
        )
    pair: list[Any] = [*(new_figure(10, 3.6).subplots(1, 2) if axes is None else axes)]
    for ax, (place, name) in zip(pair, places.items(), strict=True):
        _densities(ax, found[0], place, name)
    return pair[0].figure


def _densities(ax: Axes, record: xr.Dataset, place: str, name: str) -> None:
    """Draw the densities of up to six layers, from the first measured to the last."""
    shares, scale = record[f"{place}_histogram"], second_moment(record, place)
    if "seed" in shares.dims:
        shares, scale = shares.mean("seed"), scale.median("seed")
    layers = np.flatnonzero(~np.isnan(scale.values))
    some = np.linspace(0, len(layers) - 1, min(SHOWN_LAYERS, len(layers))).round().astype(int)
    layers = layers[some]
    decades = scale.values[layers]
    finite = decades[np.isfinite(decades)]
    extreme = finite.size > 0 and np.abs(finite).max() > 300  # the density would not be a float
    relative = extreme or (finite.size > 0 and np.ptp(finite) > SAME_SCALE_DECADES)
    centre, numbers = record["bin"].values, positions(record)
    for k, (layer, q) in enumerate(zip(layers, decades, strict=True)):
        unit = 1.0 if relative or np.isinf(q) else 10 ** (q / 2)
        density = shares.values[layer] / ((centre[1] - centre[0]) * unit)
        visible = np.where((density > 0) & np.isfinite(q), density, np.nan)
        end = {-np.inf: ": all zero", np.inf: ": overflow"}.get(q, "")
        colour = colormaps["viridis"](0.92 * k / max(len(layers) - 1, 1))
        ax.plot(centre * unit, visible, color=colour, label=f"{numbers[layer]}{end}")
    unit = ", in units of the layer's rms" if relative else ""
    ax.set(xlabel=name + unit, ylabel="density", yscale="log")
    ax.minorticks_off()
    ax.locator_params(axis="x", nbins=6)
    ax.legend(
        handles=ax.get_lines(), title=depth_dim(record), fontsize="small", frameon=False, **BESIDE
    )
