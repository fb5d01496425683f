"""The picture of a phase diagram; `propagate.plot.phase`."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from propagate.plot import growth_colours
from propagate.plot.style import new_figure
from propagate.types import UnusableInput

DEPTHS = (10, 30, 100, 300)  # layers, whose contours are drawn


def phase(
    plane: xr.Dataset,
    *,
    measured: Iterable[tuple[float, float, float]] = (),
    ax: Axes | None = None,
) -> Axes:
    r"""Draw how fast gradients grow over the plane of variances.

    Colours are decades per layer, on a scale that is linear within ±0.01; the line is the edge of
    chaos, $\chi_1 = 1$; dotted lines are trainable depths, $6\xi_c$, on both sides of it; hatched
    is where the signal itself vanishes or explodes. A measured point has the colour of its rate:
    where theory holds it cannot be told from its ground.

    Args:
        plane: what `phase` returned.
        measured: (sigma_w², sigma_b², decades per layer) of networks that were measured.
        ax: where to draw; a new figure by default.

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
    title = f"{plane.attrs.get('activation', '')}: edge of chaos (solid), trainable depth (dotted)"
    title += ", measured (circles)" if len(points) else ""
    ax.set(xlabel=r"$\sigma_w^2$", ylabel=r"$\sigma_b^2$", title=title)
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
        style = {"colors": "black", "linewidths": 0.8, "linestyles": ":"}
        lines = ax.contour(*place, rates, levels=inside, **style)
        ax.clabel(lines, fmt=levels, fontsize="x-small")
