"""Pictures of a record and of findings: growth curves, maps of verdicts, histograms, spectra.

Every function draws on the axis that is passed in, or on a figure of its own that no global
state knows of: keep it with `ax.figure.savefig(…)`. Scales are in decades (log10).
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from propagate import plot_rates
from propagate.plot_coordinate import coordinate_check as coordinate_check
from propagate.plot_phase import phase as phase
from propagate.plot_spectrum import spectrum as spectrum
from propagate.site_verdict import spine
from propagate.types import Direction, UnusableInput

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
# Okabe and Ito (2008) without yellow, which is faint on white, and black, which is the theory's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("", "o", "s", "D", "v", "P", "*")  # of the curves, where the colours begin again
THEORY = {"color": "black", "linestyle": "--", "linewidth": 0.8, "label": "theory"}
KEY = "0.3"  # in the legend: of any colour
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # of a legend
SHOWN_DECADES = 40.0  # `curves` shows these on either side of 1
NAMED_SITES = 40  # as many are named below the axis
SHOWN_LAYERS = 6  # in `histograms`
SAME_SCALE_DECADES = 4.0  # of second moments, a factor of 100 in rms: `histograms` in one unit


def variance(
    record: xr.Dataset,
    *,
    ax: Axes | None = None,
    direction: Direction | None = None,
    theory: xr.Dataset | None = None,
) -> Axes:
    """Draw how the signal and its gradient grow along the layers of one record.

    A curve is the median over seeds, its band their range; the variance over inputs is dashed.
    Several pairings have a curve each, in the colour of their initialiser. Of a custom model the
    sites along which its depth is counted are drawn (`site_verdict.spine`).

    Args:
        record: what `measure` or `sweep` returned.
        ax: where to draw; a new figure by default.
        direction: `"forward"` (signal) or `"backward"` (gradient); both by default.
        theory: a second record, drawn over the first in black, with twice its standard deviation
            over draws of the weights if it has one; of a custom model, `Diagnosis.theory`.

    Returns:
        The axis, in decades.

    Raises:
        UnusableInput: the record has no second moment of that direction.
    """
    wanted: tuple[Direction, ...] = (direction,) if direction else DIRECTIONS
    shown: list[Direction] = [d for d in wanted if f"log10_{d}_q" in record]
    if not shown:
        raise _missing(" or ".join(f"log10_{d}_q" for d in wanted))
    if "weight" in record.dims:
        record = spine(record).drop_dims("weight")
        theory = None if theory is None else theory.sel(site=record["site"])
    place = BESIDE if ax is None else {}
    ax = _figure(8.4, 3.8).add_subplot() if ax is None else ax
    for d in shown:
        _panel(ax, record, d, apart=len(shown) > 1)
    for d in shown:
        if theory is not None and f"log10_{d}_q" in theory:
            known = f"log10_{d}_q_sd" in theory
            style = THEORY | ({"label": "theory, ±2 sd of a seed"} if known else {})
            for _, one in _pairings(theory):
                _curve(ax, one[f"log10_{d}_q"], d, **style)
                _band(ax, one, f"log10_{d}_q")
    subject = f" of {_subject(record, shown[0])}" if len(shown) == 1 else ""
    ax.set(xlabel=_along(record), ylabel=f"second moment{subject}\n(decades)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "name" in record.coords and record.sizes["site"] <= NAMED_SITES:
        ax.set_xticks(_positions(record), record["name"].values, rotation=90, fontsize="x-small")
    ax.legend(**_legend([ax], record), **place)
    return _at_least_a_decade(ax)


def curves(record: xr.Dataset) -> Figure:
    """Draw the curves of a sweep: a column for each activation, forward above backward.

    Args:
        record: what `sweep` returned.

    Returns:
        The figure; y is in decades, the same in a row, and cut off at ±40.
    """
    names = [str(a) for a in np.atleast_1d(record.get("activation", ""))]
    fig = _figure(2.3 * len(names) + 2.6, 5)
    axes = fig.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    ends = _positions(record)[[0, -1]]
    for row, direction in zip(axes, DIRECTIONS, strict=True):
        for k, ax in enumerate(row):
            ax.set_autoscale_on(False)  # half of the time went into scaling after each curve
            ax.set_xlim(ends + np.array([-0.05, 0.05]) * np.ptp(ends))
            one = record.isel(activation=[k]) if "activation" in record.dims else record
            if f"log10_{direction}_q" in record:
                _panel(ax, one, direction)
        row[0].set_ylabel(f"second moment (decades)\nof {_subject(record, direction)}")
        _cut_off(row, direction)
    for name, top, bottom in zip(names, *axes, strict=True):
        top.set_title(name, fontsize="medium")
        bottom.set_xlabel(_along(record))
    fig.legend(**_legend(axes.flat, record), loc="outside right upper")
    return fig


def heatmap(
    findings: Iterable[Any], direction: Direction = "backward", *, ax: Axes | None = None
) -> Axes:
    """Map the verdicts and growth rates of a sweep: initialisers down, activations across.

    Args:
        findings: what `judge` returned: `init`, `activation`, `direction`, `verdict`, `rate`.
        direction: which of them to show.
        ax: where to draw; a new figure by default.

    Returns:
        The axis; colours end at ±1 decade per layer, grey is no finite rate.

    Raises:
        UnusableInput: there are no findings of that direction.
    """
    cells = {(str(f.init), str(f.activation)): f for f in findings if f.direction == direction}
    if not cells:
        raise UnusableInput(f"findings of direction {direction!r} are required, got none")
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    size = 1.05 * len(columns) + 2.6, 0.5 * len(rows) + 1.5
    ax = _figure(*size).add_subplot() if ax is None else ax
    image = _cells(ax, [[cells.get((row, column)) for column in columns] for row in rows])
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_title(f"growth of the {'signal' if direction == 'forward' else 'gradient'}")
    plot_rates.bar(ax, image, "decades per layer")
    return ax


def histograms(record: xr.Dataset, *, axes: Sequence[Axes] | None = None) -> Figure:
    """Draw the distributions of activations and gradients at up to six layers of one network.

    Values beyond the outermost bins, which end at 5.25 times the rms, are counted in them.

    Args:
        record: of one pairing, measured with `measures=("q", "histogram")`.
        axes: two, for activations and gradients; those of a new figure by default.

    Returns:
        The figure; x is the value, or its multiple of the layer's rms where these differ by more
        than a factor of 100 between layers.

    Raises:
        UnusableInput: the histograms are missing, or there are several pairings.

    Reference:
        Glorot and Bengio (2010), Figures 6 and 7.
    """
    places = {"activation": "activation x", "backward": "gradient at h"}
    for place in places:
        if f"{place}_histogram" not in record or f"log10_{place}_q" not in record:
            raise _missing(f"{place}_histogram with log10_{place}_q", '("q", "histogram")')
    pairings = [one for _, one in _pairings(record)]
    if len(pairings) > 1:
        raise UnusableInput(
            f"a record of one pairing is required, got {len(pairings)}: "
            "choose one with record.sel(init=…, activation=…)"
        )
    pair: list[Any] = [*(_figure(10, 3.6).subplots(1, 2) if axes is None else axes)]
    for ax, (place, name) in zip(pair, places.items(), strict=True):
        _densities(ax, pairings[0], place, name)
    return pair[0].figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _at_least_a_decade(ax: Axes) -> Axes:
    """Widen y to a decade, so that a flat curve looks flat."""
    middle, half = np.mean(ax.get_ylim()), np.ptp(ax.get_ylim()) / 2
    ax.set_ylim(middle - max(half, 0.5), middle + max(half, 0.5))
    return ax


def _missing(variables: str, measures: str = '("q",)') -> UnusableInput:
    return UnusableInput(f"the record has no {variables}: measure with measures={measures}")


def _along(record: xr.Dataset | xr.DataArray) -> str:
    return "layer" if "layer" in record.dims else "site"


def _positions(record: xr.Dataset | xr.DataArray) -> np.ndarray:
    """Return the layers' numbers; sites, which have names, are counted."""
    along = _along(record)
    return record[along].values if along == "layer" else np.arange(record.sizes[along])


