"""The distributions of one pairing: which it is, and how its values spread over powers of two."""

from typing import Literal, get_args

import numpy as np
import xarray as xr

from propagate.plot.style import depth_dim, one_with_histograms
from propagate.record.dataset import second_moment
from propagate.types import UnusableInput

Signal = Literal["forward", "activation", "backward"]
LOWEST = 20  # octaves below the smallest rms that are counted


def of_one_pairing(record: xr.Dataset, place: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of values in each bin, (layer, bin), and log10 of their rms, (layer,).

    Seeds are averaged, in units of the rms of each; of the rms it is the median.

    Raises:
        UnusableInput: no such place, the histograms are missing, or there are several pairings.
    """
    if place not in get_args(Signal):
        raise UnusableInput(f"place must be one of {', '.join(get_args(Signal))}, got {place!r}")
    one = one_with_histograms(record, place)
    shares, log_q = one[f"{place}_histogram"], second_moment(one, place)
    if "seed" in shares.dims:
        shares, log_q = shares.mean("seed"), log_q.median("seed")
    return shares.transpose(depth_dim(record), "bin").values, log_q.values / 2


def of_octaves(record: xr.Dataset, place: Signal) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the share of values with $2^k \le |x| < 2^{k+1}$ in each layer.

    Within a bin of a histogram, a quarter of the rms, values count as evenly spread, zeros apart
    if the record has `zero_fraction`. That is exact for small |x| where their density is smooth.

    Returns:
        The octaves k, (octaves,), and the shares, (layer, octaves); NaN where nothing is known.

    Raises:
        UnusableInput: as `of_one_pairing`.
    """
    shares, log_rms = of_one_pairing(record, place)
    known = np.isfinite(log_rms)
    if not known.any():
        return np.arange(1), np.full((len(shares), 1), np.nan)
    log2_rms = np.where(known, log_rms, 0.0) / np.log10(2)
    centre = record["bin"].values
    edges = np.append(centre, 2 * centre[-1] - centre[-2]) - (centre[1] - centre[0]) / 2
    ends = log2_rms[known]
    octaves = np.arange(int(ends.min()) - LOWEST, int(np.ceil(ends.max() + np.log2(edges[-1]))))
    zeros = _zeros(record, place, len(shares))
    at = np.exp2(np.append(octaves, octaves[-1] + 1)[None, :] - log2_rms[:, None])
    of_zero = int(np.searchsorted(edges, 0.0, side="right")) - 1
    found = np.full((len(shares), len(octaves)), np.nan)
    for k in np.flatnonzero(known):
        own = shares[k].copy()
        own[of_zero] = max(own[of_zero] - zeros[k], 0.0)
        below = np.append(0.0, own.cumsum())
        found[k] = np.diff(np.interp(at[k], edges, below) - np.interp(-at[k], edges, below))
    return octaves, found


def _zeros(record: xr.Dataset, place: str, layers: int) -> np.ndarray:
    name = f"{place}_zero_fraction"
    if name not in record:
        return np.zeros(layers)
    share = record[name]
    return np.nan_to_num(share.mean("seed").values if "seed" in share.dims else share.values)
