"""A film of how signal and gradient of each layer change while a network learns."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from propagate.plot.style import new_figure, numbered_style
from propagate.types import UnusableInput
from propagate.verdicts.outcomes import best_rates, score_name

SHOWN = {
    "log10_forward_q": "signal: second moment (decades)",
    "log10_backward_q": "gradient: second moment (decades)",
    "log10_update_ratio": "update / weight: ratio of rms (decades)",
}
MARGIN = 0.05  # of the range of y, above and below


def measured(record: xr.Dataset) -> list[str]:
    """Return the variables of layers that a film of this record can show."""
    return [name for name in SHOWN if name in record and "layer" in record[name].dims]


def training_film(record: xr.Dataset, *, seconds: float = 8.0) -> FuncAnimation:
    """Draw the statistics of every layer, a frame for each epoch that was recorded.

    A column is an activation, a row the signal, its gradient, or the rms of an update over that of
    the weights, in so far as they were measured. A curve is the mean over seeds and folds at the
    best learning rate. The axes are the same in all frames.

    Args:
        record: of `propagate.train`.
        seconds: how long the film takes.

    Returns:
        A matplotlib animation: `.save("film.gif", writer="pillow")`, or `.save("film.mp4")` where
        `ffmpeg` is installed.

    Raises:
        UnusableInput: not such a record, or nothing of its layers was measured.

    Example:
        `training_film(trained.record).save("film.gif", writer="pillow")`, where `trained` is what
        `pp.train` returned.
    """
    score = score_name(record)
    shown = measured(record)
    if not shown:
        raise UnusableInput(f"a film needs one of {', '.join(SHOWN)}: train with measures=('q',)")
    phis = [str(phi) for phi in np.atleast_1d(record["activation"].values)]
    figure = new_figure(3.4 * len(phis) + 1.8, 2.2 * len(shown) + 0.6)
    axes = figure.subplots(len(shown), len(phis), sharex=True, sharey="row", squeeze=False)
    curves, count = [], dict.fromkeys(phis, 0)
    for own in best_rates(record):
        phi = str(own["activation"].values)
        for ax, name in zip(axes[:, phis.index(phi)], shown, strict=True):
            curves.append(_curve(ax, own, name, count[phi]))
        count[phi] += 1
    for row, name in zip(axes, shown, strict=True):
        _limit(row[0], np.concatenate([levels.ravel() for n, levels, _ in curves if n == name]))
        row[0].set_ylabel(SHOWN[name].replace(": ", "\n"), fontsize="small")
    for ax, phi in zip(axes[0], phis, strict=True):
        ax.set_title(phi)
    for ax in axes[-1]:
        ax.set_xlabel("layer")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    look = {"fontsize": "small", "frameon": False, "loc": "outside right upper"}
    figure.legend(*axes[0, 0].get_legend_handles_labels(), **look)
    title = figure.suptitle(" ")
    epochs = np.asarray(record["epoch"].values, float)
    best = record[score].max(set(record[score].dims) - {"step"}).values

    def show(step: int) -> list[Any]:
        title.set_text(f"after epoch {epochs[step]:g}; best held-out score {best[step]:.2f}")
        for _, levels, line in curves:
            line.set_ydata(levels[step])
        return [title, *(line for *_, line in curves)]

    interval = 1000 * seconds / len(epochs)
    return FuncAnimation(figure, show, frames=len(epochs), interval=interval, repeat_delay=1500)


def _curve(ax: Axes, own: xr.Dataset, name: str, k: int) -> tuple[str, np.ndarray, Any]:
    """Draw the first frame of a curve; return its variable, its values (step, layer) and itself."""
    levels = own[name].mean("run").transpose("step", "layer").values
    levels = np.where(np.isfinite(levels), levels, np.nan)
    label = str(own["init"].values) + _ends(levels, own["epoch"].values)
    (line,) = ax.plot(own["layer"].values, levels[0], label=label, **numbered_style(k))
    return name, levels, line


def _ends(levels: np.ndarray, epochs: np.ndarray) -> str:
    """Say of a curve from which epoch on it has no number, if it ends."""
    gone = np.asarray(np.isnan(levels).all(axis=1))
    if not gone[-1]:
        return ""
    shown = np.flatnonzero(~gone)
    return f" (to epoch {epochs[shown[-1]]:g})" if shown.size else " (no number)"


def _limit(ax: Axes, values: np.ndarray) -> None:
    """Give y the range of all frames."""
    seen = values[np.isfinite(values)]
    low, high = (seen.min(), seen.max()) if len(seen) else (-1.0, 1.0)
    margin = MARGIN * max(high - low, 1.0)
    ax.set_ylim(low - margin, high + margin)
