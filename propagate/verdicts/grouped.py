"""Findings that say the same of many places, as one: of the turns of a scan, of equal blocks."""

import re
from collections.abc import Iterable
from dataclasses import replace

import xarray as xr

from propagate.verdicts.findings import Finding, Findings

SMALLEST_GROUP = 3  # two places are both named
LISTED = 5  # places that are listed beside the first


def grouped(findings: Iterable[Finding], record: xr.Dataset | None = None) -> Findings:
    """Return one finding for three or more that say the same of many places.

    The first of them stands for all; its reason lists the others, or how many there are. Of equal
    verdict, direction, severity and site, numbers left out, those say the same whose reasons are
    equal, or whose rule and parameter are.

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
    groups: list[tuple[set[Key], list[Finding]]] = []
    for one in findings:
        keys = {_said(one), _kind(one)}
        alike = [group for group in groups if group[0] & keys]
        if not alike:
            groups.append((keys, [one]))
            continue
        first, *others = alike
        for known, own in (*others, (keys, [one])):
            first[0].update(known)
            first[1].extend(own)
        groups = [group for group in groups if group not in others]
    return Findings(one for _, own in groups for one in _as_one(own, record))


Key = tuple[str, ...]


def _said(one: Finding) -> Key:
    site = without_numbers(one.site)
    return (one.verdict.value, one.direction, one.severity, site, one.reason)


def _kind(one: Finding) -> Key:
    return (*_said(one)[:-1], _opening(one.reason), without_numbers(one.parameter))


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
    return [replace(first, reason=f"{first.reason}; so at {also}", also=tuple(names))]
