"""The picture of a Jacobian's singular values; `propagate.plot.spectrum`."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from propagate.plot.style import new_figure
from propagate.theory.jacobian_spectrum import Density, Spectrum
from propagate.types import UnusableInput

BINS = 40
NARROWEST = 0.5  # decades that an axis shows at least
ROOM = 1.75  # times the tallest bar, for the legend
FAINT = 0.5
LEGIBLE = 0.8  # of the legend, in front of a spike
SAME = 1e-6  # a relative variance that is rounding
RESOLVED = 1e-6  # of the largest singular value: what float32 leaves of smaller ones is rounding


def spectrum(
    values: np.ndarray,
    *,
    theory: Spectrum | None = None,
    density: Density | None = None,
    label: str = "measured",
    resolved: float = RESOLVED,
    color: str = "#0072B2",
    ax: Axes | None = None,
    **labels: Any,
) -> Axes:
    """Draw how the squares of a Jacobian's singular values are spread, over their logarithm.

    Equal singular values are one spike: no direction is stretched more than another. The legend
    has the variance of the squares, relative to their squared mean, and the share of them that is
    zero or too small for the dtype. Theory is black, its largest value a dotted line. A second call
    on an axis keeps its height, beyond which a spike goes.

    Args:
        values: singular values, as `jacobian.singular_values` returns them; of several draws, in
            any shape.
        theory: of `jacobian.spectrum`: its edge and its variance are marked.
        density: of `jacobian.density`.
        label: of the histogram.
        resolved: the smallest singular value that is one, as a share of the largest.
        color: of the histogram.
        ax: where to draw; a new figure by default.
        **labels: `title`, `xlabel`, `ylabel` and others of `Axes.set`.

    Raises:
        UnusableInput: no finite singular value above zero.

    Example:
        `spectrum(values, density=pp.jacobian.density("tanh", 10, 1.1))`
    """
    squares = np.square(np.asarray(values, float)).ravel()
    if not (squares.size and np.isfinite(squares).all() and squares.max() > 0):
        raise UnusableInput("finite singular values are required, one of them above zero")
    if ax is None:
        ax = new_figure(6.4, 3.8).add_subplot()
    seen = squares > squares.max() * resolved**2
    logs = np.log10(squares[seen])
    spread = squares.var() / squares.mean() ** 2
    unseen = _unseen(1 - seen.mean())
    name = f"{label}:" + ("\n" if unseen else " ") + _words(spread) + unseen
    edges = _edges(logs)
    shares = np.histogram(logs, edges)[0] / squares.size / np.diff(edges)
    if not ax.has_data():  # a spike beside what is wide goes beyond the top
        ax.set_ylim(0, ROOM * shares.max())
    bars = ax.stairs(shares, edges, fill=True, color=color, label=name)
    bars.set(facecolor=(color, FAINT), edgecolor=(color, FAINT), linewidth=1.5)
    _theory(ax, theory, density, edges[0])
    ax.set(xlabel="log10 of a squared singular value", ylabel="share per decade")
    ax.set(**labels)
    ax.legend(fontsize="small", loc="upper left", framealpha=LEGIBLE, edgecolor="none")
    return ax


def _words(spread: float) -> str:
    return f"variance {spread:.3g}" if spread > SAME else "all the same"


def _unseen(share: float) -> str:
    return f", {share:.0%} below rounding" if share > 0.005 else ""


def _edges(logs: np.ndarray) -> np.ndarray:
    """Return the ends of the bins, over what is seen and no less than half a decade."""
    low, high = float(logs.min()), float(logs.max())
    wider = max(0.0, NARROWEST - (high - low)) / 2
    return np.linspace(low - wider, high + wider, BINS + 1)


def _theory(ax: Axes, theory: Spectrum | None, density: Density | None, low: float) -> None:
    line: dict[str, Any] = {"color": "black", "linewidth": 1}
    known = ""
    if theory is not None:
        known = f": {_words(theory.variance)}"
        if math.isfinite(theory.edge):
            ax.axvline(math.log10(theory.edge), linestyle=":", label="largest in theory", **line)
    if density is not None:
        shown = density.log10_square >= low
        place, shares = density.log10_square[shown], density.per_decade[shown]
        known += _unseen(1 - float(-np.trapezoid(shares, place)))
        ax.plot(place, shares, linestyle="--", label=f"theory{known}", **line)
    elif known:
        ax.plot([], [], linestyle=":", label=f"theory{known}", **line)
