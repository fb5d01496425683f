"""Histograms of signals and gradients by layer."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from propagate.plot.style import (
    BESIDE,
    depth_dim,
    new_figure,
    one_with_histograms,
    positions,
)
from propagate.record.dataset import second_moment
from propagate.types import UnusableInput

SHOWN_LAYERS = 6
REACH, FLOOR, TOP = 5.0, 3e-4, 10.0  # of x, in units of the rms, and of densities
PLACES = {"activation": "activation x", "backward": "gradient at h"}
Scale = Literal["rms", "value"]


def histograms(
    record: xr.Dataset,
    *,
    axes: Sequence[Axes] | None = None,
    units: Scale = "rms",
    legend: bool = True,
    title: str | None = None,
) -> Figure:
    """Draw the distributions of activations and gradients at up to six layers of one network.

    Both panels show the same layers. Values beyond 5 times the rms, of which the outermost bins
    are, are not drawn.

    Args:
        record: of one pairing, measured with `measures=("q", "histogram")`.
        axes: two, for activations and gradients; those of a new figure by default.
        units: x is in multiples of the layer's `"rms"`, the same in every panel, so that the shape
            is seen; or the `"value"` itself, so that the size is.
        legend: whether to name the layers.
        title: in front of the names of the panels, by default nothing.

    Returns:
        The figure.

    Raises:
        UnusableInput: the histograms are missing, or there are several pairings.

    Example:
        `histograms(pp.measure(net, key, measures=("q", "histogram"))).savefig("values.png")`

    Reference:
        Glorot and Bengio (2010), Figures 6 and 7.
    """
    if units not in get_args(Scale):
        raise UnusableInput(f"units must be 'rms' or 'value', got {units!r}")
    one = one_with_histograms(record, *PLACES)
    panels: list[Any] = [
        *(new_figure(10, 3.6).subplots(1, 2, sharey=units == "rms") if axes is None else axes)
    ]
    layers = _shown(one)
    for ax, (place, name) in zip(panels, PLACES.items(), strict=True):
        _densities(ax, one, place, layers, units)
        ax.set(xlabel=name + (" ÷ its rms" if units == "rms" else ""), ylabel="density")
        ax.set_title(f"{title}: {name}" if title else name, fontsize="medium")
        if ax.get_shared_y_axes().joined(*panels):
            ax.label_outer()
    named = [[line.get_label() for line in ax.lines] for ax in panels]
    if legend:
        for ax in panels if named[0] != named[1] else panels[1:]:
            words = {"title": depth_dim(record), "fontsize": "small", "frameon": False}
            ax.legend(handles=ax.get_lines(), **words, **BESIDE)
    return panels[0].figure


def _shown(record: xr.Dataset) -> np.ndarray:
    """Return up to six layers, from the first to the last that both places have."""
    known = np.ones(record.sizes[depth_dim(record)], bool)
    for place in PLACES:
        known &= ~np.isnan(_over_seeds(second_moment(record, place)).values)
    layers = np.flatnonzero(known)
    return layers[
        np.linspace(0, len(layers) - 1, min(SHOWN_LAYERS, len(layers))).round().astype(int)
    ]


def _over_seeds(scale: xr.DataArray) -> xr.DataArray:
    return scale.median("seed") if "seed" in scale.dims else scale


def _densities(ax: Axes, record: xr.Dataset, place: str, layers: np.ndarray, units: Scale) -> None:
    """Draw the densities of these layers."""
    shares, scale = record[f"{place}_histogram"], _over_seeds(second_moment(record, place))
    shares = shares.mean("seed") if "seed" in shares.dims else shares
    centre, numbers = record["bin"].values, positions(record)
    inside = np.abs(centre) < REACH
    for k, (layer, q) in enumerate(zip(layers, scale.values[layers], strict=True)):
        unit = 1.0 if units == "rms" or np.isinf(q) else 10 ** (q / 2)
        density = shares.values[layer] / ((centre[1] - centre[0]) * unit)
        visible = np.where((density > 0) & np.isfinite(q), density, np.nan)
        end = {-np.inf: ": all zero", np.inf: ": overflow"}.get(q, "")
        colour = colormaps["viridis"](0.92 * k / max(len(layers) - 1, 1))
        label = f"{numbers[layer]}{end}"
        ax.plot(centre[inside] * unit, visible[inside], color=colour, label=label)
    if ax.get_yscale() != "log":  # which makes new ticks
        ax.set_yscale("log")
    if units == "rms":
        ax.set(xlim=(-REACH, REACH), ylim=(FLOOR, TOP))
    ax.minorticks_off()
    ax.locator_params(axis="x", nbins=6)
