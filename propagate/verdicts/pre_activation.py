"""What comes into an activation of a custom model: from the site in front of it."""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr


class Into(NamedTuple):
    """What comes into an activation.

    Attributes:
        layer: the parameter that makes it, or the last one before; "" if none does.
        mean: over inputs, positions and units.
        sd: likewise.
    """

    layer: str
    mean: float
    sd: float

    @property
    def rms(self) -> float:
        """Return the root of the second moment."""
        return math.hypot(self.mean, self.sd)


def into(record: xr.Dataset, k: int) -> Into | None:
    """Return what comes into the activation at site k; None if no site says.

    It is the last site before it at the same depth with as many units and rows.
    """
    same = record["taken"].values[:k].copy()
    for name in ("depth", "units", "rows"):
        same &= record[name].values[:k] == record[name].values[k]
    before = np.flatnonzero(same)
    if not len(before) or "forward_mean" not in record:
        return None
    at = int(before[-1])
    q, mean = (float(record[name].values[at]) for name in ("log10_forward_q", "forward_mean"))
    if not (math.isfinite(q) and math.isfinite(mean)):
        return None
    rms, layer = 10 ** (q / 2), str(record["parameter"].values[k] or record["after"].values[k])
    return Into(layer, rms * mean, rms * math.sqrt(max(1 - mean**2, 0.0)))
