"""What a sweep leaves on disk: the record, the summary and the pictures, each whole or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from propagate import plot, record, report
from propagate.types import get_directions
from propagate.verdict import Findings


def writable(folder: Path) -> None:
    """Make sure that files can be written to a folder before work is spent on them.

    Raises:
        PropagateError: they cannot.
    """
    probe = folder / ".writable"
    record.whole(probe, lambda part: part.touch())
    probe.unlink()


def write(found: xr.Dataset, findings: Findings, folder: Path) -> Iterator[Path]:
    """Write `record.nc` and `summary.json`; yield their paths."""
    yield record.save(found, folder / "record.nc")
    text = json.dumps(report.summary(findings, found), indent=2) + "\n"
    record.whole(folder / "summary.json", lambda part: part.write_text(text))
    yield folder / "summary.json"


def draw(
    found: xr.Dataset, findings: Findings, details: xr.Dataset, shown: dict[str, str], folder: Path
) -> Iterator[Path]:
    """Write the pictures as PNG and SVG; yield their paths."""
    pictures = {
        "curves": plot.curves(found),
        "heatmap": plot.heatmaps(findings),
        "histograms": plot.histograms_of(details, shown),
    }
    for name, figure in pictures.items():
        for suffix in ("png", "svg"):
            path = folder / f"{name}.{suffix}"
            _save(figure, path)
            yield path


def _save(figure: Figure, path: Path) -> None:
    record.whole(path, lambda part: figure.savefig(part, dpi=130))
