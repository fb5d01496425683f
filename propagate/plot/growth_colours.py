"""Growth rates as colours: one scale for maps of verdicts and phase diagrams."""

from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm

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
