"""`judge`: a record to findings."""

import xarray as xr

from propagate.record.dataset import measured_directions, second_moment_name
from propagate.types import UnusableInput
from propagate.verdicts.departures import expectations
from propagate.verdicts.findings import Findings
from propagate.verdicts.outcomes import beginning, is_training
from propagate.verdicts.site_rules.rules_in_order import judge_sites
from propagate.verdicts.stack_rules.rules_in_order import judge_pairing
from propagate.verdicts.stack_rules.stack_record import pairings_of


def judge(record: xr.Dataset, theory: xr.Dataset | None = None) -> Findings:
    """Judge every pairing of a record, in both directions, or the sites of a custom model.

    Args:
        record: of `measure`, `sweep` or `diagnose`; `q` in a direction is needed to judge it. Of
            `train` the pairings are judged as they are before the first step.
            With `variance`, `symmetric_fraction`, `saturated_fraction`, `max` and
            `forward_token_correlation` more is seen.
        theory: of `predict`, for the one network of the record. Where the measurement keeps to its
            band, growth is theory's, so that chance in one seed is not called vanishing; where it
            does not, the reason names the first layer that leaves it. Theory of some families has
            no band: then the verdict rests on the measured interval, and the reason says so. A
            sweep's own record holds what theory expects wherever its seeds settle nothing.

    Returns:
        Two findings for each pairing: forward, backward. Of a custom model, only what is wrong.

    Raises:
        UnusableInput: the record has no second moments, none that is a number, or no site; or
            theory is not of its network.

    Example:
        >>> import numpy as np
        >>> decay = np.outer(np.ones(3), -0.5 * np.arange(21))
        >>> record = xr.Dataset({"log10_forward_q": (("seed", "layer"), decay)})
        >>> judge(record)[0].verdict.value, judge(record)[0].rate
        ('vanishing', -0.5)
    """
    if is_training(record):
        record = beginning(record)
    if record.sizes.get("site") == 0:
        raise UnusableInput("judge needs a record with sites, got one with none: nothing was seen")
    _check_measured(record)
    if "site" in record.dims:
        return judge_sites(record)
    directions = measured_directions(record)
    if "layer" not in record.dims or not directions:
        raise UnusableInput(
            "judge needs a record with dim 'layer' and log10_forward_q or log10_backward_q, "
            f"got variables {', '.join(map(str, record.data_vars)) or 'none'}"
        )
    expected = {} if theory is None else expectations(record, theory)
    found = [
        judge_pairing(pairing, direction, expected.get(direction))
        for pairing in pairings_of(record)
        for direction in directions
        if pairing.measured(direction)
    ]
    return Findings(found)


def _check_measured(record: xr.Dataset) -> None:
    """Raise if a record has second moments, and all are NaN; of sites, if everything is.

    A model that makes NaN at once has counts besides, of zeros for one.
    """
    names = [second_moment_name(d) for d in measured_directions(record)]
    if "site" in record.dims:
        names = [str(k) for k, v in record.data_vars.items() if v.dtype.kind == "f" and v.size]
    if names and not any(record[name].notnull().any() for name in names):
        raise UnusableInput(
            "judge needs a record of which something was measured, but all values of "
            f"{', '.join(names[:3])} are NaN: measure again, with finite inputs and weights"
        )
