"""The rule for activations most of whose inputs lie where they are flat, and for gates that do."""

import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Severity, Verdict
from propagate.verdicts.growth import amount, times
from propagate.verdicts.pre_activation import Into, flat_share, into
from propagate.verdicts.site_rules.site_finding import site_finding


def saturated(record: xr.Dataset, blamed: Collection[str] = ()) -> Iterator[Finding]:
    """Saturated: an activation most of whose inputs lie where it is flat.

    A gate that is there keeps a state for long, and is a note; a fault where it is shut, so that
    nothing new gets into the state.

    Args:
        record: of `diagnose`.
        blamed: parameters of which it has been said how large they should be.
    """
    if "activation_saturated_fraction" not in record:
        return
    share = record["activation_saturated_fraction"].values
    bounded = np.isin(record["label"].values, thresholds.BOUNDED)
    for k in map(int, np.flatnonzero(bounded & (share >= thresholds.SATURATED))):
        comes, label = into(record, k), str(record["label"].values[k])
        gate = keeping(record, k, comes)
        severity: Severity = "fault" if gate is None or is_shut(gate) else "note"
        reason = (
            f"{share[k]:.0%} of the inputs of {label} have almost no slope, "
            f"less than {thresholds.SATURATED_SLOPE:.0%} of the largest"
        )
        if gate is None:
            reason += f", and pass back as little of the gradient{_moved(label, comes, blamed)}"
        else:
            told = _moved(label, comes, (), needed=severity == "fault")
            reason = f"{_of_gate(gate)}: {reason}{told}"
        yield site_finding(
            record,
            k,
            "forward",
            Verdict.SATURATED,
            reason,
            parameter=_to_blame(comes),
            severity=severity,
        )


def _to_blame(comes: Into | None) -> str | None:
    """Return the bias that moves what comes in away from 0, or the layer that spreads it."""
    if comes is None:
        return None
    return (comes.bias if abs(comes.mean) > comes.sd else comes.layer) or None


class Keeping(NamedTuple):
    """A gate next to where it keeps a state as it is.

    Attributes:
        passed: how far from that it is, on average: what it takes off the state, or lets in.
        admits: whether it scales what the state is added.
    """

    passed: float
    admits: bool


def keeping(record: xr.Dataset, k: int, comes: Into | None) -> Keeping | None:
    """Return what the activation at site k is as a gate that keeps a state; None if it is none.

    What it passes is the mean of exp(-|h|), h being what comes in, as of a Gaussian.
    """
    if comes is None or "keeps_at" not in record.coords or abs(comes.mean) <= comes.sd:
        return None
    at = float(record["keeps_at"].values[k])
    if not math.isfinite(at) or (comes.mean > 0) != bool(at):
        return None
    passed = math.exp(min(comes.sd**2 / 2 - abs(comes.mean), 0.0))
    return Keeping(passed, bool(record["admits"].values[k]))


def is_shut(gate: Keeping) -> bool:
    """Return whether nothing to speak of gets through a gate into a state."""
    return gate.admits and gate.passed < thresholds.SHUT


def shut(record: xr.Dataset) -> list[int]:
    """Return the sites of gates that are shut: what follows from it is no fault of its own."""
    gates = np.flatnonzero(record["admits"].values) if "admits" in record.coords else []
    known = ((int(k), keeping(record, int(k), into(record, int(k)))) for k in gates)
    return [k for k, gate in known if gate is not None and is_shut(gate)]


def _of_gate(gate: Keeping) -> str:
    """Say what a gate does."""
    if is_shut(gate):
        return (
            f"a gate that lets {amount(gate.passed)} of what is new into a state, which stays as "
            "it is, whatever comes in"
        )
    does, what = "takes", "off a state"
    if gate.admits:
        does, what = "lets", "of what is new into a state"
    passed = amount(gate.passed)
    return f"a gate that {does} {passed} {what} at a time, as one does that remembers for long"


def _moved(label: str, comes: Into | None, blamed: Collection[str], *, needed: bool = True) -> str:
    """Say what comes in, and how to bring it to where there is a slope, if that is needed."""
    if comes is None or comes.layer in blamed:
        return ""
    weights = f"the weights of {comes.layer}" if comes.layer else "them"
    if abs(comes.mean) > comes.sd:
        known = f". They have mean {amount(comes.mean)} and standard deviation {amount(comes.sd)}"
        wide = flat_share(label, comes.sd) > thresholds.SATURATED_CENTRED
        scaled = f", then scale it and {weights} by {times(1 / comes.sd)}" if wide else ""
        remedy = f": add {amount(-comes.mean)} to {f'the bias {comes.bias}'.strip()}{scaled}"
        return known + remedy * needed
    return f". They have rms {amount(comes.rms)}: scale {weights} by {times(1 / comes.rms)}"
