"""`explained`: a record of `diagnose` with why a gradient is zero, not finite or flushed.

A model whose gradients are finite and not zero, in dtypes of float32's exponents, is not looked at
again. Of any other, variables over `weight`, `origin` and `site` say what was found:

| variable | dims | of |
|---|---|---|
| `gradient_cause`, `gradient_cut`, `gradient_cut_by` | weight | a gradient that is exactly zero |
| `origin_…` | origin | one that is not finite |
| `backward_flushed_fraction`, `forward_flushed_fraction` | site | a narrow dtype |
| `gradient_flushed_fraction` | weight | likewise |
| `log2_loss_scale_least`, `log2_loss_scale_most` | – | likewise |
"""

import jax
import numpy as np
import xarray as xr

from propagate.models.causes import cuts, gates, non_finite, precision
from propagate.models.causes.look import Look
from propagate.models.causes.refused import no_gradient
from propagate.verdicts.site_rules.causes import STOPPED


def explained(look: Look) -> xr.Dataset:
    """Return the record with the causes of what is wrong with gradients.

    Raises:
        PropagateError: no gradient flows from the output at all.
    """
    record = look.record
    if "log10_gradient_q" not in record and "log10_backward_q" not in record:
        return record
    zero, broken = _zero_and_broken(record)
    narrow = precision.narrow(look.tapped.jaxpr)
    if broken:
        record = _with_origins(look, record)
    if len(zero):
        record = _with_cuts(look, record, zero)
    flushed = "gradient_cause" in record and (record["gradient_cause"] == "underflow").any()
    if narrow or flushed:
        dtypes = narrow or [np.dtype(np.float32)]
        record = _with_flushed(look, record, dtypes)
    return record


def _zero_and_broken(record: xr.Dataset) -> tuple[np.ndarray, bool]:
    """Return the rows of parameters without a gradient, and whether one is not finite where the
    signal is."""
    q = record["log10_forward_q"].values
    finite = np.isfinite(q) | np.isneginf(q) | ~record["taken"].values
    gradients = [record[n].values for n in ("log10_gradient_q",) if n in record]
    zero = np.flatnonzero(np.isneginf(gradients[0])) if gradients else np.array([], int)
    sites = [record[n].values[record["taken"].values] for n in ("log10_backward_q",) if n in record]
    of_sites = any((np.isnan(g) | (g == np.inf)).any() for g in sites)
    of_parameters = any((np.isnan(g) | (g == np.inf)).any() for g in gradients)
    return zero, bool(finite.all() and (of_sites or of_parameters))
