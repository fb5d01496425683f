"""The rule for units that sit where their activation is flat."""

import numpy as np

from propagate.verdicts import thresholds
from propagate.verdicts.findings import Verdict
from propagate.verdicts.stack_rules.case import Answer, Case


def saturated(case: Case) -> Answer | None:
    """Saturated: most units sit where the activation is flat."""
    share = flat_share(case)
    if share < thresholds.SATURATED:
        return None
    return Answer(Verdict.SATURATED, None, f"{share:.0%} of the units have almost no slope")


def flat_share(case: Case) -> float:
    """Return the share of units with almost no slope; 0 if it was not measured."""
    flat = case.pairing.values("activation_saturated_fraction")
    if flat is None or np.isnan(flat[:, 1:-1]).all():
        return 0.0
    return float(np.nanmean(flat[:, 1:-1]))
