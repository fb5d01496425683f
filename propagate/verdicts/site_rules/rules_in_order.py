"""The rules for a custom model: from a record with dim `site` to what is wrong, and where.

Growth is judged along the spine: the additions that make a residual stream, or else the layers with
parameters. Healthy models get no finding.
"""

import xarray as xr

from propagate.record.dataset import measured_directions
from propagate.record.spine import spine
from propagate.types import UnusableInput
from propagate.verdicts.findings import Findings, Verdict
from propagate.verdicts.grouped import grouped
from propagate.verdicts.site_rules.beginning import (
    alike_inputs,
    first_loss,
    wild_inputs,
    without_consequences,
)
from propagate.verdicts.site_rules.collapsed import alike, alike_tokens
from propagate.verdicts.site_rules.grown import grown
from propagate.verdicts.site_rules.lost import dead, overflowed, silent, silent_layer
from propagate.verdicts.site_rules.low_precision import flushed, flushed_signal
from propagate.verdicts.site_rules.non_finite import not_finite_behind
from propagate.verdicts.site_rules.parameters import (
    constant,
    flat_at,
    product_underflows,
    untrained,
)
from propagate.verdicts.site_rules.peers import (
    odd_branches,
    odd_finding,
    odd_steps,
    odd_weights,
)
from propagate.verdicts.site_rules.saturated import saturated, shut
from propagate.verdicts.site_rules.softmax import one_hot


def judge_sites(record: xr.Dataset) -> Findings:
    """Return what is wrong with the model that a record of `diagnose` is of.

    Raises:
        UnusableInput: the record has no second moments.
    """
    if "log10_forward_q" not in record or "kind" not in record:
        raise UnusableInput(
            "judge needs a record of diagnose with kind and log10_forward_q, got variables "
            f"{', '.join(map(str, record.data_vars)) or 'none'}"
        )
    blank = list(alike_inputs(record))
    lost = [*overflowed(record), *flushed_signal(record)]
    if not lost and silent_layer(record) is not None and "silence_cause" not in record.attrs:
        lost += [f for f in blank if f.is_fault]  # the zeros are the inputs'
    lost += [] if lost else list(dead(record)) or silent(record)
    back = [] if lost else [*not_finite_behind(record), *flushed(record)]
    wild = list(wild_inputs(record))
    raw = [f for f in wild if f.is_fault]
    odd = [*odd_weights(record), *odd_branches(record)]
    merged = alike(record)
    odd += [] if merged else odd_steps(record, {f.parameter for f in (*lost, *odd)})
    directions = [] if lost else measured_directions(record)
    departing = [odd_finding(record, one) for one in odd]
    at_fault = [one for one, f in zip(odd, departing, strict=True) if f.is_fault]
    growth = [f for d in directions for f in grown(record, d, at_fault)]
    of_weights = [f for o, f in zip(odd, departing, strict=True) if o.of_weight]
    of_signals = [f for o, f in zip(odd, departing, strict=True) if not o.of_weight]
    growth = without_consequences([*of_signals, *growth], record, raw)
    equal = list(constant(record))
    dark = any(f.verdict is Verdict.DEAD for f in lost)
    behind = _behind(record, flat_at(record))
    followed = [f for f in merged if not dark and f.parameter not in {e.parameter for e in equal}]
    followed = [f for f in followed if f.layer not in behind]
    flat = list(saturated(record, {one.parameter for one in at_fault if one.of_weight}))
    rest = [*followed, *alike_tokens(record), *flat, *one_hot(record)]
    large = [f for f in growth if f.is_fault and f.verdict is Verdict.EXPLODING]
    rest += [] if product_underflows(record) else first_loss(record, [*raw, *large])
    rest += untrained(record, lost, flat, shut=bool(shut(record)))
    blank = [f for f in blank if f not in lost]
    found = [*blank, *lost, *wild, *back, *of_weights, *growth, *rest, *equal]
    return grouped(found, record)


def _behind(record: xr.Dataset, sites: set[int]) -> set[int]:
    """Return the first site along the spine behind each of some sites."""
    along = spine(record)["site"].values
    return {int(along[along > k][0]) for k in sites if (along > k).any()}
