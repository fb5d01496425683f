"""The rules for a custom model: from a record with dim `site` to what is wrong, and where.

Growth is judged along the spine: the additions that make a residual stream, or else the layers with
parameters. Healthy models get no finding.
"""

import xarray as xr

from propagate.record.dataset import measured_directions
from propagate.types import UnusableInput
from propagate.verdicts.findings import Findings
from propagate.verdicts.site_rules.collapsed import alike_tokens, collapsed
from propagate.verdicts.site_rules.grown import grown
from propagate.verdicts.site_rules.lost import dead, not_finite, silent
from propagate.verdicts.site_rules.low_precision import flushed, flushed_signal
from propagate.verdicts.site_rules.non_finite import not_finite_behind
from propagate.verdicts.site_rules.parameters import constant, untrained
from propagate.verdicts.site_rules.peers import odd_branches, odd_steps, odd_weights
from propagate.verdicts.site_rules.saturated import saturated


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
    lost = [*not_finite(record), *flushed_signal(record)]
    lost += [] if lost else list(dead(record)) or silent(record)
    back = [] if lost else [*not_finite_behind(record), *flushed(record)]
    odd = [*odd_weights(record), *odd_branches(record)]
    odd += odd_steps(record, {f.parameter for f in (*lost, *odd)})
    growth = [] if lost else [f for d in measured_directions(record) for f in grown(record, d)]
    rest = [*collapsed(record), *alike_tokens(record), *saturated(record)]
    rest += untrained(record, lost)
    return Findings([*lost, *back, *odd, *growth, *rest, *constant(record)])
