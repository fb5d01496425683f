"""What a sweep leaves on disk: record, summary and pictures, each whole or not at all."""

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from propagate.plot import growth_curves, heat_map, histogram
from propagate.record import storage
from propagate.types import DIRECTIONS, Direction
from propagate.verdicts.findings import Findings


def writable(folder: Path) -> None:
    """Make sure that files can be written to a folder before work is spent on them.

    Raises:
        PropagateError: they cannot.
    """
    probe = folder / ".writable"
    storage.write_whole(probe, lambda part: part.touch())
    probe.unlink()


def write(found: xr.Dataset, told: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Write `record.nc` and what is told of it as `summary.json`; yield their paths."""
    yield storage.save(found, folder / "record.nc")
    text = json.dumps(told, indent=2) + "\n"
    storage.write_whole(folder / "summary.json", lambda part: part.write_text(text))
    yield folder / "summary.json"


def draw(
    found: xr.Dataset,
    findings: Findings,
    details: "Future[xr.Dataset]",
    shown: dict[str, str],
    folder: Path,
) -> Iterator[Path]:
    """Write the pictures as PNG and SVG; yield their paths.

    Args:
        found: the record of the sweep.
        findings: on that record.
        details: a record with histograms, which may still be in the making.
        shown: the initialiser whose histograms to draw, for each activation.
        folder: where to.
    """
    pictures = {
        "curves": lambda: growth_curves.curves(found),
        "heatmap": lambda: _heatmaps(findings),
        "histograms": lambda: _histograms(details.result(), shown),
    }
    for name, picture in pictures.items():
        yield from save_figure(picture(), folder / name)


def save_figure(figure: Figure, stem: Path) -> Iterator[Path]:
    """Write a figure as PNG and SVG; yield their paths."""
    _lay_out(figure)
    for suffix in ("png", "svg"):
        path = stem.with_suffix(f".{suffix}")
        storage.write_whole(path, lambda part: figure.savefig(part, dpi=130))
        yield path


def _lay_out(figure: Figure) -> None:
    """Place the axes once and for all; else every format would take 0.4 s for it again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def _heatmaps(findings: Findings) -> Figure:
    directions: list[Direction] = [d for d in DIRECTIONS if any(f.direction == d for f in findings)]
    inits, phis = (len({getattr(f, name) for f in findings}) for name in ("init", "activation"))
    figure = Figure(heat_map.size(inits, phis, len(directions)), layout="constrained")
    axes = figure.subplots(len(directions), 1, squeeze=False)[:, 0]
    for ax, direction in zip(axes, directions, strict=True):
        heat_map.heatmap(findings, direction, ax=ax)
    return figure


def _histograms(details: xr.Dataset, shown: dict[str, str]) -> Figure:
    figure = Figure((10, 2.7 * len(shown)), layout="constrained")
    rows = figure.subplots(len(shown), 2, squeeze=False)
    for axes, (phi, init) in zip(rows, shown.items(), strict=True):
        histogram.histograms(details.sel(init=init, activation=phi), axes=axes)
        for ax, what in zip(axes, ("activations", "gradients"), strict=True):
            ax.set_title(f"{init} + {phi}: {what}", fontsize="medium")
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