def _subject(record: xr.Dataset, direction: Direction) -> str:
    signal = "h" if _along(record) == "layer" else "the output"
    return signal if direction == "forward" else f"the gradient at {signal}"


def _pairings(record: xr.Dataset) -> Iterator[tuple[dict[str, int], xr.Dataset]]:
    """Yield each pairing's place among the dims with a choice, and its record."""
    own = {_along(record), "seed", "bin"}
    dims = sorted({str(d) for d in record.dims} - own, key=_init_first)
    for place in itertools.product(*(range(record.sizes[d]) for d in dims)):
        at = dict(zip(dims, place, strict=True))
        yield {d: k for d, k in at.items() if record.sizes[d] > 1}, record.isel(at)


def _init_first(dim: str) -> tuple[bool, bool, str]:
    return dim != "init", dim != "activation", dim


def _style(record: xr.Dataset, place: dict[str, int]) -> dict[str, Any]:
    """Return colour (by the first dim), marker (by the others) and label of a pairing."""
    (first, k), *others = place.items()
    rounds = -(-record.sizes[first] // len(COLOURS))
    rest = functools.reduce(lambda n, at: n * record.sizes[at[0]] + at[1], others, 0)
    marker = MARKERS[(rest * rounds + k // len(COLOURS)) % len(MARKERS)]
    values = {d: record[d].values[i] for d, i in place.items()}
    words = (str(v) if isinstance(v, str) else f"{d} {v:g}" for d, v in values.items())
    width = 3.2 - 2 * k / record.sizes[first]  # so that a curve beneath another is seen
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": marker,
        "linewidth": width,
        "markersize": 4,
        "markevery": 0.12,
        "label": ", ".join(words),
    }


def _panel(ax: Axes, record: xr.Dataset, direction: Direction, *, apart: bool = False) -> None:
    """Draw the curves of a direction; `apart` tells them from the other's on the same axis."""
    subject, forward = _subject(record, direction), direction == "forward"
    dashed = {"linestyle": "--", "linewidth": 1, "marker": "", "label": ""}
    over_inputs = forward and "log10_forward_variance" in record
    for place, one in _pairings(record):
        if place:
            style = _style(record, place) | ({"linestyle": ":"} if apart and not forward else {})
        else:
            style = {"color": COLOURS[not forward], "label": f"second moment of {subject}"}
        if over_inputs:
            _curve(ax, one["log10_forward_variance"], direction, **style | dashed)
        _curve(ax, one[f"log10_{direction}_q"], direction, **style)
    if apart and place:
        _key(ax, f"second moment of {subject}", linestyle="-" if forward else ":")
    if over_inputs:
        _key(ax, f"variance over inputs of {subject}", linestyle="--", linewidth=1)


def _key(ax: Axes, label: str, **style: Any) -> None:
    """Explain a line style or a marker in the legend, whatever its colour."""
    ax.plot([], [], color=KEY, label=label, **style)


def _curve(ax: Axes, values: xr.DataArray, direction: Direction, **style: Any) -> None:
    """Draw the median and the range over seeds, and mark where a curve stops being finite."""
    values = values.transpose(..., _along(values))
    x, y = _positions(values), values.values.reshape(-1, values.shape[-1])
    toward = slice(None) if direction == "forward" else slice(None, None, -1)
    low, middle, high = _spread(_overflowed(y[:, toward])[:, toward])
    ax.plot(x, np.where(np.isfinite(middle), middle, np.nan), **style)
    if len(y) > 1:
        whole = np.isfinite(low) & np.isfinite(high)
        ax.fill_between(x, low, high, where=whole, color=style["color"], alpha=0.2, linewidth=0)
    x, path = x[toward], middle[toward]
    for last in np.flatnonzero(np.isfinite(path[:-1]) & np.isinf(path[1:])):
        zero = path[last + 1] < 0
        mark = {"marker": "x" if zero else "^", "linestyle": "", "markersize": 6}
        ax.plot(x[last], path[last], color=style["color"], zorder=3, clip_on=False, **mark)
        _key(ax, "exact zero beyond" if zero else "overflow beyond", **mark)


def _band(ax: Axes, theory: xr.Dataset, name: str) -> None:
    """Shade two standard deviations over draws on either side, where theory has any."""
    if f"{name}_sd" in theory:
        middle, sd = theory[name].values.ravel(), theory[f"{name}_sd"].values.ravel()
        reach = np.where(np.isfinite(sd), 2 * sd, np.nan)
        band = {"color": "black", "alpha": 0.12, "linewidth": 0}
        ax.fill_between(_positions(theory), middle - reach, middle + reach, **band)


def _overflowed(path: np.ndarray) -> np.ndarray:
    """Return `path` (seed, layer), in the order of travel, with NaN to its very end as +inf."""
    absent = np.isnan(path)
    to_the_end = np.logical_and.accumulate(absent[:, ::-1], axis=1)[:, ::-1]
    return np.where(to_the_end & ~absent.all(axis=1, keepdims=True), np.inf, path)


def _spread(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least, the median and the largest over seeds, which may be infinite."""
    ranked = np.sort(y, axis=0)
    below, above = ranked[(len(y) - 1) // 2], ranked[len(y) // 2]
    with np.errstate(invalid="ignore"):
        return ranked[0], np.where(below == above, below, (below + above) / 2), ranked[-1]


def _cut_off(row: Iterable[Axes], direction: Direction) -> None:
    """Limit y to what is drawn and readable; say where a curve goes on beyond."""
    ends = np.array([ax.dataLim.intervaly for ax in row if np.isfinite(ax.dataLim.intervaly).all()])
    low, high = (ends.min(), ends.max()) if ends.size else (0.0, 0.0)
    shown = np.clip([low, high], -SHOWN_DECADES, SHOWN_DECADES)
    pad = max(0.5, 0.06 * (shown[1] - shown[0]))
    x, side = (0.03, "left") if direction == "forward" else (0.97, "right")
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    for ax in row:
        ax.set_ylim(shown[0] - pad, shown[1] + pad)
        for mark in (line for line in ax.lines if line.get_linestyle() == "None"):
            mark.set_ydata(np.clip(mark.get_ydata(), *shown))
        beyond = ax.dataLim.intervaly
        for y, way, past in ((0.03, "↓", beyond[0] < shown[0]), (0.97, "↑", beyond[1] > shown[1])):
            if past and np.isfinite(beyond).all():
                text = f"{way} beyond {'−' if way == '↓' else '+'}{SHOWN_DECADES:g}"
                place: dict[str, Any] = {"ha": side, "va": "bottom" if way == "↓" else "top"}
                ax.text(
                    x, y, text, transform=ax.transAxes, fontsize="x-small", bbox=behind, **place
                )


def _legend(axes: Iterable[Axes], record: xr.Dataset) -> dict[str, Any]:
    """Return each label of the axes once, and what the curves are of the seeds."""
    found = (pair for ax in axes for pair in zip(*ax.get_legend_handles_labels(), strict=True))
    by_label: dict[str, Any] = {}
    for handle, label in found:
        by_label.setdefault(label, handle)
    seeds = record.sizes.get("seed", 1)
    title = f"median and range of {seeds} seeds" if seeds > 1 else None
    labels = sorted(by_label, key=lambda label: by_label[label].get_color() == KEY)  # keys last
    handles = [by_label[label] for label in labels]
    words = {"title": title, "fontsize": "small", "title_fontsize": "small", "frameon": False}
    return {"handles": handles, "labels": labels, **words}


def _cells(ax: Axes, findings: list[list[Any]]) -> AxesImage:
    """Draw the rate of each finding as a colour, and its verdict in words."""
    rates = np.array([[np.nan if f is None else float(f.rate) for f in row] for row in findings])
    rates[~np.isfinite(rates)] = np.nan
    scale = plot_rates.colours()
    image = ax.imshow(rates, aspect="auto", **scale)
    for (i, j), rate in np.ndenumerate(rates):
        finding = findings[i][j]
        number = "" if np.isnan(rate) else f"\n{rate:+.2g}".replace("-", "−")
        words = "" if finding is None else finding.verdict.value + number
        shade = scale["cmap"](scale["norm"](rate))[:3]
        dark = np.dot(shade, (0.299, 0.587, 0.114)) < 0.47  # ITU-R BT.601 luma
        colour = "white" if dark else "black"
        ax.text(j, i, words, color=colour, ha="center", va="center", fontsize="small")
    return image


def _densities(ax: Axes, record: xr.Dataset, place: str, name: str) -> None:
    """Draw the densities of up to six layers, from the first measured to the last."""
    shares, scale = record[f"{place}_histogram"], record[f"log10_{place}_q"]
    if "seed" in shares.dims:
        shares, scale = shares.mean("seed"), scale.median("seed")
    layers = np.flatnonzero(~np.isnan(scale.values))
    some = np.linspace(0, len(layers) - 1, min(SHOWN_LAYERS, len(layers))).round().astype(int)
    layers = layers[some]
    decades = scale.values[layers]
    finite = decades[np.isfinite(decades)]
    extreme = finite.size > 0 and np.abs(finite).max() > 300  # the density would not be a float
    relative = extreme or (finite.size > 0 and np.ptp(finite) > SAME_SCALE_DECADES)
    centre, numbers = record["bin"].values, _positions(record)
    for k, (layer, q) in enumerate(zip(layers, decades, strict=True)):
        unit = 1.0 if relative or np.isinf(q) else 10 ** (q / 2)
        density = shares.values[layer] / ((centre[1] - centre[0]) * unit)
        visible = np.where((density > 0) & np.isfinite(q), density, np.nan)
        end = {-np.inf: ": all zero", np.inf: ": overflow"}.get(q, "")
        colour = colormaps["viridis"](0.92 * k / max(len(layers) - 1, 1))
        ax.plot(centre * unit, visible, color=colour, label=f"{numbers[layer]}{end}")
    unit = ", in units of the layer's rms" if relative else ""
    ax.set(xlabel=name + unit, ylabel="density", yscale="log")
    ax.minorticks_off()
    ax.locator_params(axis="x", nbins=6)
    ax.legend(
        handles=ax.get_lines(), title=_along(record), fontsize="small", frameon=False, **BESIDE
    )
