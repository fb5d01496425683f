"""Learning curves with bands, and how layers fare while they learn."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from propagate.plot.style import legend_options, new_figure, numbered_style
from propagate.verdicts.outcomes import SCORES, best_rates, score_name


def learning_curves(record: xr.Dataset, *, axes: Sequence[Axes] | None = None) -> Figure:
    """Draw the held-out score of every pairing by epoch, a panel for each activation.

    A line is the mean over seeds and folds at the best learning rate; its band reaches from the
    lowest run to the highest.

    Args:
        record: of `propagate.train`.
        axes: one for each activation; those of a new figure by default.

    Raises:
        UnusableInput: not such a record.

    Example:
        `learning_curves(trained.record).savefig("curves.png")`, where `trained` is what `pp.train`
        returned.
    """
    name = score_name(record)
    phis = [str(phi) for phi in np.atleast_1d(record["activation"].values)]
    alone = axes is None
    if axes is None:
        figure = new_figure(3.4 * len(phis) + 1.8, 3.4)
        axes = list(np.atleast_1d(figure.subplots(1, len(phis), sharey=True)))
    count = dict.fromkeys(phis, 0)
    for own in best_rates(record):
        phi = str(own["activation"].values)
        _curve(axes[phis.index(phi)], own, name, count[phi])
        count[phi] += 1
    for ax, phi in zip(axes, phis, strict=True):
        ax.set(title=phi, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "test_accuracy":
            ax.set_ylim(0, 1.02)
    axes[0].set_ylabel(SCORES[name])
    figure = axes[0].get_figure(root=True)
    assert isinstance(figure, Figure)
    named = legend_options(axes, (), record.drop_dims("seed"))
    figure.legend(**named, loc="outside right upper") if alone else axes[-1].legend(**named)
    return figure


def _curve(ax: Axes, own: xr.Dataset, name: str, k: int) -> None:
    scores = own[name].transpose("run", "step").values
    epochs = own["epoch"].values
    look, label = numbered_style(k), str(own["init"].values)
    if not np.isfinite(scores.mean(axis=0)).any():
        return  # not trained before the run was interrupted
    ax.plot(epochs, scores.mean(axis=0), label=label, markevery=0.15, **look)
    band = {"color": look["color"], "alpha": 0.15, "lw": 0}
    ax.fill_between(epochs, scores.min(axis=0), scores.max(axis=0), **band)
