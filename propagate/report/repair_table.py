"""What a repair changed, as a table: factors of parameters, and their laws before and after."""

import math
from collections.abc import Mapping

import xarray as xr
from rich.text import Text

from propagate.report.fitted import Fitted, Printed


def table(
    multipliers: Mapping[str, float],
    redrawn: Mapping[str, float],
    before: xr.Dataset,
    after: xr.Dataset,
    conclusion: str,
) -> Printed:
    """Return a row for each parameter that is changed, and the conclusion below.

    Args:
        multipliers: the factor of each parameter.
        redrawn: the standard deviations of those that were drawn anew.
        before: record of the model as it was.
        after: record with the parameters changed.
        conclusion: what comes of it, in words.
    """
    if not (multipliers or redrawn):
        return Printed(Text(conclusion))
    title = Text(f"what was changed of {after.attrs.get('model') or 'the model'}")
    made = Fitted(names=("parameter",), folded=("parameter",), dropped=("law now",), title=title)
    made.add_column("parameter")
    for heading in ("factor", "fan_in Var(W)", "now"):
        made.add_column(heading, justify="right")
    made.add_column("law now")
    laws = dict(zip(after["weight"].values, after["weight_law"].values, strict=True))
    for name in dict.fromkeys((*redrawn, *multipliers)):
        factor = f"{multipliers[name]:.3g}" if name in multipliers else ""
        factor = f"drawn anew × {factor}".removesuffix(" × ") if name in redrawn else factor
        sigma2 = (_sigma2(record, name) for record in (before, after))
        made.add_row(Text(name), factor, *sigma2, Text(str(laws.get(name, ""))))
    return Printed(made, Text(conclusion))


def _sigma2(record: xr.Dataset, name: str) -> str:
    known = dict(zip(record["weight"].values, record["log10_weight_sigma2"].values, strict=True))
    value = float(known.get(name, math.nan))
    return "–" if math.isnan(value) else f"{10.0**value:.3g}"
