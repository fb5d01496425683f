"""Along which sites of a custom model depth is counted."""

import numpy as np
import xarray as xr

LAYERS = ("matmul", "conv")


def spine(record: xr.Dataset) -> xr.Dataset:
    """Return the sites along which depth is counted, one for each depth.

    These are the additions of a residual stream where there are at least four, and else the
    outputs of layers with parameters; the last of several at one depth.
    """
    adds = _at_each_depth(record, record["kind"].values == "add")
    layers = np.isin(record["kind"].values, (*LAYERS, "embedding"))
    chain = _at_each_depth(record, layers & (record["parameter"].values != ""))
    return record.isel(site=adds if len(adds) >= max(4, len(chain) // 4) else chain)


def _at_each_depth(record: xr.Dataset, chosen: np.ndarray) -> np.ndarray:
    last = {int(record["depth"].values[k]): int(k) for k in np.flatnonzero(chosen)}
    return np.array([last[depth] for depth in sorted(last)], int)
