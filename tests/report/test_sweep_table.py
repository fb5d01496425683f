"""Findings in words: the table, the advice and the summary say what the findings hold."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import propagate as pp
from propagate.report import summary, sweep_table
from propagate.verdicts.findings import Verdict


def finding(init, phi, direction, verdict, rate=0.0, fine=1000.0):
    return pp.Finding(init, phi, direction, verdict, rate, (rate, rate), 9.0, fine, None, "why")


FINDINGS = pp.Findings(
    [
        finding("he", "relu", "forward", Verdict.STABLE, -0.008, 325.0),
        finding("he", "relu", "backward", Verdict.STABLE, 0.001, 2606.0),
        finding("zero", "relu", "forward", Verdict.SYMMETRIC, math.nan, math.nan),
        finding("zero", "relu", "backward", Verdict.SYMMETRIC, math.nan, math.nan),
        finding("he", "gelu", "forward", Verdict.VANISHING, -0.3, 9.0),
        finding("he", "gelu", "backward", Verdict.VANISHING, -0.31, 8.0),
        finding("zero", "gelu", "forward", Verdict.SYMMETRIC, math.nan, math.nan),
        finding("zero", "gelu", "backward", Verdict.STABLE, 0.0, math.inf),
        finding("alone", "sin", "backward", Verdict.INCONCLUSIVE, 0.05, 52.0),
    ]
)


def printed(renderable) -> str:
    console = Console(width=120, no_color=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(renderable)
    return console.export_text()


def test_the_table_has_one_row_for_each_pairing_worst_first():
    rows = [line.split() for line in printed(sweep_table.verdict_table(FINDINGS)).splitlines()]
    pairs = [tuple(row[:2]) for row in rows if len(row) > 3 and row[0] in ("he", "zero", "alone")]
    assert pairs == [
        ("zero", "relu"),
        ("zero", "gelu"),
        ("he", "gelu"),
        ("alone", "sin"),
        ("he", "relu"),
    ]
    assert "not measured" in printed(sweep_table.verdict_table(FINDINGS))


def test_advice_names_what_suits_and_what_the_closest_lacks():
    relu, gelu, sin = sweep_table.advice(FINDINGS).splitlines()
    assert relu == "relu: he (325) keeps signals and gradients in range (fine to that depth)."
    assert "The closest, he, is vanishing backward: each layer shrinks the gradient" in gelu
    assert "-0.310 decades per layer, fine to depth 8" in gelu and "larger scale" in gelu
    assert "alone, is inconclusive" in sin


def test_the_best_is_the_mildest_even_if_none_is_stable():
    assert sweep_table.best(FINDINGS) == {"relu": "he", "gelu": "he", "sin": "alone"}


def test_the_summary_is_json_without_nan():
    net = pp.Network(depth=4, width=8, init="zeros")
    record = pp.sweep(net, key=jax.random.key(0), seeds=2, batch=4)
    said = summary.of_sweep(pp.judge(record), record)
    text = json.dumps(said, allow_nan=False)
    assert json.loads(text)["findings"][0]["rate"] is None
    assert said["provenance"]["network"]["init"] == "zeros"


@pytest.mark.parametrize(("depth", "words"), [(8.4, "8"), (math.inf, "> 10000"), (np.nan, "none")])
def test_depths_are_whole_and_bounded(depth, words):
    one = pp.Findings([finding("he", "relu", "forward", Verdict.EXPLODING, 0.3, depth)])
    assert printed(sweep_table.verdict_table(one)).rstrip().endswith(words)


def test_advice_offers_no_scale_that_was_measured_and_no_nearness_to_what_there_is_not():
    record = xr.Dataset(attrs={"parameters": '{"named": ["gelu", "softplus"]}'})
    vanishing = [
        finding(init, phi, d, Verdict.VANISHING, -0.3, 8.0)
        for init, phi in (("critical", "gelu"), ("he", "softplus"))
        for d in ("forward", "backward")
    ]
    gelu, softplus = sweep_table.advice(pp.Findings(vanishing), record).splitlines()
    assert "near criticality" in gelu and "would suit" not in gelu
    other = [dataclasses.replace(f, init="he") for f in vanishing if f.activation == "gelu"]
    assert "the initialiser critical would suit" in sweep_table.advice(pp.Findings(other), record)
    assert "By theory there is none" in softplus and "near criticality" not in softplus
