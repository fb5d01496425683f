"""`explained`: a record of `diagnose` with why a gradient is zero, not finite or flushed.

A model whose gradients are finite and not zero, in dtypes of float32's exponents, is not looked at
again. Of any other, variables over `weight`, `origin` and `site` say what was found:

| variable | dims | of |
|---|---|---|
| `gradient_cause`, `gradient_cut`, `gradient_cut_by` | weight | a gradient that is exactly zero |
| `gradient_cut_mean`, `…_sd`, `…_shift`, `…_scale`, `…_site` | weight | what comes in there |
| `origin_…` | origin | one that is not finite |
| `backward_flushed_fraction`, `backward_subnormal_fraction` | site | a narrow dtype |
| `forward_flushed_fraction`, coordinate `flushed_by` | site | likewise |
| `gradient_flushed_fraction` | weight | likewise |
| attributes `overflow_…` | – | a signal that is not finite |
| attributes `silence_…` | – | a layer behind which no input is told from another |
| `log2_loss_scale_least`, `log2_loss_scale_most`, `log10_smallest` | – | likewise |
"""

from typing import Any

import numpy as np
import xarray as xr

from propagate.models.causes import cuts, flat, gates, non_finite, overflow, precision, zeros
from propagate.models.causes.look import Look
from propagate.models.causes.refused import no_gradient
from propagate.record.dataset import not_finite
from propagate.verdicts.site_rules.lost import silent_layer

OF_INPUTS = ("dead", "saturated", "exponential")  # causes that other inputs would not have


def explained(look: Look) -> xr.Dataset:
    """Return the record with the causes of what is wrong with gradients.

    Raises:
        PropagateError: no gradient flows from the output at all.
    """
    record = look.record
    if "log10_gradient_q" not in record and "log10_backward_q" not in record:
        return record
    _check_flows(record)
    record = _with_silence(look, _with_masked(look, record))
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


def _check_flows(record: xr.Dataset) -> None:
    """Raise if no site of a model without parameters has a gradient."""
    if record.sizes.get("weight") or "log10_backward_q" not in record:
        return
    if np.isneginf(record["log10_backward_q"].values[record["taken"].values]).all():
        raise no_gradient("every gradient is zero, at every site")


def _zero_and_broken(record: xr.Dataset) -> tuple[np.ndarray, bool]:
    """Return the rows of parameters without a gradient, and whether one is not finite where the
    signal is."""
    none = np.array([])
    weights = record["log10_gradient_q"].values if "log10_gradient_q" in record else none
    backward = "log10_backward_q" in record
    sites = record["log10_backward_q"].values[record["taken"].values] if backward else none
    gradients = np.concatenate([weights, sites])
    broken = (np.isnan(gradients) | (gradients == np.inf)).any()
    return np.flatnonzero(np.isneginf(weights)), bool(broken and not not_finite(record).any())


def _with_masked(look: Look, record: xr.Dataset) -> xr.Dataset:
    """Return the record with a coordinate `masked`, where some signal is not finite, and why."""
    bad = np.flatnonzero(not_finite(record))
    if not len(bad):
        return record
    masked = np.zeros(record.sizes["site"], bool)
    if look.has_finite_results:
        masked[bad] = non_finite.left_out(look, bad.tolist())
    record = record.assign_coords(masked=("site", masked))
    left = bad[~masked[bad]]
    first = overflow.start(look, int(left[0])) if len(left) else None
    named = {} if first is None else first._asdict()
    return record.assign_attrs({f"overflow_{name}": value for name, value in named.items()})


def _with_silence(look: Look, record: xr.Dataset) -> xr.Dataset:
    """Return the record with what makes the signal zero, where it is lost."""
    row = None if not_finite(record).any() else silent_layer(record)
    found = None if row is None else zeros.silence(look, row)
    named = {} if found is None else found._asdict()
    return record.assign_attrs({f"silence_{name}": value for name, value in named.items()})


