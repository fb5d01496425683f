"""The outcome of training in words: initialisers ranked per activation, beside their verdicts."""

import json
import math
from collections.abc import Sequence

import xarray as xr
from rich.text import Text

from propagate.report.fitted import Fitted, Printed
from propagate.report.sweep_table import STYLES
from propagate.types import DIRECTIONS
from propagate.verdicts.findings import Finding, Findings
from propagate.verdicts.growth import counted
from propagate.verdicts.outcomes import SCORES, TARGET, Outcome, score_name

HEADINGS = ("activation", "initialiser", *DIRECTIONS)


def report(
    outcomes: Sequence[Outcome], findings: Findings, record: xr.Dataset, target: float = TARGET
) -> Printed:
    """Return the table with what was run below it.

    Args:
        outcomes: of the record, ranked.
        findings: on the record before the first step.
        record: of a training.
        target: the score whose epoch is told.
    """
    score = SCORES[score_name(record)]
    title = Text("Outcome of training beside the verdict before it, best first")
    made = Fitted(names=HEADINGS[:2], title=title)
    for heading in HEADINGS:
        made.add_column(heading)
    ended = ("diverged",) if any(one.diverged for one in outcomes) else ()
    for heading in (score, f"epochs to {target:g}", "learning rate", *ended):
        made.add_column(heading, justify="right")
    verdicts = {(f.init, f.activation, f.direction): f for f in findings}
    for one in outcomes:
        cells = [_verdict(verdicts.get((one.init, one.activation, d))) for d in DIRECTIONS]
        diverged = f"{one.diverged} of {one.runs}" if one.diverged else ""
        made.add_row(
            Text(one.activation),
            Text(one.init),
            *cells,
            _score(one),
            _epochs(one),
            f"{one.learning_rate:g}",
            *(diverged for _ in ended),
        )
    return Printed(made, Text(_ran(record)), Text(_legend(record)))


def _verdict(finding: Finding | None) -> Text:
    if finding is None:
        return Text("not measured", style="dim")
    return Text(finding.verdict.value, style=STYLES.get(finding.verdict, "red"))


def _score(one: Outcome) -> str:
    return f"{one.score:.3f}" + ("" if math.isnan(one.half_width) else f" ± {one.half_width:.3f}")


def _epochs(one: Outcome) -> str:
    if math.isfinite(one.epochs):
        return f"{one.epochs:g}"
    return f"{one.reached} of {one.runs} runs" if one.reached else "never"


def _ran(record: xr.Dataset) -> str:
    about = record.attrs
    spec = json.loads(about.get("network", "{}"))
    extras = [f"{name.replace('_', ' ')} {about[name]}" for name in ("weight_decay", "dropout")]
    split = f"{record.sizes['fold']} folds" if "fold" in record.dims else "one split"
    return (
        f"{spec.get('family')}, depth {spec.get('depth')}, width {spec.get('width')}; "
        f"{about.get('rows')} rows of {about.get('input')}, {about.get('held_out')} of them held "
        f"out ({split}); {about.get('optimizer')}, batch {about.get('batch')}, "
        f"{int(record['epoch'].max())} epochs, {counted(record.sizes['seed'], 'seed')}, "
        f"{', '.join(extra for extra in extras if not extra.endswith(' 0.0'))}"
    ).rstrip(", ")


def _legend(record: xr.Dataset) -> str:
    runs = "seeds and folds" if "fold" in record.dims else "seeds"
    rates = json.loads(record.attrs.get("learning_rates", "[]"))
    chosen = ""
    if len(rates) > 1:
        tried = ", ".join(f"{rate:g}" for rate in rates)
        chosen = f" Of the learning rates {tried} each has the one of its lowest training loss."
    return f"Verdicts are of the first step; intervals are of the mean over {runs} (95 %).{chosen}"
