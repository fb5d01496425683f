"""Depth by depth: the first layers of a record say what a sweep of that depth says."""

import jax
import numpy as np
import pytest

import propagate as pp
from propagate.report import by_depth, summary
from propagate.verdicts.findings import Verdict

KEY = jax.random.key(1)
INITS, PHIS = ["he_normal", "xavier_normal", "torch"], ["relu", "sigmoid"]
OPTIONS = {"key": jax.random.key(0), "seeds": 4, "batch": 16, "measures": ("q", "variance")}
DEEP, WIDTH = 20, 64


@pytest.fixture(scope="module")
def record():
    return pp.sweep(pp.Network(DEEP, WIDTH), init=INITS, activation=PHIS, **OPTIONS)


@pytest.fixture(scope="module")
def fine(record):
    return by_depth.by_depth(pp.judge(record), record)


@pytest.mark.parametrize("depth", [5, 10])
def test_a_prefix_says_what_a_sweep_of_its_depth_says(fine, depth):
    """Nothing is fine in one and unfit in the other; what the seeds leave open may be settled."""
    own = pp.sweep(pp.Network(depth, WIDTH), init=INITS, activation=PHIS, **OPTIONS)
    suited = pp.judge(own).suited()
    for phi in PHIS:
        at = fine[phi][depth]
        assert set(at["fine"]) - set(suited[phi]) == set()
        assert set(suited[phi]) - set(at["fine"]) <= set(at["unsettled"])


def test_what_is_known_of_them_is_found(record, fine):
    """Xavier halves q in each ReLU layer: 1.5 decades in 5 layers, 3 in 10. Of sigmoid's layers it
    passes a twentieth of the gradient, which is not fine even at 5."""
    assert [set(at["fine"]) for at in fine["relu"].values()] == [
        {"he_normal", "xavier_normal"},
        {"he_normal"},
        {"he_normal"},
    ]
    assert not any(at["fine"] for at in fine["sigmoid"].values())
    said = by_depth.in_words(fine).splitlines()
    assert said[0].startswith("relu: to 20 layers he_normal; to 5 layers xavier_normal")
    assert said[1].startswith("sigmoid: none, not even at 5 layers")
    assert summary.of_sweep(pp.judge(record), record)["by_depth"]["relu"][5] == fine["relu"][5]


def test_a_gradient_that_is_lost_behind_the_prefix_settles_nothing_there(record):
    """A network whose units die in layer 12 may be fine in its first 5."""
    lost = record.sel(init=["he_normal"], activation=["relu"]).copy(deep=True)
    lost["log10_forward_q"][..., 12:] = -np.inf
    lost["log10_backward_q"][:] = -np.inf
    found = pp.judge(lost)
    assert {f.verdict for f in found} == {Verdict.DEAD}
    at = by_depth.by_depth(found, lost)["relu"]
    assert at[5] == {"fine": [], "unsettled": ["he_normal"]} and not at[20]["unsettled"]


@pytest.mark.parametrize(
    ("family", "same"),
    [
        ("residual(branch=nf)", True),
        ("residual(branch=depth)", False),
        ("transformer(arrangement=post,heads=1,tokens=2)", True),
        ("transformer(scheme=gpt2,heads=1,tokens=2)", False),
    ],
)
def test_a_family_says_whether_its_layers_depend_on_the_depth(family, same):
    q = [
        pp.measure(pp.Network(depth, 8, family), KEY, seeds=1, batch=4, measures=("forward_q",))
        for depth in (2, 3)
    ]
    first, second = (one.log10_forward_q.values[0, :3] for one in q)
    assert np.allclose(first, second, atol=1e-4) == same
    assert pp.Network(2, 8, family).family.depth_scaled != same


def test_a_record_that_does_not_tell_gets_no_answer(record):
    findings = pp.judge(record)
    assert by_depth.by_depth(findings, record.drop_attrs()) == {}
    shared = record.assign_attrs(parameters='{"shared": true, "depth_scaled": false}')
    assert by_depth.by_depth(findings, shared) == {}
