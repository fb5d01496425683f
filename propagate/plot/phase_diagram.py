"""The picture of a phase diagram; `propagate.plot.phase`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

from propagate.plot import growth_colours
from propagate.plot.style import new_figure
from propagate.types import UnusableInput

KEYS: dict[str, dict[str, Any]] = {  # of the legend
    "edge of chaos": {"linewidth": 2},
    "trainable depth": {"linewidth": 1.2, "linestyle": "--"},
    "measured, filled with its own rate": {
        **{"linestyle": "", "marker": "o", "markersize": 8, "fillstyle": "none"}
    },
}
HALO: list[AbstractPathEffect] = [  # black shows on any ground with it
    withStroke(linewidth=2.4, foreground="white", alpha=0.75)
]
DEPTHS = (10, 30, 100, 300)  # layers, whose contours are drawn


def phase(
    plane: xr.Dataset,
    *,
    measured: Iterable[tuple[float, float, float]] = (),
    ax: Axes | None = None,
    **labels: Any,
) -> Axes:
    r"""Draw how fast gradients grow over the plane of variances.

    Colours are decades per layer, on a scale that is linear within ±0.01; the line is the edge of
    chaos, $\chi_1 = 1$; dashed lines are trainable depths, $6\xi_c$, on both sides of it; hatched
    is where the signal itself vanishes or explodes. A measured point has the colour of its rate:
    where theory holds it cannot be told from its ground.

    Args:
        plane: what `phase` returned.
        measured: (sigma_w², sigma_b², decades per layer) of networks that were measured.
        ax: where to draw; a new figure by default.
        **labels: `title`, `xlabel`, `ylabel` and others of `Axes.set`.

    Raises:
        UnusableInput: not a plane of at least two values of each.

    Example:
        `phase(pp.phase("tanh", np.linspace(0.5, 4, 100), np.linspace(0, 0.5, 100)))`
    """
    if "log10_growth" not in plane or min(plane["log10_growth"].shape) < 2:
        raise UnusableInput(
            "a plane from propagate.phase with two values of each variance is required"
        )
    if ax is None:
        ax = new_figure(6.6, 4.4).add_subplot()
    x, y = plane["sigma_w2"].values, plane["sigma_b2"].values
    growth = plane["log10_growth"].values
    scale = growth_colours.colours()
    image = ax.pcolormesh(x, y, growth, shading="nearest", rasterized=True, **scale)
    _lines(ax, plane)
    lost = ~np.isfinite(plane["q"].values) | (plane["q"].values == 0)
    if lost.any() and not lost.all():
        with_hatch = {"levels": [0.5, 1.5], "colors": "none", "hatches": ["///"]}
        ax.contourf(x, y, lost.astype(float), **with_hatch)
    points = np.array(list(measured)).reshape(-1, 3)
    ax.scatter(*points[:, :2].T, c=points[:, 2], s=70, edgecolors="black", clip_on=False, **scale)
    growth_colours.bar(ax, image, "gradient, decades per layer")
    ax.set(xlabel=r"$\sigma_w^2$", ylabel=r"$\sigma_b^2$", title=plane.attrs.get("activation", ""))
    keys = [Line2D([], [], color="black", label=name, **look) for name, look in KEYS.items()]
    shown = keys if len(points) else keys[:2]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 3}
    ax.legend(handles=shown, frameon=False, fontsize="small", **place)
    ax.set(**labels)
    return ax


def _lines(ax: Axes, plane: xr.Dataset) -> None:
    """Draw the edge of chaos, and contours of the trainable depth."""
    growth = np.where(np.isfinite(plane["q"]) & (plane["q"] > 0), plane["log10_growth"], np.nan)
    place = plane["sigma_w2"].values, plane["sigma_b2"].values
    if np.nanmin(growth) < 0 < np.nanmax(growth):
        ax.contour(*place, growth, levels=[0.0], colors="black", linewidths=2)
    with np.errstate(divide="ignore"):
        rates = 1 / plane["xi_c"].values  # finite at the edge, where depths are not
    levels = {6 / depth: f"{depth} layers" for depth in reversed(DEPTHS)}
    inside = [r for r in levels if np.nanmin(rates) < r < np.nanmax(rates)]
    if inside:
        style = {"colors": "black", "linewidths": 1.2, "linestyles": "--"}
        lines = ax.contour(*place, rates, levels=inside, **style)
        lines.set_path_effects(HALO)
        for text in ax.clabel(lines, fmt=levels, fontsize="small"):
            text.set_path_effects(HALO)
