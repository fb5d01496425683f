"""The table of pictures: what a saved record can be drawn as, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.animation import FuncAnimation, writers
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from propagate.plot import (
    growth_curves,
    heat_map,
    histogram,
    phase_diagram,
    width_curves,
)
from propagate.plot.by_layer import exponents, residual_stream, ridges
from propagate.plot.marks import mark_findings
from propagate.plot.style import COLUMN_INCHES, each_pairing
from propagate.plot.while_training import film, learning
from propagate.record.dataset import measured_directions, second_moment
from propagate.types import DIRECTIONS, Direction, PropagateError, StyleName, UnusableInput
from propagate.verdicts.findings import Findings
from propagate.verdicts.judge import judge
from propagate.verdicts.outcomes import is_training

Directions = Sequence[Direction]
COLOUR_BAR = "<colorbar>"  # the label that matplotlib gives to the axes of one
SHRINK = 0.8  # from letters of 10 pt to letters of 8 pt
MOST_CURVES = 24  # pairings on one axis
LINE_INCHES = 0.17  # of a legend
FLAT = 0.7  # height over width of a picture one column wide
STILL = ("png", "svg", "pdf")  # formats of files
MOVING = {"gif": "pillow", "mp4": "ffmpeg"}  # and what matplotlib writes them with


@dataclass(frozen=True)
class Kind:
    """A picture of a record.

    Attributes:
        shows: what is seen on it, a sentence without its point.
        needs: what a record must have, in words.
        suits: whether a record has that.
        draw: the picture of a record, in directions, with findings if they are known.
        columns: of a page, which it takes in print.
        directed: whether it can show one direction alone.
        numbered: whether y is a number, which can be limited.
        formats: of files, the first by default.

    A film has no labels and no style but its own.
    """

    shows: str
    needs: str
    suits: Callable[[xr.Dataset], bool]
    draw: Callable[[xr.Dataset, Directions, Findings | None], Figure | FuncAnimation]
    columns: int = 2
    directed: bool = False
    numbered: bool = True
    formats: tuple[str, ...] = STILL

    @property
    def still(self) -> bool:
        """Whether it is a picture, and no film."""
        return self.formats == STILL


def suitable(record: xr.Dataset) -> list[str]:
    """Return the kinds that suit a record, the most telling first.

    Example:
        >>> suitable(xr.Dataset({"log10_forward_q": ("layer", [0.0, -0.5])}))
        ['variance']
    """
    return [name for name, kind in KINDS.items() if kind.suits(record)]


def suiting(record: xr.Dataset, name: str | None = None) -> str:
    """Return the kind of that name, or the most telling one, if it suits a record.

    Raises:
        UnusableInput: there is no such kind, or it does not suit; the error says which do.

    Example:
        >>> suiting(xr.Dataset({"log10_forward_q": ("layer", [0.0, -0.5])}), "map")
        Traceback (most recent call last):
        propagate.types.UnusableInput: map needs a sweep; this record can be drawn as variance
    """
    suited = suitable(record)
    if name is None and suited:
        return suited[0]
    if name in suited:
        return name
    listed = ", ".join(suited)
    can = (
        f"this record can be drawn as {listed}" if listed else "nothing in this record can be drawn"
    )
    if name is None:
        needs = "; ".join(f"{name}: {kind.needs}" for name, kind in KINDS.items())
        raise UnusableInput(f"a picture needs one of these records: {needs}; {can}")
    if name not in KINDS:
        raise UnusableInput(f"no picture is called {name!r}: {can}")
    raise UnusableInput(f"{name} needs {KINDS[name].needs}; {can}")


def _map(record: xr.Dataset, directions: Directions, findings: Findings | None) -> Figure:
    found = judge(record) if findings is None else findings
    return heat_map.heatmaps([f for f in found if f.direction in directions])


def _variance(record: xr.Dataset, directions: Directions, findings: Findings | None) -> Figure:
    """Draw all on one axis; of a custom model with its findings marked."""
    (one,) = directions if len(directions) == 1 else (None,)
    ax = growth_curves.variance(record, direction=one)
    if "site" in record.dims:
        found = judge(record).worst_first() if findings is None else findings
        mark_findings(ax, record, [f for f in found if f.direction in directions])
    return _figure_of(ax)


def _figure_of(ax: Axes) -> Figure:
    figure: Any = ax.figure
    return figure


def _is_sweep(record: xr.Dataset) -> bool:
    dims = set(record.dims)
    return "layer" in dims and bool({"init", "activation"} & dims) and "step" not in dims


def _has_signals(record: xr.Dataset) -> bool:
    """Whether there is any number of a signal: an interrupted sweep may have none yet."""
    moments = [second_moment(record, direction) for direction in measured_directions(record)]
    return any(bool(q.notnull().any()) for q in moments)


def _is_for_one_axis(record: xr.Dataset) -> bool:
    """Whether it has signals along depth, of no more pairings than a legend can name."""
    if {"width", "step"} & set(record.dims) or not _has_signals(record):
        return False
    return "site" in record.dims or sum(1 for _ in each_pairing(record)) <= MOST_CURVES


def _is_one_with_histograms(record: xr.Dataset) -> bool:
    names = {f"{place}_histogram" for place in ("activation", "backward")}
    return names <= set(record) and not _is_sweep(record.squeeze())


KINDS = {
    "learning": Kind(
        "How the held-out score of each pairing rises, with the range of its runs",
        "a record of propagate train",
        is_training,
        lambda record, *_: learning.learning_curves(record),
    ),
    "curves": Kind(
        "How the signal and its gradient grow along depth, a column for each activation",
        "a sweep",
        lambda record: _is_sweep(record) and _has_signals(record),
        lambda record, *_: growth_curves.curves(record),
    ),
    "map": Kind(
        "The verdict on each pairing, with its growth in decades per layer",
        "a sweep",
        lambda record: _is_sweep(record) and _has_signals(record),
        _map,
        directed=True,
        numbered=False,
    ),
    "variance": Kind(
        "How the signal and its gradient grow along depth, on one axis",
        f"log10_forward_q or log10_backward_q of sites, or of {MOST_CURVES} pairings at most",
        _is_for_one_axis,
        _variance,
        columns=1,
        directed=True,
    ),
    "histograms": Kind(
        "How activations and gradients are distributed at up to six layers",
        'one pairing, measured with measures=("q", "histogram")',
        _is_one_with_histograms,
        lambda record, *_: histogram.histograms(record),
    ),
    "ridge": Kind(
        "How activations are distributed at up to twelve layers, one above the other",
        'one pairing, measured with measures=("q", "histogram")',
        _is_one_with_histograms,
        lambda record, *_: _figure_of(ridges.ridge(record.squeeze())),
        columns=1,
        numbered=False,
    ),
    "exponents": Kind(
        "Which powers of two the gradients of each layer have, beside what dtypes can hold",
        'one pairing, measured with measures=("q", "histogram")',
        _is_one_with_histograms,
        lambda record, *_: _figure_of(exponents.exponents(record.squeeze())),
        columns=1,
        numbered=False,
    ),
    "phase": Kind(
        "How fast gradients grow over the plane of variances, with the edge of chaos",
        "a plane of propagate phase or pp.phase",
        lambda record: "log10_growth" in record,
        lambda plane, *_: _figure_of(phase_diagram.phase(plane)),
        columns=1,
        numbered=False,
    ),
    "stream": Kind(
        "What residual branches add to their stream: the signal propagation plot",
        "one residual network, with log10_branch_q",
        lambda record: "step" not in record.dims and residual_stream.has_branches(record),
        lambda record, *_: _figure_of(residual_stream.signal_propagation(record)),
        columns=1,
    ),
    "film": Kind(
        "How signal, gradient and update of each layer change while it learns, as a film",
        "a record of propagate train, with signals",
        lambda record: is_training(record) and bool(film.measured(record)),
        lambda record, *_: film.training_film(record),
        numbered=False,
        formats=tuple(MOVING),
    ),
    "widths": Kind(
        "How signals and their changes scale with width",
        "a record of pp.coordinate_check",
        lambda record: "log10_change_q" in record and record.sizes.get("width", 0) > 1,
        lambda record, *_: width_curves.coordinate_check(record),
    ),
}


def check_writer(form: str) -> None:
    """Raise `PropagateError` if a format of files needs a program that is not installed."""
    writer = MOVING.get(form)
    if writer and not writers.is_available(writer):
        raise PropagateError(f"a film as {form} needs {writer}, which is not installed: use gif")


def write(picture: Figure | FuncAnimation, path: Path, form: str) -> None:
    """Write a picture or a film to a file."""
    if isinstance(picture, Figure):
        picture.savefig(path, format=form)
    else:
        picture.save(path, writer=MOVING[form])


def drawn(
    record: xr.Dataset,
    name: str,
    directions: Directions = DIRECTIONS,
    *,
    findings: Findings | None = None,
    style: StyleName = "screen",
    title: str | None = None,
    ylim: tuple[float, float] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Figure:
    """Return a picture of a record by the name of its kind; to be saved within the same style.

    Args:
        record: what is drawn.
        name: of `KINDS`, one that suits the record, and no film.
        directions: of those kinds that can show one alone.
        findings: on it, for the kinds that show them; by default those of `judge`.
        style: of `STYLES`; `"paper"` has 8 pt, and is as wide as a column of a page or two.
        title: above it, instead of its own.
        ylim: limits of y on every panel.
        xlabel: below every panel that has such a label.
        ylabel: beside every panel that has such a label.
    """
    kind = KINDS[name]
    figure = kind.draw(record, directions, findings)
    assert isinstance(figure, Figure), f"{name} is a film, which has labels of its own"
    panels = [ax for ax in figure.axes if ax.get_label() != COLOUR_BAR]
    if title is not None:
        panels[0].set_title(title) if len(panels) == 1 else figure.suptitle(title)
    for ax in panels:
        if ylim is not None:
            ax.set_ylim(*ylim)
        if xlabel is not None and ax.get_xlabel():
            ax.set_xlabel(xlabel)
        if ylabel is not None and ax.get_ylabel():
            ax.set_ylabel(ylabel)
    if style == "paper":
        _to_page(figure, kind.columns)
    return figure


def _to_page(figure: Figure, columns: int) -> None:
    """Make a figure as wide as columns of a page, with legends that were beside it below."""
    beside = [*figure.legends]
    if columns == 1:
        beside += [legend for ax in figure.axes if (legend := ax.get_legend())]
    for legend in beside:
        words = [text.get_text() for text in legend.get_texts()]
        title = legend.get_title().get_text() or None
        look = {"fontsize": "small", "title_fontsize": "small", "frameon": False}
        place = {"loc": "outside lower center", "ncols": columns**2}
        handles: Any = legend.legend_handles
        legend.remove()
        figure.legend(handles, words, title=title, **look, **place)
    lines = sum(-(-len(legend.get_texts()) // columns**2) for legend in figure.legends)
    page = COLUMN_INCHES[columns]
    height = page * FLAT if columns == 1 else figure.get_figheight() * SHRINK
    figure.set_size_inches(page, height + LINE_INCHES * lines)
