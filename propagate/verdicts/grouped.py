"""Findings that say the same of many places, as one: of the turns of a scan, of equal blocks."""

import re
from collections.abc import Iterable
from dataclasses import replace

import xarray as xr

from propagate.verdicts.findings import Finding, Findings

SMALLEST_GROUP = 3  # two places are both named
LISTED = 5  # places that are listed beside the first


def grouped(findings: Iterable[Finding], record: xr.Dataset | None = None) -> Findings:
    """Return one finding for three or more that differ in the numbers of their places only.

    The first of them stands for all; its reason lists the others, or how many there are. The
    places are those of equal verdict, direction, severity, and names once numbers are left out.

    Args:
        findings: in order.
        record: of the model, to number the places by; by default their own order is taken.

    Example:
        >>> from propagate.verdicts.findings import Verdict
        >>> nan = float("nan")
        >>> turns = [Finding("", "", "forward", Verdict.SATURATED, nan, (nan, nan), nan, nan, k,
        ...                  "98% of the inputs", f"lstm/tanh[{k}]") for k in range(3, 10)]
        >>> print(grouped(turns))
        lstm/tanh[3], forward: saturated (98% of the inputs; so at 7 places up to lstm/tanh[9])
    """
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        groups.setdefault(_kind(one), []).append(one)
    return Findings(one for own in groups.values() for one in _as_one(own, record))


def _kind(one: Finding) -> tuple[str, ...]:
    names = (without_numbers(one.site), without_numbers(one.parameter))
    return (one.verdict.value, one.direction, one.severity, _opening(one.reason), *names)


def _opening(reason: str) -> str:
    """Return the words of a reason, which tell one rule from another, without names and numbers."""
    return " ".join(re.findall(r"(?<![\w./\[])[a-z]{2,}(?![\w./\[])", reason)[:SMALLEST_GROUP])


def without_numbers(name: str) -> str:
    """Return a name with `*` for its numbers.

    Example:
        >>> without_numbers("blocks.3/tanh[12]#2"), without_numbers("dense_1.kernel")
        ('blocks.*/tanh*', 'dense*.kernel')
    """
    return re.sub(r"#\d+", "", re.sub(r"\[[\d, ]*\]|_?\d+", "*", name).replace("#*", ""))


def _as_one(own: list[Finding], record: xr.Dataset | None) -> list[Finding]:
    if len(own) < SMALLEST_GROUP:
        return own
    if record is not None:
        own = sorted(own, key=lambda f: -1 if f.layer is None else f.layer)
    first, *others = own
    names = [one.site or one.parameter for one in others]
    also = f"{len(own)} places up to {names[-1]}"
    if len(names) <= LISTED:
        also = f"{', '.join(names[:-1])} and {names[-1]}"
    return [replace(first, reason=f"{first.reason}; so at {also}")]
