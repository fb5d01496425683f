"""Exponents of all layers' values beside the ranges of dtypes; `propagate.plot.exponents`."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from propagate.plot.by_layer.shares import Signal, of_octaves
from propagate.plot.style import COLOURS, depth_dim, new_figure, positions

DTYPES = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
NAMES = {"forward": "pre-activations", "activation": "activations", "backward": "gradients"}
FAINTEST = 1e-4  # share of a layer's values that is drawn
APART = 0.075  # of the axis' width, between the ranges of two dtypes
ROOM = 3  # octaves beyond what is seen


def exponents(
    record: xr.Dataset,
    place: Signal = "backward",
    *,
    dtypes: Sequence[str] = DTYPES,
    ax: Axes | None = None,
    **labels: Any,
) -> Axes:
    """Map which powers of two the values of each layer have, with what dtypes can hold beside it.

    A column is a layer, a row the values from 2^k to 2^(k + 1), dark where there are many. A bar is
    what a dtype holds with all its digits, its thin end what it holds with fewer (subnormal
    numbers): values below become zero, those above overflow.

    Args:
        record: of one pairing, measured with `measures=("q", "histogram", "zero_fraction")`.
        place: `"forward"`, `"activation"` or `"backward"`.
        dtypes: whose ranges to draw.
        ax: where to draw; a new figure by default.
        **labels: `title`, `xlabel`, `ylim` and others of `Axes.set`.

    Returns:
        The axis.

    Raises:
        UnusableInput: the histograms are missing, or there are several pairings.

    Example:
        `exponents(pp.measure(net, key, measures=("q", "histogram"))).figure.savefig("bits.png")`

    Reference:
        Micikevicius et al. (2018), arXiv:1710.03740, Figure 3.
    """
    octaves, shares = of_octaves(record, place)
    ax = new_figure(6.4, 4.4).add_subplot() if ax is None else ax
    x = positions(record)
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(np.where(shares >= FAINTEST, shares, np.nan)).T
    edges = np.append(octaves, octaves[-1] + 1)
    look: dict[str, Any] = {"cmap": colormaps["viridis_r"], "vmin": np.log10(FAINTEST), "vmax": 0}
    image = ax.pcolormesh(np.append(x, x[-1] + 1) - 0.5, edges, shown, **look)
    bar = ax.figure.colorbar(image, ax=ax, label="share of a layer's values", pad=0.02)
    bar.set_ticks(range(-4, 1), labels=["$10^{-4}$", "$10^{-3}$", "1 %", "10 %", "all"])
    seen = octaves[np.isfinite(shown).any(axis=1)]
    low, high = (seen.min(), seen.max() + 1) if len(seen) else (0, 1)
    ax.set_ylim(min(low, -27) - ROOM, max(high, 17) + ROOM)
    for k, name in enumerate(dtypes):
        _range(ax, name, 1 + APART * (k + 0.7 - len(dtypes)), COLOURS[k % len(COLOURS)])
    span = np.ptp(x) + 1
    ax.set_xlim(x[0] - 0.5, x[0] - 0.5 + span / (1 - APART * len(dtypes)))
    ax.set_xticks([t for t in MaxNLocator(5, integer=True).tick_values(x[0], x[-1]) if t in x])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(lambda k, _: f"$2^{{{k:.0f}}}$")
    ax.set(xlabel=depth_dim(record), ylabel=f"size of the {NAMES[place]}")
    ax.set(**labels)
    return ax


def _range(ax: Axes, name: str, x: float, colour: str) -> None:
    """Draw what a dtype holds, at a share x of the axis' width."""
    held = jnp.finfo(name)
    least, normal, most = (
        float(np.log2(float(v))) for v in (held.smallest_subnormal, held.smallest_normal, held.max)
    )
    where: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "color": colour}
    ax.plot([x, x], [normal, most], linewidth=5, solid_capstyle="butt", label=name, **where)
    ax.plot([x, x], [least, normal], linewidth=1.5, solid_capstyle="butt", **where)
    place: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "bottom", "fontsize": "small"}
    ax.text(x - 0.008, 0.02, name, color=colour, transform=ax.transAxes, **place)
