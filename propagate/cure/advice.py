"""`advise`: what to change in a network, a sweep or a diagnosed model, and the effect of it.

A change of a stack is measured before it is shown, with the draws of the record: what helps in no
direction is left out. A change of a custom model is arithmetic on its record.
"""

import math
from typing import Any

import xarray as xr

from propagate import checks
from propagate.batches import as_batch
from propagate.cure.measured_again import as_it_ran, closest, in_turns
from propagate.cure.remedies import Advice, Change
from propagate.cure.site_remedies import of_model
from propagate.cure.stack_proposals import Case, Proposal
from propagate.cure.stack_remedies import StackRemedy, proposals
from propagate.models.diagnose import Diagnosis
from propagate.network import Network
from propagate.run.sweep import measure
from propagate.types import Array, UnusableInput
from propagate.verdicts.findings import Findings, Verdict
from propagate.verdicts.judge import judge


def advise(
    found: Network | xr.Dataset | Diagnosis,
    *,
    key: Array | None = None,
    most: int = 3,
    **options: Any,
) -> Advice:
    """Return what to change, the best first, with reason, source and effect.

    Of a stack each change is measured with the same draws before it is returned, the least changes
    first, until `most` kinds of them are stable in both directions; the best of each kind is
    returned. One that helps in no direction is left out; one that helps in one and hurts in the
    other says so. Of a sweep, the closest initialiser is changed of each activation for which none
    is fine. Of a custom model the effect is predicted from its record, for each finding.

    Args:
        found: a network, which is measured first; the record of `measure` or `sweep`, whose
            network is measured again; or the result or the record of `diagnose`.
        key: a JAX random key; that of the record by default.
        most: changes to return for each stack; measuring ends when so many cure it.
        **options: of `sweep`, such as `batch`, `seeds` and `inputs`; those of the record by
            default.

    Raises:
        UnusableInput: a network without a key; or a record that does not tell what to measure
            again: of a function of your own, or of data that are not passed as `inputs`.

    Example:
        >>> import jax
        >>> net = Network(depth=12, width=32, activation="relu", init="lecun_normal")
        >>> print(advise(net, key=jax.random.key(0), seeds=3, batch=16, most=1))
        lecun_normal + relu, ...: init critical (weights 1.414 times as large, ...): measured: ...
    """
    checks.check_count("most", most)
    if isinstance(found, Network):
        if key is None:
            raise UnusableInput("advise measures a network: pass key=, a JAX random key")
        record, how = measure(found, key, **options), {"key": key, "seeds": 8} | options
        return _of_stack(found, judge(record), how, most)
    findings = found.findings if isinstance(found, Diagnosis) else None
    record = found.record if isinstance(found, Diagnosis) else found
    if not isinstance(record, xr.Dataset):
        raise UnusableInput(
            "advise takes a Network, a record of measure, sweep or diagnose, or the result of "
            f"diagnose, got {type(found).__name__}"
        )
    findings = judge(record) if findings is None else findings
    if "site" in record.dims:
        if key is not None or options:
            raise UnusableInput(
                "advice on a custom model is arithmetic on its record, which needs no key and no "
                f"options, got {', '.join(['key'] * (key is not None) + list(options))}"
            )
        return of_model(record, findings)
    how, stacks = as_it_ran(record, key, options), closest(record, findings)
    return Advice(change for net, own in stacks for change in _of_stack(net, own, how, most))


def _of_stack(net: Network, findings: Findings, how: dict[str, Any], most: int) -> Advice:
    """Return what was measured to help one stack."""
    if all(f.verdict is Verdict.STABLE for f in findings):
        return Advice()
    data = as_batch(how.get("inputs"), how.get("labels"), how.get("loss", "gaussian"))
    case, tried = Case(net, findings, data), []
    for batch in in_turns(proposals(case), how):
        tried += [_change(case, remedy, one, after) for remedy, one, after in batch]
        if len({change.remedy for change in tried if change.cures}) >= most:
            break
    ranked = sorted((change for change in tried if change.helps), key=_rank)
    best = {change.remedy: change for change in reversed(ranked)}  # the first of each remedy
    return Advice([change for change in ranked if best[change.remedy] is change][:most])


def _change(case: Case, remedy: StackRemedy, one: Proposal, after: Findings) -> Change:
    return Change(
        finding=case.findings.worst_first()[0],
        remedy=remedy.name,
        what=one.what,
        reason=remedy.reason,
        source=one.source or remedy.source,
        net=one.net,
        before=case.findings,
        after=after,
    )


def _rank(change: Change) -> tuple[bool, bool, float]:
    """What cures first, in the order tried; then what hurts nothing, the deepest fine first."""
    least = min(
        (0.0 if math.isnan(f.fine_depth) else f.fine_depth for f in change.after), default=0
    )
    return not change.cures, bool(change.hurts), 0.0 if change.cures else -least
