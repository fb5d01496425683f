"""Theory beside a measurement: each number is in its cell, and a dash where theory has none."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from propagate.report import summary, theory_table


def cells(table) -> list[list[str]]:
    console = Console(width=200, no_color=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(table)
    lines = console.export_text().splitlines()
    return [line.replace("│", " ").split() for line in lines if line.strip(" ─━┃┏┓└┘├┤╇┡┩┴")]


@pytest.fixture
def custom():
    """Three sites, of which theory has no answer for the second; one is left out of tables."""
    coords = {
        "name": ("site", ["a", "b", "c", "d"]),
        "kind": ("site", ["matmul", "activation", "elementwise", "add"]),
        "label": ("site", ["dot_general", "softmax", "mul", "add"]),
    }
    measured = np.array([0.5, 0.25, 7.0, -1.0])
    expected = np.array([0.4, math.nan, 7.0, -1.5])
    record = xr.Dataset({"log10_forward_q": ("site", measured)}, coords)
    values = {"log10_forward_q": expected, "log10_forward_residual": measured - expected}
    theory = xr.Dataset({k: ("site", v) for k, v in values.items()}, coords)
    return theory.assign_attrs(theory="mean field"), record


def test_a_dash_stands_where_theory_has_no_answer(custom):
    rows = {row[0]: row[1:] for row in cells(theory_table.model_table(*custom))}
    assert rows["a"] == ["matmul", "0.400", "0.500", "0.100"]
    assert rows["b"] == ["softmax", "–", "0.250", "–"]
    assert "c" not in rows
    assert rows["d"] == ["add", "-1.500", "-1.000", "0.500"]


def test_coverage_counts_the_sites_of_the_table(custom):
    said = theory_table.coverage(*custom, "forward")
    assert said == (
        "forward: theory covers 2 of 3 sites; measured less expected: median 0.300 decades, "
        "largest +0.500 at d"
    )
    assert theory_table.coverage(*custom, "backward") == "backward: not measured"


def test_the_summary_of_a_models_theory_has_null_for_what_is_unknown(custom):
    found = json.loads(json.dumps(summary.of_model_theory(*custom), allow_nan=False))
    assert found["theory"] == "mean field" and found["backward"] == "backward: not measured"
    assert [site["log10_forward_q"] for site in found["sites"]] == [0.4, None, 7.0, -1.5]


def test_a_stack_has_its_layers_expected_and_measured():
    layers = np.arange(41.0)
    sd = np.where(layers < 40, 0.25, math.inf)
    theory = xr.Dataset(
        {"log10_forward_q": ("layer", 1 - layers), "log10_forward_q_sd": ("layer", sd)}
    )
    record = xr.Dataset({"log10_forward_q": (("seed", "layer"), np.stack([1 - layers, -layers]))})
    rows = cells(theory_table.stack_table(theory, record, "title"))
    numbers = [row for row in rows if row[0].isdigit()]
    assert len(numbers) == theory_table.STACK_ROWS
    assert numbers[0] == ["0", "1.000", "0.250", "0.500"]
    assert numbers[-1] == ["40", "-39.000", "–", "-39.500"]


def test_the_summary_of_a_prediction_is_json_whatever_theory_gives():
    theory = xr.Dataset({"log10_forward_q_sd": ("layer", [0.1, math.inf])})
    found = summary.of_prediction("tanh", 0.05, theory, None)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["theory"]["log10_forward_q_sd"] == [0.1, None]
    assert again["critical"][0]["sigma_w2"] == pytest.approx(1.7609546)
    assert again["gain"]["second_moment"] > 1 and "departures" not in again


def test_what_critical_draws_is_told_beside_the_points_of_other_biases():
    said = theory_table.gain_and_critical_points("gelu", 0.05)
    assert "critical at sigma_b² = 0.05: sigma_w² = 2.30" in said
    assert "with biases of its own: sigma_w² = 1.983, sigma_b² = 0.1729 (half-stable" in said
    assert "draws" not in theory_table.gain_and_critical_points("sign(h)", 0.05)
