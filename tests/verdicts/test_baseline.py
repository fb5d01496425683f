"""Rates from their formula, and every kind of change told in one sentence."""

import json
import math

import numpy as np
import pytest
import xarray as xr

from propagate.types import PropagateError, UnusableInput
from propagate.verdicts import baseline as baselines

FORWARD, BACKWARD = [0.0, -0.5, -0.7, -1.3], [-3.0, -2.0, 0.5, 1.0]
DEPTH = [1, 2, 4, 5]


def record(forward=FORWARD, backward=BACKWARD, depth=DEPTH, names="abcd"):
    """A chain of layers, and between them activations that no slope is taken at."""
    n = len(forward)
    both = {"log10_forward_q": forward, "log10_backward_q": backward}
    spread = {k: ("site", np.repeat(v, 2) + [0.0, 9.0] * n) for k, v in both.items() if v}
    coords = {
        "name": [x for name in names for x in (name, f"{name}/relu")],
        "kind": ["matmul", "activation"] * n,
        "parameter": [x for name in names for x in (name, "")],
        "depth": np.repeat(depth, 2),
    }
    return xr.Dataset(spread, {k: ("site", v) for k, v in coords.items()})


def changed(old, new, tmp_path, **options):
    return baselines.compare(new, baselines.write(old, tmp_path / "b.json"), **options)


def test_slopes_are_decades_per_layer_in_the_direction_of_travel():
    found = baselines.growth_rates(record())
    assert list(found) == ["b", "c", "d"]
    # a depth of 2 lies between b and c; the gradient comes from the later layer
    assert [s["forward"] for s in found.values()] == pytest.approx([-0.5, -0.1, -0.6])
    assert [s["backward"] for s in found.values()] == pytest.approx([-1.0, -1.25, -0.5])
    assert baselines.overall(record(), "forward") == pytest.approx(-1.3 / 4)
    assert baselines.overall(record(), "backward") == pytest.approx(-4.0 / 4)


def test_layers_in_parallel_count_as_one_apart():
    again = record(depth=[1, 1, 1, 1])
    again["kind"] = "site", ["add", "activation"] * 4  # the spine has one site for each depth
    assert baselines.growth_rates(again) == {} and baselines.overall(again, "forward") is None


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_or_not_measured_is_none(lost):
    found = baselines.growth_rates(record(forward=[0.0, lost, lost, 1.0], backward=None))
    assert [s["forward"] for s in found.values()] == [None] * 3
    assert [s["backward"] for s in found.values()] == [None] * 3
    assert baselines.overall(record(forward=[lost, 0, 0, 0]), "forward") is None
    assert baselines.overall(record(backward=None), "backward") is None


def test_a_file_holds_versions_and_slopes_and_nothing_else_is_left(tmp_path):
    path = baselines.write(record(forward=[0.0, -math.inf, 0.0, 1.0]), tmp_path / "new" / "b.json")
    held = json.loads(path.read_text())
    assert {"format", "version", "propagate", "jax", "slopes"} == set(held)
    assert held["slopes"]["b"]["forward"] is None
    assert held["slopes"] == baselines.read(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_model_that_has_not_changed_has_no_changes(tmp_path):
    assert changed(record(), record(), tmp_path, tolerance=0) == []
    lost = record(forward=[0.0, -math.inf, 0.0, 1.0])
    assert changed(lost, lost, tmp_path) == []


def test_only_a_slope_beyond_the_tolerance_is_told(tmp_path):
    steeper = record(forward=[0.0, -0.5, -0.7, -1.48], backward=[-3.0, -2.0, 0.5, 1.18])
    assert changed(record(), steeper, tmp_path) == [
        "signal slope at d went from -0.60 to -0.78 decades per layer",
        "gradient slope at d went from -0.50 to -0.68 decades per layer",
    ]
    assert changed(record(), steeper, tmp_path, tolerance=0.2) == []


@pytest.mark.parametrize("tolerance", [1e-3, 1e-8, 0])
def test_a_small_change_shows_its_digits(tmp_path, tolerance):
    off = max(2 * tolerance, 1e-8)
    (told,) = changed(
        record(), record(forward=[0.0, -0.5, -0.7, -1.3 + off]), tmp_path, tolerance=tolerance
    )
    was, now = (float(word) for word in told.split() if word[0] in "+-")
    assert now - was == pytest.approx(off, rel=0.2)


def test_a_slope_that_is_lost_or_found_is_told(tmp_path):
    dead = record(backward=[-math.inf, -2.0, 0.5, 1.0])
    lost = "gradient slope at b went from -1.00 to not finite decades per layer"
    assert changed(record(), dead, tmp_path) == [lost]
    found = "gradient slope at b went from not finite to -1.00 decades per layer"
    assert changed(dead, record(), tmp_path) == [found]


def test_sites_that_come_and_go_are_told(tmp_path):
    assert changed(record(), record(names="abxd"), tmp_path) == [
        "c is gone: the baseline has a slope there, the model has none",
        "x is new: the model has a slope there, the baseline has none",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "a baseline file is required, but .*b.json cannot be read: No such file"),
        ("{", "is not a baseline of propagate: Expecting"),
        ("[1]", "is JSON but not a baseline"),
        ('{"a": 1}', "is JSON but not a baseline"),
        ('{"format": "propagate baseline", "version": 2}', "of version 2, .* reads 1.*anew"),
        ('{"format": "propagate baseline", "version": 1}', "but damaged"),
        ('{"format": "propagate baseline", "version": 1, "slopes": {"a": 1}}', "but damaged"),
        (
            '{"format": "propagate baseline", "version": 1, "slopes": {"a": {"forward": 1}}}',
            "but damaged",
        ),
    ],
)
def test_a_file_that_is_no_baseline_is_told(tmp_path, text, message):
    path = tmp_path / "b.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UnusableInput, match=message):
        baselines.compare(record(), path)


def test_a_picture_is_no_baseline(tmp_path):
    (tmp_path / "b.json").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UnusableInput, match="is not a baseline"):
        baselines.read(tmp_path / "b.json")


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf, "small", True])
def test_a_tolerance_is_a_number_from_0_on(tmp_path, tolerance):
    with pytest.raises(UnusableInput, match="tolerance must be decades per layer"):
        changed(record(), record(), tmp_path, tolerance=tolerance)


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PropagateError, match="choose another folder"):
        baselines.write(record(), tmp_path / "file" / "b.json")
