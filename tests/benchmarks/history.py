"""What benchmarks measured, kept: one line of JSON for each run, with versions and device."""

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

HISTORY = Path(__file__).with_name("history.jsonl")
PACKAGES = ("jax", "jaxlib", "numpy", "propagate-jax")


class Run(NamedTuple):
    """One run of a benchmark.

    Attributes:
        benchmark: the name of its script.
        date: when it ended, in UTC.
        versions: of Python and of the packages that its numbers depend on.
        device: what it ran on.
        numbers: what it measured, by "row: column, unit".
    """

    benchmark: str
    date: str
    versions: dict[str, str]
    device: str
    numbers: dict[str, float]


def append(benchmark: str, numbers: dict[str, Any], path: Path = HISTORY) -> Run:
    """Add a run that ends now to the history."""
    measured = {name: float(f"{value:.6g}") for name, value in numbers.items()}
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run = Run(benchmark, date, _versions(), _device(), measured)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run._asdict(), ensure_ascii=False) + "\n")
    return run


def read(path: Path = HISTORY) -> list[Run]:
    """Return every run, oldest first; none if there is no history yet."""
    if not path.exists():
        return []
    return [Run(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
            found[name] = "unknown"
    return found


def _device() -> str:
    import jax  # here, so that reading a history is quick

    device = jax.devices()[0]
    cores = f", {os.cpu_count()} cores" if device.platform == "cpu" else ""
    return f"{len(jax.devices())} × {device.device_kind} ({device.platform}{cores})"
