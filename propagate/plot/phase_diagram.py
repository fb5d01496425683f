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

EDGE, DEPTH, MEASURED = "edge of chaos", "trainable depth", "measured, filled with its own rate"
KEYS: dict[str, dict[str, Any]] = {  # of the legend
    EDGE: {"linewidth": 2},
    DEPTH: {"linewidth": 1.2, "linestyle": "--"},
    MEASURED: {"linestyle": "", "marker": "o", "markersize": 8, "fillstyle": "none"},
}
INSIDE = 0.12, 0.88  # of both axes, where labels of contours stand
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
    points = np.array(list(measured)).reshape(-1, 3)
    drawn = _lines(ax, plane, points[:, :2])
    lost = ~np.isfinite(plane["q"].values) | (plane["q"].values == 0)
    if lost.any() and not lost.all():
        with_hatch = {"levels": [0.5, 1.5], "colors": "none", "hatches": ["///"]}
        ax.contourf(x, y, lost.astype(float), **with_hatch)
    ax.scatter(*points[:, :2].T, c=points[:, 2], s=70, edgecolors="black", clip_on=False, **scale)
    growth_colours.bar(ax, image, "gradient, decades per layer")
    ax.set(xlabel=r"$\sigma_w^2$", ylabel=r"$\sigma_b^2$", title=plane.attrs.get("activation", ""))
    drawn += [MEASURED] if len(points) else []
    shown = [Line2D([], [], color="black", label=name, **KEYS[name]) for name in drawn]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 3}
    ax.legend(handles=shown, frameon=False, fontsize="small", **place)
    ax.set(**labels)
    return ax


def _lines(ax: Axes, plane: xr.Dataset, points: np.ndarray) -> list[str]:
    """Draw the edge of chaos, and contours of the trainable depth; return which there are."""
    growth = np.where(np.isfinite(plane["q"]) & (plane["q"] > 0), plane["log10_growth"], np.nan)
    place, drawn = (plane["sigma_w2"].values, plane["sigma_b2"].values), []
    if np.nanmin(growth) < 0 < np.nanmax(growth):
        ax.contour(*place, growth, levels=[0.0], colors="black", linewidths=2)
        drawn.append(EDGE)
    with np.errstate(divide="ignore"):
        rates = 1 / plane["xi_c"].values  # finite at the edge, where depths are not
    levels = {6 / depth: f"{depth} layers" for depth in reversed(DEPTHS)}
    inside = [r for r in levels if np.nanmin(rates) < r < np.nanmax(rates)]
    if inside:
        style = {"colors": "black", "linewidths": 1.2, "linestyles": "--"}
        lines = ax.contour(*place, rates, levels=inside, **style)
        lines.set_path_effects(HALO)
        where = _apart([path.vertices for path in lines.get_paths()], points, place)
        for text in ax.clabel(lines, fmt=levels, fontsize="small", manual=where):
            text.set_path_effects(HALO)
        drawn.append(DEPTH)
    return drawn


def _apart(
    curves: Iterable[Any], points: np.ndarray, place: tuple[np.ndarray, np.ndarray]
) -> list[tuple[float, float]]:
    """Return a place for the label of each curve, far from points and from other labels."""
    low, size = (np.array([f(axis) for axis in place]) for f in (np.min, np.ptp))
    taken, found = list((points - low) / size), []
    for vertices in map(np.asarray, curves):
        within = (vertices - low) / size
        free = ((within > INSIDE[0]) & (within < INSIDE[1])).all(axis=1)
        if not free.any():
            continue
        within, vertices = within[free], vertices[free]
        others = np.array([*taken, [-1.0, 0.5]])  # one outside, where there is no other
        gaps = np.linalg.norm(within[:, None] - others, axis=-1).min(axis=1)
        best = int(np.argmax(gaps))
        taken.append(within[best])
        found.append((float(vertices[best, 0]), float(vertices[best, 1])))
    return found
