"""What a sweep leaves on disk: record, summary and pictures, each whole or not at all."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from propagate.record import storage
from propagate.verdicts.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Picture = Callable[..., Figure]


PARTIAL = "record.partial.nc"  # of an interrupted run


def writable(folder: Path) -> None:
    """Make sure that files can be written to a folder before work is spent on them.

    Raises:
        PropagateError: they cannot.
    """
    probe = folder / ".writable"
    storage.write_whole(probe, lambda part: part.touch())
    probe.unlink()


def write(found: xr.Dataset, summary: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Write `record.nc` and `summary.json`; yield their paths.

    What an interrupted run has left beside them is of another record, and goes.
    """
    (folder / PARTIAL).unlink(missing_ok=True)
    yield storage.save(found, folder / "record.nc")
    text = json.dumps(summary, indent=2) + "\n"
    storage.write_whole(folder / "summary.json", lambda part: part.write_text(text))
    yield folder / "summary.json"


def draw(picture: "Picture", folder: Path, *shown: Any) -> list[Path]:
    """Write one picture of what is shown as PNG and SVG; return their paths."""
    return list(save_figure(picture(*shown), folder / picture.__name__))


def save_figure(figure: "Figure", stem: Path) -> Iterator[Path]:
    """Write a figure as PNG and SVG; yield their paths."""
    from propagate.plot.style import lay_out  # matplotlib is slow to load

    lay_out(figure)
    for suffix in ("png", "svg"):
        path = stem.with_suffix(f".{suffix}")
        storage.write_whole(path, lambda part: figure.savefig(part, dpi=130))
        yield path


def curves(found: xr.Dataset) -> "Figure":
    """Return the growth curves of a sweep."""
    from propagate import plot

    return plot.curves(found)


def heatmap(findings: Findings) -> "Figure":
    """Return the maps of verdicts of a sweep."""
    from propagate import plot

    return plot.heatmaps(findings)


def histograms(details: xr.Dataset, shown: dict[str, str]) -> "Figure":
    """Return histograms of an initialiser for each activation; those of a row are of one pairing.

    Args:
        details: a record with histograms.
        shown: the initialiser to draw, for each activation.
    """
    from propagate import plot
    from propagate.plot.style import new_figure

    figure = new_figure(9, 1.5 * len(shown) + 0.8)
    rows = figure.subplots(len(shown), 2, squeeze=False, sharex=True, sharey=True)
    for axes, (phi, init) in zip(rows, shown.items(), strict=True):
        own = details.sel(init=init, activation=phi)
        plot.histograms(own, axes=axes, legend=False, title=f"{init} + {phi}")
    named = {line.get_label(): line for ax in rows.flat for line in ax.lines}
    figure.legend(
        named.values(), named.keys(), title="layer", loc="outside right upper", frameon=False
    )
    return figure


def write_theory(folder: Path, theory: xr.Dataset, found: xr.Dataset | None) -> list[Path]:
    """Write `theory.nc`, `record.nc` and their picture; return the paths."""
    from propagate import plot  # matplotlib is slow to load

    wrote = [storage.save(theory, folder / "theory.nc")]
    if found is not None:
        wrote.append(storage.save(found, folder / "record.nc"))
    ax = plot.variance(theory if found is None else found, theory=theory)
    return [*wrote, save_picture(ax, folder / "overlay.png")]


def save_picture(ax: Any, path: Path) -> Path:
    """Save the figure of an axis whole, or not at all."""
    figure = ax.get_figure(root=True)
    storage.write_whole(path, lambda part: figure.savefig(part, dpi=150))
    return path
