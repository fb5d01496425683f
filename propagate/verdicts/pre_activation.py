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
        bias: the largest of the parameters that were added; "" if none was.
        mean: over inputs, positions and units.
        sd: likewise.
    """

    layer: str
    mean: float
    sd: float
    bias: str = ""

    @property
    def rms(self) -> float:
        """Return the root of the second moment."""
        return math.hypot(self.mean, self.sd)


def into(record: xr.Dataset, k: int) -> Into | None:
    """Return what comes into the activation at site k; None if no layer or sum makes it.

    Numbers that multiply the value of a site, or are added to it, are taken into account.
    """
    measured = _measured(record, k)
    if measured is not None:
        return measured
    at = int(record["operand"].values[k]) if "operand" in record.coords else -1
    bent = at >= 0 and record["kind"].values[at] in POINTWISE
    if at < 0 or bent or "forward_mean" not in record:
        return None
    scale, shift = (float(record[f"operand_{n}"].values[k]) for n in ("scale", "shift"))
    return _into(record, k, ("log10_forward_q", "forward_mean"), at, scale, shift)


def _measured(record: xr.Dataset, k: int) -> Into | None:
    """Return what was measured of the operand itself: of a sum that is no site."""
    names = "log10_incoming_q", "incoming_mean"
    return _into(record, k, names, k) if set(names) <= set(record.data_vars) else None


def _into(
    record: xr.Dataset,
    k: int,
    names: tuple[str, str],
    at: int,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Into | None:
    """Return what comes in, from a second moment and a mean over its root at another site."""
    q, mean = (float(record[name].values[at]) for name in names)
    if not (math.isfinite(q) and math.isfinite(mean)):
        return None
    rms, layer = 10 ** (q / 2), _layer(record, k)
    sd = rms * math.sqrt(max(1 - mean**2, 0.0))
    return Into(layer, scale * rms * mean + shift, abs(scale) * sd, _bias(record, k))


def _layer(record: xr.Dataset, k: int) -> str:
    """Return the parameter of the layer that makes it: of a sum of several, of the largest."""
    made = [int(n) for n in str(record["makers"].values[k]).split()] if "makers" in record else []
    largest = max(made, key=lambda n: float(record["log10_forward_q"].values[n]), default=k)
    return str(record["parameter"].values[largest] or record["after"].values[largest])


def _bias(record: xr.Dataset, k: int) -> str:
    """Return the largest of the parameters that were added to what comes in."""
    if "bias" not in record.coords or "log10_weight_q" not in record:
        return ""
    size = dict(zip(record["weight"].values, record["log10_weight_q"].values, strict=True))
    added = [name for name in str(record["bias"].values[k]).split(", ") if name in size]
    return max(added, key=lambda name: size[name], default="")
