"""Growth per layer of a custom model, kept in a file to compare later versions with.

Growth is taken along `record.spine`, in decades of the second moment per layer, in the
direction of travel: the gradient's from the later site to the earlier one.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from propagate.checks import check_tolerance
from propagate.record.dataset import measured_directions, second_moment
from propagate.record.provenance import provenance
from propagate.record.spine import spine
from propagate.record.storage import write_whole
from propagate.types import DIRECTIONS, Direction, UnusableInput
from propagate.verdicts.findings import SUBJECTS
from propagate.verdicts.thresholds import GROWTH_CHANGE

FORMAT = {"format": "propagate baseline", "version": 1}
Rates = dict[str, dict[str, float | None]]


def growth_rates(record: xr.Dataset) -> Rates:
    r"""Return how signal and gradient grow between neighbouring layers of a model.

    With layers $k$ at depths $d_k$, those of layer $k$ are
    $(\log_{10} q_k - \log_{10} q_{k-1}) / (d_k - d_{k-1})$ forward, and the same of the gradient's
    $q$ with its sign reversed backward.

    Args:
        record: of `diagnose`.

    Returns:
        {site: {"forward": …, "backward": …}} in decades per layer, for each layer but the first;
        None for what is not finite or was not measured.

    Example:
        >>> decay = ("site", [0.0, -0.5, -1.0])
        >>> named = {"name": ("site", list("abc")), "kind": ("site", ["matmul"] * 3)}
        >>> named |= {"parameter": ("site", list("uvw")), "depth": ("site", [1, 2, 3])}
        >>> record = xr.Dataset({"log10_forward_q": decay, "log10_backward_q": decay}, named)
        >>> growth_rates(record)["c"]
        {'forward': -0.5, 'backward': 0.5}
    """
    chain = spine(record)
    steps = np.maximum(np.diff(chain["depth"].values), 1)
    columns = {d: _gains(chain, d) / steps for d in DIRECTIONS}
    return {
        str(name): {d: _finite(column[k]) for d, column in columns.items()}
        for k, name in enumerate(chain["name"].values[1:])
    }


def overall(record: xr.Dataset, direction: Direction) -> float | None:
    """Return the growth from one end of the model to the other, in decades per layer.

    None if it is not finite, was not measured, or there are fewer than two layers.
    """
    chain = spine(record)
    if chain.sizes["site"] < 2:
        return None
    ends = chain.isel(site=[0, -1])
    return _finite(_gains(ends, direction)[0] / max(int(np.diff(ends["depth"].values)[0]), 1))


def write(record: xr.Dataset, path: str | os.PathLike) -> Path:
    """Write the growth rates of a record as JSON; the file appears whole or not at all.

    Returns:
        The path.

    Raises:
        PropagateError: the folder cannot be written to.
    """
    path, made = Path(path), provenance()
    versions = {"propagate": made["propagate"], "jax": jax.__version__}
    held = FORMAT | versions | {"slopes": growth_rates(record)}
    text = json.dumps(held, indent=2, allow_nan=False)
    write_whole(path, lambda part: part.write_text(text + "\n", encoding="utf-8"))
    return path


def read(path: str | os.PathLike) -> Rates:
    """Return the growth rates that `write` has put into a file.

    Raises:
        UnusableInput: there is no such file, or it is not a baseline.
    """
    path = Path(path)
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnusableInput(
            f"a baseline file is required, but {path} cannot be read: {error.strerror or error}"
        ) from None
    except ValueError as error:
        raise UnusableInput(f"{path} is not a baseline of propagate: {error}") from None
    if not isinstance(held, dict) or held.get("format") != FORMAT["format"]:
        raise UnusableInput(f"{path} is JSON but not a baseline of propagate: choose another file")
    if held.get("version") != FORMAT["version"]:
        raise UnusableInput(
            f"{path} is a baseline of version {held.get('version')}, but this propagate reads "
            f"{FORMAT['version']}: delete it and write it anew"
        )
    if not _are_rates(held.get("slopes")):
        raise UnusableInput(f"{path} is a baseline but damaged: delete it and write it anew")
    return held["slopes"]


def compare(
    record: xr.Dataset, path: str | os.PathLike, tolerance: float = GROWTH_CHANGE
) -> list[str]:
    """Say what has changed since a baseline was written.

    Args:
        record: of `diagnose`.
        path: of the baseline.
        tolerance: decades per layer by which a slope may differ.

    Returns:
        One sentence for each slope that differs by more, or that was finite in only one of the
        two, and for each site in only one of them; empty if nothing has changed.

    Raises:
        UnusableInput: the file is not a baseline, or the tolerance no number from 0 on.
    """
    check_tolerance("tolerance", tolerance)
    old, new = read(path), growth_rates(record)
    return list(_changes(old, new, tolerance))


def _changes(old: Rates, new: Rates, tolerance: float) -> Iterator[str]:
    digits = 2 if tolerance >= 0.1 else min(2 - math.floor(math.log10(tolerance or 1e-9)), 9)
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            yield f"{name} is gone: the baseline has a slope there, the model has none"
            continue
        if name not in old:
            yield f"{name} is new: the model has a slope there, the baseline has none"
            continue
        for direction, what in SUBJECTS.items():
            was, now = old[name][direction], new[name][direction]
            if (was is None) != (now is None) or abs((now or 0.0) - (was or 0.0)) > tolerance:
                change = f"from {_number(was, digits)} to {_number(now, digits)}"
                yield f"{what} slope at {name} went {change} decades per layer"


def _number(value: float | None, digits: int) -> str:
    return "not finite" if value is None else f"{value:+.{digits}f}"


def _gains(chain: xr.Dataset, direction: Direction) -> np.ndarray:
    """Return the decades gained between neighbours, in the direction of travel."""
    if direction not in measured_directions(chain):
        return np.full(max(chain.sizes["site"] - 1, 0), math.nan)
    with np.errstate(invalid="ignore"):  # two zeros: -inf + inf
        rise = np.diff(second_moment(chain, direction).values)
    return rise if direction == "forward" else -rise


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _are_rates(held: Any) -> bool:
    """Whether parsed JSON has the form of `Rates`."""
    numbers = (int, float, type(None))
    return isinstance(held, dict) and all(
        isinstance(own, dict) and all(isinstance(own.get(d, ""), numbers) for d in DIRECTIONS)
        for own in held.values()
    )
