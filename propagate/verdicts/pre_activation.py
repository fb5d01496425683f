"""What comes into an activation of a custom model: from the site in front of it."""

import math
from typing import NamedTuple

import xarray as xr

from propagate.record.spine import POINTWISE

SLOPES_UP_TO = {"tanh": 2.178, "logistic": 4.356, "sigmoid": 4.356, "erf": 1.731}
"""Magnitudes from which activations have almost no slope: a share `SATURATED_SLOPE` of the largest.
"""


def flat_share(label: str, sd: float) -> float:
    """Return the share of Gaussian inputs of mean 0 at which an activation has almost no slope."""
    return math.erfc(SLOPES_UP_TO[label] / sd / math.sqrt(2)) if sd > 0 else 0.0


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
    """Return what comes into the activation at site k; None if no layer or sum makes it.

    Numbers that multiply the value of a site, or are added to it, are taken into account.
    """
    at = int(record["operand"].values[k]) if "operand" in record.coords else -1
    bent = at >= 0 and record["kind"].values[at] in POINTWISE
    if at < 0 or bent or "forward_mean" not in record:
        return None
    q, mean = (float(record[name].values[at]) for name in ("log10_forward_q", "forward_mean"))
    scale, shift = (float(record[f"operand_{n}"].values[k]) for n in ("scale", "shift"))
    if not (math.isfinite(q) and math.isfinite(mean)):
        return None
    rms, layer = 10 ** (q / 2), str(record["parameter"].values[k] or record["after"].values[k])
    sd = rms * math.sqrt(max(1 - mean**2, 0.0))
    return Into(layer, scale * rms * mean + shift, abs(scale) * sd)
