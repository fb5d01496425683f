"""How far growth curves are shown, where they leave the picture, and what is fine."""

from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from propagate.plot.panels.growth_panel import GrowthPanel
from propagate.verdicts.thresholds import FINE_DECADES

BAND = "#ECECEC"  # the ground of what is fine
SAME_START = 1.0  # decades within which curves begin, where one band serves them all
LEAVES = {"v": "below", "^": "above"}


def ground(panels: list[GrowthPanel]) -> list[Rectangle]:
    """Tint what is fine, where all curves begin at one level and leave it; return its key."""
    firsts = [y[np.isfinite(y)][:1] for panel in panels for _, y, _ in panel.paths]
    starts = np.concatenate([*firsts, np.empty(0)])
    if starts.size == 0 or np.ptp(starts) > SAME_START:
        return []
    level = float(np.median(starts))
    ends = np.array([panel.ax.get_ylim() for panel in panels])
    if np.abs(ends - level).max() <= FINE_DECADES:
        return []
    look: dict[str, Any] = {"facecolor": BAND, "edgecolor": "none", "zorder": -1}
    for ax in dict.fromkeys(panel.ax for panel in panels):
        place = (0, level - FINE_DECADES), 1, 2 * FINE_DECADES
        ground = Rectangle(*place, transform=ax.get_yaxis_transform(), **look)
        ax.add_artist(ground).set_in_layout(False)
    return [Rectangle((0, 0), 1, 1, label=f"fine: within {FINE_DECADES:.1f} decades", **look)]


def limit(row: list[GrowthPanel], reach: float) -> None:
    """Limit y to what is drawn and readable; mark where a curve leaves the picture."""
    reaches = np.array([panel.ax.dataLim.intervaly for panel in row])
    known = reaches[np.isfinite(reaches).all(axis=1)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    low, high = np.clip([low, high], -reach, reach)
    pad = max(0.5, 0.06 * (high - low))
    for panel in row:
        panel.ax.set_ylim(low - pad, high + pad)
        for mark in panel.ends:
            mark.set_ydata(np.clip(mark.get_ydata(), low, high))
        for x, path, colour in panel.paths:
            _mark_leaving(panel, x, path, colour, (low - pad, high + pad))


def _mark_leaving(
    panel: GrowthPanel, x: np.ndarray, path: np.ndarray, colour: Any, ends: tuple[float, float]
) -> None:
    """Mark where a path in the order of travel first crosses one of the ends of y."""
    for end, marker, sign in ((ends[0], "v", -1), (ends[1], "^", 1)):
        beyond = np.flatnonzero(np.isfinite(path) & (sign * (path - end) > 0))
        k = beyond[0] if beyond.size else 0
        if k and np.isfinite(path[k - 1]):
            place = np.interp(0, sign * (path[[k - 1, k]] - end), x[[k - 1, k]])
            panel.mark(place, end, colour, marker, f"leaves the picture {LEAVES[marker]}")
