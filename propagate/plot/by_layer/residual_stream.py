"""What residual branches add to their stream, block by block; `plot.signal_propagation`."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from propagate.plot.style import COLOURS, Units, in_units, new_figure, positions, write_units
from propagate.record.dataset import second_moment
from propagate.types import UnusableInput

NEEDED = ("log10_forward_q", "log10_forward_variance", "log10_branch_q")
RUNS = {"seed", "layer", "site"}  # dims of one network
NAMED_SITES = 24  # as many additions are named below the axis


def has_branches(record: xr.Dataset) -> bool:
    """Whether a record is of one network, with residual branches."""
    if not set(NEEDED) <= set(record) or not record["log10_branch_q"].notnull().any():
        return False
    return {d for d, n in record["log10_branch_q"].sizes.items() if n > 1} <= RUNS


def signal_propagation(
    record: xr.Dataset,
    *,
    ax: Axes | None = None,
    units: Units = "variance",
    **labels: Any,
) -> Axes:
    r"""Draw the signal propagation plot of a residual network.

    At the end of each block, with means over units and E over inputs (and positions):

    * the squared mean of the stream, $\overline{(E h)^2} = q - \overline{Var\,h}$, and its
      variance $\overline{Var\,h}$;
    * the second moment of what the branch adds.

    A stream is well behaved where its variance grows slowly, and its squared mean does not take
    over. A curve is the median over seeds, its band their range.

    Args:
        record: of `measure`, of one residual network or transformer, or the record of a diagnosis.
        ax: where to draw; a new figure by default.
        units: y is written in `"decades"`, or as the `"variance"` itself, in powers of ten.
        **labels: `title`, `xlabel`, `ylim` and others of `Axes.set`.

    Returns:
        The axis.

    Raises:
        UnusableInput: the record is of several pairings, or has no residual branches.

    Example:
        `signal_propagation(record).figure.savefig("spp.png")`, where `record` is of
        `pp.measure(pp.Network(family="residual"), key)`

    Reference:
        Brock, De & Smith (2021), arXiv:2101.08692, section 3.
    """
    stream = _of_additions(record)
    ax = new_figure(6.4, 3.8).add_subplot() if ax is None else ax
    q, variance = (10 ** stream[f"log10_forward_{of}"] for of in ("q", "variance"))
    shown = {
        "stream: squared mean": np.maximum(q - variance, 0),
        "stream: variance": variance,
        "branch: second moment": 10 ** second_moment(stream, "branch"),
    }
    x = positions(stream)
    for k, (name, values) in enumerate(shown.items()):
        with np.errstate(divide="ignore"):
            levels = np.log10(values.transpose("seed", ...).values)
        levels[~np.isfinite(levels)] = np.nan
        look = {"color": COLOURS[k], "marker": "os^"[k], "markersize": 4}
        ax.plot(x, np.median(levels, axis=0), label=name, **look)
        ax.fill_between(x, levels.min(axis=0), levels.max(axis=0), color=COLOURS[k], alpha=0.15)
    ax.set(xlabel="block", ylabel=in_units("second moment", units))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "name" in stream.coords and len(x) <= NAMED_SITES:
        ax.set_xticks(x, stream["name"].values, rotation=90, fontsize="x-small")
    ax.legend(frameon=False, fontsize="small")
    write_units(ax, units).set(**labels)
    return ax


def _of_additions(record: xr.Dataset) -> xr.Dataset:
    """Return the layers or sites where a branch is added, with a dim `seed`."""
    if not has_branches(record):
        there = [name for name in NEEDED if name in record]
        raise UnusableInput(
            "a signal propagation plot needs the record of one residual network, with "
            f"{', '.join(NEEDED)}, got {', '.join(there) or 'none of them'} with sizes "
            f"{dict(record.sizes)}"
        )
    own = record[list(NEEDED)].squeeze(drop=True)
    own = own if "seed" in own.dims else own.expand_dims("seed")
    (depth,) = set(own.dims) - {"seed"}
    added = own["log10_branch_q"].notnull().any("seed").values
    return own.isel({depth: np.flatnonzero(added)})