def _with_origins(look: Look, record: xr.Dataset) -> xr.Dataset:
    found = non_finite.origins(look)
    if not found:
        return record
    columns = zip(*found, strict=True)
    named = dict(zip(non_finite.Origin._fields, map(np.array, columns), strict=True))
    return record.assign({f"origin_{name}": ("origin", v) for name, v in named.items()})


def _with_cuts(look: Look, record: xr.Dataset, zero: np.ndarray) -> xr.Dataset:
    meant = _intended(look, record)
    rows = [int(k) for k in zero if k not in meant]
    found = dict.fromkeys(map(int, zero), cuts.Cut("gate")) | (
        cuts.cuts(look, rows) if rows else {}
    )
    blocked = [cut for k, cut in found.items() if cut.cause in ("stopped", "unused")]
    silent = np.isneginf(record["log10_backward_q"].values[record["taken"].values])
    if len(blocked) == record.sizes["weight"] and silent.all():
        stops = [cut.operation for cut in blocked if cut.operation]
        raise no_gradient(next(iter(stops), "the result depends on none of them"))
    columns = {"gradient_cause": "cause", "gradient_cut": "operation", "gradient_cut_by": "by"}
    values = {
        name: [str(getattr(found[k], field)) if k in found else "" for k in _rows(record)]
        for name, field in columns.items()
    }
    words = {k: ("weight", np.array(v, dtype=np.str_)) for k, v in values.items()}
    return record.assign(words | _with_inflow(look, record, found))


def _with_inflow(look: Look, record: xr.Dataset, found: dict[int, cuts.Cut]) -> dict[str, Any]:
    """Return what comes into the operations that are flat, and what would move it to a slope."""
    at = {
        (c.step, c.value, c.cause == "exponential") for c in found.values() if c.cause in OF_INPUTS
    }
    told = {}
    for number, value, underflows in at:
        step = look.tape.steps[number]
        if underflows and step.eqn.primitive.name not in zeros.EXPONENTIALS:
            continue  # what is zero there was made elsewhere
        own = flat.moved(look.tape, step, value)
        told[number, value] = own._replace(site=float(look.site(step)))
    if not told:
        return {}
    each = [
        told.get((found[k].step, found[k].value), flat.Inflow()) if k in found else flat.Inflow()
        for k in _rows(record)
    ]
    columns = zip(flat.Inflow._fields, zip(*each, strict=True), strict=True)
    return {f"gradient_cut_{name}": ("weight", np.array(v)) for name, v in columns}


def _rows(record: xr.Dataset) -> range:
    return range(record.sizes["weight"])


def _intended(look: Look, record: xr.Dataset) -> set[int]:
    """Return the rows of parameters that zero factors keep from a gradient at first only."""
    table = look.names.parameters
    numbers = np.array([number for number, _ in table.rows()])
    zero = np.isneginf(record["log10_weight_q"].values)
    learns = zero & np.isfinite(record["log10_gradient_q"].values)

    def whole(rows: np.ndarray) -> set[int]:
        return {int(k) for k in np.unique(numbers) if rows[numbers == k].all()}

    meant = gates.intended(look.tapped.jaxpr, whole(zero), whole(learns), len(table.paths))
    return {row for row, number in enumerate(numbers) if number in meant}


def _with_flushed(look: Look, record: xr.Dataset, dtypes: list[np.dtype]) -> xr.Dataset:
    lost = precision.flushed(look, dtypes)
    shares, by = precision.signals(look, dtypes)
    made = record.assign(
        backward_flushed_fraction=("site", lost.sites),
        backward_subnormal_fraction=("site", lost.subnormal),
        forward_flushed_fraction=("site", shares),
        log2_loss_scale_least=lost.least,
        log2_loss_scale_most=lost.most,
        log10_smallest=precision.log10_smallest(dtypes),
    )
    if record.sizes.get("weight"):
        made = made.assign(gradient_flushed_fraction=("weight", lost.weights))
    flushed_by = np.array(by, dtype=np.str_)
    made = made.assign_coords(flushed_by=("site", flushed_by))
    return made.assign_attrs(narrow=", ".join(str(d) for d in dtypes))
