"""Distributions of all layers, one above the other; `propagate.plot.ridge`."""

from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes

from propagate.plot.by_layer.shares import Signal, of_one_pairing
from propagate.plot.style import depth_dim, new_figure, positions
from propagate.types import UnusableInput

ROWS = 12  # layers that are shown
HEIGHT = 1.8  # of a ridge, in rows
REACH = 3.0  # of x, in units of the rms
WIDEST = 10.0  # times the median rms, for x
NAMES = {"forward": "pre-activation h", "activation": "activation x", "backward": "gradient at h"}
Scale = Literal["value", "rms"]


def ridge(
    record: xr.Dataset,
    place: Signal = "activation",
    *,
    units: Scale = "value",
    ax: Axes | None = None,
    **labels: Any,
) -> Axes:
    """Draw how values are distributed in up to twelve layers of one network, the first on top.

    Every ridge is as high as the others: its width tells how large the values are, its shape
    whether they saturate. Layers of zeros, or beyond the range of the dtype, have a flat line.

    Args:
        record: of one pairing, measured with `measures=("q", "histogram")`.
        place: `"forward"`, `"activation"` or `"backward"`.
        units: x is the `"value"` itself, or in multiples of the layer's `"rms"`.
        ax: where to draw; a new figure by default.
        **labels: `title`, `xlabel`, `xlim` and others of `Axes.set`.

    Returns:
        The axis.

    Raises:
        UnusableInput: the histograms are missing, or there are several pairings.

    Example:
        `ridge(pp.measure(net, key, measures=("q", "histogram"))).figure.savefig("ridges.png")`

    Reference:
        Glorot and Bengio (2010), Figure 6.
    """
    if units not in get_args(Scale):
        raise UnusableInput(f"units must be 'value' or 'rms', got {units!r}")
    shares, log_rms = of_one_pairing(record, place)
    known = np.flatnonzero(~np.isnan(log_rms))
    rows = known[np.linspace(0, len(known) - 1, min(ROWS, len(known))).round().astype(int)]
    ax = new_figure(4.8, 4.6).add_subplot() if ax is None else ax
    rms = 10.0 ** log_rms[rows] if units == "value" else np.ones(len(rows))
    for row, (layer, unit) in enumerate(zip(rows, rms, strict=True)):
        x, y = _ridge(record["bin"].values, shares[layer], unit, bool(np.isfinite(log_rms[layer])))
        colour = colormaps["viridis"](0.92 * row / max(len(rows) - 1, 1))
        ax.fill_between(x, row - y, row, color=colour, alpha=0.75, linewidth=0, zorder=row)
        ax.plot(x, row - y, color="white", linewidth=0.8, zorder=row)
        ax.axhline(row, color=colour, linewidth=0.8, zorder=row)
    finite = rms[np.isfinite(rms) & (rms > 0)]
    if len(finite):
        end = REACH * min(finite.max(), WIDEST * float(np.median(finite)))
        ax.set_xlim(-end, end)
    ax.set_ylim(max(len(rows) - 1, 0) + 0.3, -HEIGHT - 0.1)
    ax.set_yticks(range(len(rows)), [str(positions(record)[layer]) for layer in rows])
    ax.set(xlabel=NAMES[place] + (" ÷ its rms" if units == "rms" else ""))
    ax.set(ylabel=depth_dim(record))
    ax.set(**labels)
    return ax


def _ridge(
    centre: np.ndarray, shares: np.ndarray, unit: float, known: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return a ridge's x and its height over its base."""
    if not known or not shares.max() > 0:
        return np.zeros(1), np.zeros(1)
    return centre[1:-1] * unit, HEIGHT * shares[1:-1] / shares[1:-1].max()
