"""Along which sites of a custom model depth is counted."""

import numpy as np
import xarray as xr

LAYERS = ("matmul", "conv")
POINTWISE = ("activation", "elementwise")  # kinds of sites that act on single elements
STREAM_ADDITIONS = 4  # as few make a residual stream
STREAM_SHARE = 4  # as many layers with parameters there are to one addition, at most


def spine(record: xr.Dataset) -> xr.Dataset:
    """Return the sites along which depth is counted, one for each depth.

    These are the additions of a residual stream, if there are at least `STREAM_ADDITIONS` and at
    least one to `STREAM_SHARE` layers. Else they are the outputs of layers with parameters, and of
    calls with parameters that were not opened. Of several sites at one depth the last is taken.
    """
    adds = _at_each_depth(record, record["kind"].values == "add")
    layers = np.isin(record["kind"].values, (*LAYERS, "embedding", "custom"))
    chain = _at_each_depth(record, layers & (record["parameter"].values != ""))
    streams = len(adds) >= max(STREAM_ADDITIONS, len(chain) // STREAM_SHARE)
    return record.isel(site=adds if streams else chain)


def _at_each_depth(record: xr.Dataset, chosen: np.ndarray) -> np.ndarray:
    last = {int(record["depth"].values[k]): int(k) for k in np.flatnonzero(chosen)}
    return np.array([last[depth] for depth in sorted(last)], int)
