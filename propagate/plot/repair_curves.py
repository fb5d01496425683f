"""Signal and gradient along a model before and after a repair; `propagate.plot.before_after`."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from propagate.plot.style import BESIDE, COLOURS, new_figure, not_measured, positions, widen
from propagate.record.dataset import measured_directions
from propagate.record.spine import spine
from propagate.types import DIRECTIONS, Direction
from propagate.verdicts.along_spine import levels
from propagate.verdicts.findings import SUBJECTS

ARROWS: dict[Direction, str] = {"forward": "→", "backward": "←"}
NAMED_SITES = 40  # as many are named below the axis


def before_after(before: xr.Dataset, after: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the levels of signal and gradient along the spine, before (dotted) and after.

    A signal's level is log10 of its second moment, a gradient's log10 of its sum of squares, as
    the verdicts take them (`verdicts.along_spine`), each relative to where it starts from: the
    signal to the first site, the gradient to the last.

    Args:
        before: record of the model as it was.
        after: record of the same sites with other parameters.
        ax: where to draw; a new figure by default.

    Returns:
        The axis, in decades.

    Raises:
        UnusableInput: the records have no second moments.

    Example:
        `before_after(fixed.before.record, fixed.after.record).figure.savefig("repair.png")`
    """
    if not measured_directions(before) or not measured_directions(after):
        raise not_measured("second moments of signal or gradient")
    beside = BESIDE if ax is None else {}
    ax = new_figure(8.4, 3.8).add_subplot() if ax is None else ax
    looks: list[tuple[xr.Dataset, str, dict[str, Any]]] = [
        (before, "before", {"linestyle": ":", "linewidth": 1.6}),
        (after, "after", {"linestyle": "-", "linewidth": 2.2}),
    ]
    chain = spine(after)
    for record, when, look in looks:
        for k, direction in enumerate(DIRECTIONS):
            if direction not in measured_directions(record):
                continue
            level = levels(record, direction)[chain["site"].values.astype(int)]
            known = np.flatnonzero(np.isfinite(level))
            first = level[known[0 if direction == "forward" else -1]] if len(known) else 0.0
            label = f"{SUBJECTS[direction]} {ARROWS[direction]}, {when}"
            shown = np.where(np.isfinite(level), level - first, np.nan)
            ax.plot(positions(chain), shown, color=COLOURS[k], label=label, **look)
    ax.set(xlabel="site", ylabel="growth since its start\n(decades of the second moment)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if chain.sizes["site"] <= NAMED_SITES:
        ax.set_xticks(positions(chain), chain["name"].values, rotation=90, fontsize="x-small")
    ax.legend(fontsize="small", frameon=False, **beside)
    return widen(ax)
