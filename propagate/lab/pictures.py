"""Pictures of the lab, as SVG for a page; drawn by `propagate.plot`."""

import base64
import functools
import html
import io

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import propagate as pp
from propagate.lab.look import Point

SIGMA_W2, SIGMA_B2 = (0.0, 6.25), (0.0, 1.0)  # ends of the axes of the phase diagram
POINTS = (80, 60)
DOTS = 72  # an inch, in the units of an SVG
LABELS = 0.28, 0.5  # inches from the axes to their labels, below and to the left


class _Pair:
    """Two axes side by side, emptied and drawn on again: to make them takes a third of the time.

    Labels and titles have their places, for to find them the ticks are laid out once more for each.
    """

    def __init__(self, height: float, *margins: float) -> None:
        self.figure = Figure((10.4, height))
        self.axes = self.figure.subplots(1, 2)
        self.figure.subplots_adjust(*margins)
        for ax in self.axes:
            width, height = ax.get_window_extent().size / self.figure.dpi
            ax.xaxis.set_label_coords(0.5, -LABELS[0] / height)
            ax.yaxis.set_label_coords(-LABELS[1] / width, 0.5)

    def emptied(self) -> np.ndarray:
        """Return the axes without what was drawn."""
        return np.array([_emptied(ax) for ax in self.axes])


def _emptied(ax: Axes) -> Axes:
    """Return an axis without what was drawn, free to find its limits."""
    legend = ax.get_legend()
    kept = (*ax.lines, *ax.collections, *ax.patches, *ax.texts, *ax.artists)
    for artist in (*kept, *([legend] if legend else [])):
        artist.remove()
    ax.relim()
    ax.set_autoscale_on(True)
    return ax


class Curves(_Pair):
    """Signal and gradient along the layers, with the range of seeds, and theory on top."""

    def __init__(self) -> None:
        super().__init__(3.4, 0.07, 0.15, 0.99, 0.91, 0.21)

    def draw(self, record: xr.Dataset, theory: xr.Dataset | None = None) -> str:
        """Return the picture of a record, with what theory expects of it."""
        for ax, direction in zip(self.emptied(), ("forward", "backward"), strict=True):
            pp.plot.variance(record, ax=ax, direction=direction, theory=theory)
            title = {"forward": "signal, at h", "backward": "gradient, at h"}[direction]
            ax.set_ylabel("second moment (decades)")
            ax.set_title(title, y=1.0)
        return svg(self.figure, "second moment of signal and gradient, layer by layer")


class Histograms:
    """The distributions of activations and gradients at some layers.

    Axes and their labels take most of the time and are the same for every record: what is around
    the lines is drawn once for layers of these names.
    """

    def __init__(self) -> None:
        margins = 3.2, 0.08, 0.17, 0.9, 0.9, 0.42
        self.around, self.lines = _Pair(*margins), _Pair(*margins)
        self.frames: dict[tuple[str, ...], str] = {}
        self.lines.figure.patch.set_visible(False)
        for ax in self.lines.axes:
            ax.set_axis_off()
            ax.title.set_visible(False)

    def draw(self, record: xr.Dataset) -> str:
        """Return the picture of a record."""
        axes = self.lines.emptied()
        pp.plot.histograms(record, axes=axes, legend=False)
        names = tuple(f"{k} {line.get_label()}" for k in (0, 1) for line in axes[k].lines)
        if names not in self.frames:
            self.frames[names] = self._frame(record)
        lines = _drawn(self.lines.figure)
        lines = lines[lines.index(">") + 1 :]
        return self.frames[names].replace("</svg>", lines)

    def _frame(self, record: xr.Dataset) -> str:
        """Return what is around the lines; words in place of axes without any."""
        axes = self.around.emptied()
        pp.plot.histograms(record, axes=axes)
        for ax in axes:
            ax.axison = bool(ax.lines)
            if ax.axison:
                ax.set_title(ax.get_title(), y=1.0, fontsize="medium")
                ax.yaxis.set_major_formatter("{x:g}")
            else:
                _emptied(ax).set_title("")
                ax.text(0.5, 0.5, "without an activation", ha="center", transform=ax.transAxes)
            for line in ax.lines:
                line.set_visible(False)
        return svg(self.around.figure, "distributions of activations and gradients")


def of_record(record: xr.Dataset) -> str:
    """Return the curves of a record that was measured elsewhere."""
    return svg(pp.plot.variance(record).figure, "second moments of the record")


def phase(phi: pp.Activation, point: Point) -> str:
    """Return the phase diagram of an activation, with a point on it, at its edge if beyond."""
    diagram, size, (low, high) = _plane(phi)
    at = [
        a + (b - a) * min(max((value - start) / (end - start), 0.0), 1.0)
        for a, b, value, (start, end) in zip(low, high, point, (SIGMA_W2, SIGMA_B2), strict=True)
    ]
    dot = f'<circle class="here" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="7" '
    dot += 'fill="white" stroke="black" stroke-width="2.5"/>'
    width, height = size
    over = f'<svg viewBox="0 0 {width:g} {height:g}" style="position:absolute;inset:0">{dot}</svg>'
    place = f"position:relative;width:{width / DOTS:g}in;max-width:100%"
    return f'<div style="{place}">{diagram}{over}</div>'


@functools.lru_cache(maxsize=64)
def _plane(phi: pp.Activation) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the diagram without a point, its size, and the corners of its axes.

    It is an image of its own, which a page need not read again when the point moves.
    """
    axes = (np.linspace(*end, n) for end, n in zip((SIGMA_W2, SIGMA_B2), POINTS, strict=True))
    figure = Figure((6.2, 4.0), layout="constrained", dpi=DOTS)
    ax = figure.subplots()
    pp.plot.phase(pp.phase(phi, *axes), ax=ax)
    ax.set(xlim=SIGMA_W2, ylim=SIGMA_B2, title="gradient over the plane of variances")
    coded = base64.b64encode(_drawn(figure).encode()).decode()
    alt = html.escape(f"phase diagram of {phi.name}")
    image = f'<img alt="{alt}" style="width:100%" src="data:image/svg+xml;base64,{coded}">'
    corners = ax.transData.transform(np.array([SIGMA_W2, SIGMA_B2]).T)
    return image, np.array(figure.bbox.size), corners * [1, -1] + [0, figure.bbox.height]


def svg(figure: Figure, label: str) -> str:
    """Return a figure as an SVG that is as wide as its place, with words for who cannot see it."""
    says = f'<svg role="img" aria-label="{html.escape(label)}" style="max-width:100%;height:auto" '
    return _drawn(figure).replace("<svg ", says, 1)


def _drawn(figure: Figure) -> str:
    """Return the SVG of a figure, its letters as text."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
