"""Plain numbers for a logger: Weights & Biases, TensorBoard."""

import xarray as xr

from propagate.report.cells import LARGEST, strings


def scalars(record: xr.Dataset, prefix: str = "") -> dict[str, float]:
    """Return `prefix/name/forward_rms` and the like, for TensorBoard or W&B, where finite.

    Example:
        >>> q = xr.Dataset({"log10_forward_q": ("site", [0.0, -2.0])})
        >>> scalars(q.assign_coords(name=("site", ["w.0", "w.1"])), "train")
        {'train/w.0/forward_rms': 1.0, 'train/w.1/forward_rms': 0.1}
    """
    found: dict[str, float] = {}
    start = f"{prefix}/" if prefix else ""
    for dim, name, ending, power in (
        ("name", "log10_forward_q", "forward_rms", 0.5),
        ("name", "log10_backward_q", "backward_rms", 0.5),
        ("weight", "log10_gradient_to_weight", "gradient_to_weight", 1.0),
    ):
        values = record[name].values.tolist() if name in record else []
        for owner, decades in zip(strings(record, dim) if values else (), values, strict=True):
            if decades * power < LARGEST:  # not so for NaN
                found[f"{start}{owner}/{ending}"] = 10.0 ** (decades * power)
    return found
