"""Growth rates as colours: of phase diagrams, and of verdicts, where fine is one colour."""

from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, SymLogNorm

STEEPEST = 1.0  # decades per layer, the ends of the colours
LINEAR = 0.01  # within it colours are linear, beyond it logarithmic
UNKNOWN = "0.88"  # the grey of what has no finite rate
TICKS = {-1: "≤ −1", -0.1: "−0.1", -0.01: "−0.01", 0: "0"} | {
    0.01: "+0.01",
    0.1: "+0.1",
    1: "≥ +1",
}


def colours() -> dict[str, Any]:
    """Return the norm and the colour map of decades per layer."""
    return {
        "norm": SymLogNorm(LINEAR, vmin=-STEEPEST, vmax=STEEPEST, base=10),
        "cmap": colormaps["RdBu_r"].with_extremes(bad=UNKNOWN),
    }


def bar(ax: Axes, image: Any, label: str) -> None:
    """Draw the colour bar of an image beside its axis."""
    drawn = ax.figure.colorbar(image, ax=ax, extend="both", label=label)
    drawn.set_ticks(list(TICKS), labels=list(TICKS.values()))
    drawn.minorticks_off()


FINE = "#f7f7f7"  # the colour of what is fine, the middle of the map of growth
HEALTHY = "#009E73"  # the outline of what is fine
HATCH = {False: (0, 0, 0, 0.18), True: (1, 1, 1, 0.25)}  # of faults, on light and on dark
OTHER = "#b8a8c8"  # of a fault that is not one of growth
STEPS = (1, 3, 10, 30)  # of growth over the fastest fine one, where the colour changes
EDGES = (*(-step for step in reversed(STEPS)), *STEPS)
SHADES = (0.32, 0.2, 0.09, 0.0)  # along the map of growth, of growth beyond each of the steps


def verdict_colours() -> tuple[BoundaryNorm, Colormap]:
    """Return the norm and the colour map of growth in units of the fastest that is fine.

    All within ±1 is one neutral colour, so that colours say what verdicts say.
    """
    growing = colormaps["RdBu_r"]
    shrink = [growing(shade) for shade in reversed(SHADES)]
    grow = [growing(1 - shade) for shade in SHADES]
    listed = ListedColormap([*shrink[1:], FINE, *grow[:-1]]).with_extremes(
        bad=OTHER, under=shrink[0], over=grow[-1]
    )
    return BoundaryNorm(EDGES, listed.N), listed


def verdict_bar(*axes: Axes) -> None:
    """Draw the colour bar of verdicts beside one axis or several."""
    label = (
        "multiples of the fastest fine growth\n"
        "green outline: fine; dots: unsettled\n"
        "hatched: a fault; violet: of another kind\n"
        "collapsing: rate of what tells inputs apart"
    )
    look: dict[str, Any] = {"extend": "both", "spacing": "uniform", "aspect": 20 * len(axes)}
    shown = ScalarMappable(*verdict_colours())
    drawn = axes[0].figure.colorbar(shown, ax=list(axes), **look)
    drawn.set_label(label, fontsize="small")
    words = (f"{edge:+d}".replace("-", "−") for edge in EDGES)
    drawn.set_ticks(list(EDGES), labels=list(words))
