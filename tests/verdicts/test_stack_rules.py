"""Verdicts: every planted fault is named, its healthy twin is not, sizes never matter."""

import math

import jax
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import propagate as pp
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Verdict
from propagate.verdicts.growth import growth

KEY = jax.random.key(1)
V = Verdict


JUDGED = (  # what the verdicts below rest on
    *("q", "variance", "correlation", "zero_fraction", "dead_fraction"),
    *("symmetric_fraction", "saturated_fraction", "max"),
)


def squeeze_to_zero(h):
    return jax.nn.relu(h - 100.0)


@pytest.fixture(scope="module")
def record():
    """Depth 50, width 128: one compilation for all pairings, and for all that needs a record."""
    inits = ["zeros", "constant_0.05", "xavier_normal", "he_normal", "torch", "normal_0.01"]
    inits += ["sigma(1.6666667,0)", "sigma(30,0)", "1000*he_normal"]
    phis = ["relu", "tanh", "sigmoid", "gelu", "squared_relu", squeeze_to_zero]
    net = pp.Network(depth=50, width=128)
    options = {"key": KEY, "seeds": 4, "batch": 4, "measures": JUDGED}
    return pp.sweep(net, init=inits, activation=phis, **options)


@pytest.fixture(scope="module")
def findings(record):
    return {(f.init, f.activation, f.direction): f for f in pp.judge(record)}


@pytest.mark.parametrize(
    ("init", "phi", "forward", "backward"),
    [
        ("he_normal", "relu", V.STABLE, V.STABLE),
        ("xavier_normal", "relu", V.VANISHING, V.VANISHING),
        ("1000*he_normal", "relu", V.EXPLODING, V.EXPLODING),
        ("zeros", "relu", V.SYMMETRIC, V.SYMMETRIC),
        ("zeros", "sigmoid", V.SYMMETRIC, V.SYMMETRIC),
        ("constant_0.05", "tanh", V.SYMMETRIC, V.SYMMETRIC),
        ("xavier_normal", "tanh", V.STABLE, V.STABLE),
        ("sigma(1.6666667,0)", "tanh", V.STABLE, V.EXPLODING),
        ("sigma(30,0)", "tanh", V.SATURATED, V.EXPLODING),
        ("xavier_normal", "sigmoid", V.COLLAPSING, V.VANISHING),
        ("he_normal", "gelu", V.VANISHING, V.VANISHING),
        ("torch", "relu", V.COLLAPSING, V.VANISHING),
        ("1000*he_normal", "squared_relu", V.OVERFLOWED, V.OVERFLOWED),
        ("he_normal", "squeeze_to_zero", V.DEAD, V.DEAD),
        ("normal_0.01", "gelu", V.VANISHING, V.VANISHING),
    ],
)
def test_each_fault_is_named_and_each_healthy_twin_is_not(findings, init, phi, forward, backward):
    assert findings[init, phi, "forward"].verdict is forward
    assert findings[init, phi, "backward"].verdict is backward


def test_findings_say_what_was_measured(findings):
    """Infinite width: -15.05, -62.80 and -13.25 decades over 50 layers."""
    total = {k: f.total for k, f in findings.items()}
    assert total["xavier_normal", "relu", "forward"] == pytest.approx(-15.05, abs=1.2)
    assert total["xavier_normal", "relu", "backward"] == pytest.approx(-15.05, abs=1.2)
    assert total["xavier_normal", "sigmoid", "backward"] == pytest.approx(-62.80, abs=1.2)
    assert total["he_normal", "gelu", "forward"] == pytest.approx(-13.25, abs=1.2)
    vanishing = findings["xavier_normal", "relu", "backward"]
    assert vanishing.fine_depth == pytest.approx(2.606 / 0.301, rel=0.1)
    assert vanishing.interval[0] < -0.301 < vanishing.interval[1]


def test_the_default_size_meets_infinite_width():
    """Depth 50, width 256, 4 seeds: within 0.9 decades.

    The log10 of a ReLU seed has mean -0.213 and standard deviation 0.432 beside the infinite
    width (Hanin & Nica 2018; exact increments at width 256), so the mean of four leaves the
    band with probability 7.4e-4 in each direction; the saturating activations scatter less.
    """
    net = pp.Network(depth=50, width=256)
    inits, phis = ["xavier_normal", "he_normal"], ["relu", "sigmoid", "gelu"]
    grid = {"init": inits, "activation": phis, "key": jax.random.key(0), "seeds": 4, "batch": 8}
    record = pp.sweep(net, **grid, measures=("q", "variance"))
    found = {(f.init, f.activation, f.direction): f for f in pp.judge(record)}
    for direction in ("forward", "backward"):
        assert found["he_normal", "relu", direction].verdict is V.STABLE
        assert found["xavier_normal", "relu", direction].total == pytest.approx(-15.05, abs=0.9)
    assert found["xavier_normal", "sigmoid", "backward"].total == pytest.approx(-62.80, abs=0.9)
    settled = 10 ** record.log10_forward_q.sel(init="xavier_normal", activation="sigmoid")[:, 25:]
    assert float(settled.mean()) == pytest.approx(0.2647, rel=0.03)
    assert found["he_normal", "gelu", "forward"].total == pytest.approx(-13.25, abs=0.9)


def test_the_layer_where_the_signal_is_lost_is_named(findings):
    assert findings["he_normal", "squeeze_to_zero", "forward"].layer == 1
    assert findings["1000*he_normal", "squared_relu", "forward"].layer <= 8
    faint = findings["normal_0.01", "gelu", "forward"]
    assert 25 < faint.layer < 50 and "below the dtype's range" in faint.reason
    assert "plain float32 is left" in findings["1000*he_normal", "relu", "forward"].reason


def record_of(log_q: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"log10_backward_q": (("seed", "layer"), log_q)})


@given(st.floats(-3, 3), st.floats(-200, 200), st.integers(3, 60))
def test_growth_of_a_straight_line_is_its_slope(rate, start, depth):
    line = start + rate * np.arange(depth + 1)
    found = growth(np.tile(line, (4, 1)), "forward")
    assert found.rate == pytest.approx(rate, abs=1e-9)
    assert found.total == pytest.approx(rate * depth, abs=1e-9)
    assert found.high - found.low < 1e-9


@given(st.floats(-1, 1), st.floats(-100, 100))
def test_verdicts_rest_on_growth_and_never_on_size(rate, offset):
    log_q = np.tile(rate * np.arange(31.0), (4, 1))
    here, there = (pp.judge(record_of(log_q + shift))[0] for shift in (0.0, offset))
    assert here.verdict is there.verdict
    expected = V.STABLE
    if abs(rate * 30) > thresholds.FINE_DECADES * 1.001:
        expected = V.EXPLODING if rate < 0 else V.VANISHING  # backward runs from the last layer
    if abs(abs(rate * 30) - thresholds.FINE_DECADES) > 0.01:
        assert here.verdict is expected


def test_interval_covers_the_true_rate_as_often_as_it_says():
    """1000 walks of 4 seeds: coverage 95 % ± 2.8 % (4 sigma, failure probability 6e-5)."""
    rng = np.random.default_rng(0)
    walks = np.cumsum(rng.normal(0.1, 0.05, (1000, 4, 41)), axis=-1)
    covered = [
        low <= 0.1 <= high for _, low, high, *_ in (growth(walk, "forward") for walk in walks)
    ]
    assert np.mean(covered) == pytest.approx(thresholds.CONFIDENCE, abs=0.028)


def test_a_norm_behind_the_last_layer_is_no_part_of_the_growth_in_front_of_it():
    """A Pre-LN stream that grows by 0.1 decades a layer, and is normalised at its end."""
    grown = 0.1 * np.arange(13.0)
    reset = np.append(grown[:-1], 0.0)
    log_q = np.tile(reset, (3, 1))
    both = {f"log10_{d}_q": (("seed", "layer"), log_q) for d in ("forward", "backward")}
    normed = xr.Dataset(both, attrs={"parameters": '{"normed_end": true}'})
    for found, onward in zip(pp.judge(normed), (1, -1), strict=True):
        assert found.rate == pytest.approx(onward * 0.1)
        assert found.total == pytest.approx(onward * 1.1) and "up to the last norm" in found.reason
    assert pp.judge(xr.Dataset(both))[0].rate != pytest.approx(0.1)  # of another family: a fall
    one = pp.measure(pp.Network(1, 8, "transformer(tokens=3)"), KEY, seeds=3, batch=4, measures="q")
    assert not any(np.isnan(found.rate) for found in pp.judge(one))


def test_too_much_scatter_is_inconclusive():
    rng = np.random.default_rng(0)
    log_q = np.cumsum(rng.normal(0.02, 0.5, (3, 41)), axis=-1)[:, ::-1]
    assert pp.judge(record_of(log_q))[0].verdict is V.INCONCLUSIVE


def test_nothing_is_judged_that_was_not_measured():
    with pytest.raises(pp.UnusableInput, match="judge needs a record"):
        pp.judge(xr.Dataset({"forward_mean": ("layer", np.zeros(3))}))
    only_backward = pp.judge(record_of(np.zeros((3, 5))))
    assert [f.direction for f in only_backward] == ["backward"]


def test_one_layer_and_one_seed_are_judged_too():
    net = pp.Network(depth=1, width=16)
    for finding in pp.judge(pp.measure(net, KEY, seeds=1, batch=4, measures="q")):
        assert finding.verdict in (V.INCONCLUSIVE, V.STABLE)
        assert math.isfinite(finding.rate)


def test_every_verdict_carries_cause_and_remedy():
    for verdict in Verdict:
        assert verdict.cause and verdict.remedy and Verdict(verdict.value) is verdict


def test_findings_print_worst_first_and_say_what_suits(findings):
    every = pp.Findings(findings.values())
    assert str(every).splitlines()[-1].split(": ")[1].startswith("stable")
    assert every.suited()["relu"] == ["he_normal"]
    assert every.suited()["sigmoid"] == []


def collapsing_in(dtype: str):
    net = pp.Network(60, 64, dtype=dtype, init=(0.9, 0.5), activation="tanh")
    return pp.judge(pp.measure(net, KEY, measures=("q", "variance"), seeds=4))[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_collapse_is_followed_to_the_rounding_of_its_dtype(dtype):
    found = collapsing_in(dtype)
    assert found.verdict is V.COLLAPSING
    assert found.rate == pytest.approx(-0.316, abs=0.05)


def test_a_selected_pairing_keeps_its_name(record):
    record = record.sel(init=["zeros", "he_normal"])
    found = pp.judge(record.sel(init="zeros", activation="tanh"))[0]
    assert (found.init, found.activation, found.verdict) == ("zeros", "tanh", V.SYMMETRIC)
    whole = pp.judge(record.sel(activation="tanh"))
    assert {(f.init, f.activation) for f in whole} == {("zeros", "tanh"), ("he_normal", "tanh")}


def test_what_an_interrupted_sweep_did_not_measure_is_not_judged(record):
    record = record.sel(init=["he_normal", "torch"], activation=["relu"], seed=[0, 1, 2])
    alone = pp.judge(record.isel(init=[0], seed=[0, 1]))
    gaps = record.copy(deep=True)
    for name in gaps:
        gaps[name][1] = np.nan
        gaps[name][0, :, 2] = np.nan
    assert str(pp.judge(gaps)) == str(alone)


def test_a_fault_of_some_seeds_says_of_how_many():
    log_q = np.zeros((4, 9))
    log_q[1, :3] = -np.inf
    found = pp.judge(record_of(log_q))[0]
    assert found.verdict is V.DEAD and "in 1 of 4 seeds" in found.reason


@pytest.mark.parametrize("options", [{"batch": 1}, {"input": "pairs", "cosine": 1.0, "batch": 4}])
def test_inputs_that_never_differed_do_not_collapse(options):
    measures = ("q", "variance", "effective_rank")  # all that the rule of collapse reads
    net = pp.Network(6, 32, activation="tanh")
    record = pp.measure(net, KEY, seeds=3, measures=measures, **options)
    assert pp.judge(record)[0].verdict is not V.COLLAPSING


def test_a_layer_of_one_unit_is_not_symmetric():
    rng = np.random.default_rng(0)
    data = {"inputs": rng.normal(size=(16, 5)), "labels": rng.normal(size=16), "loss": "mse"}
    record = pp.measure(pp.Network(1, 8), KEY, seeds=3, measures=JUDGED, **data)
    assert all(f.verdict is not V.SYMMETRIC for f in pp.judge(record))


def test_what_suits_must_be_measured_in_both_directions(record):
    record = record[["log10_forward_q"]].sel(init="he_normal", activation="relu")
    assert pp.judge(record)[0].verdict is V.STABLE
    assert pp.judge(record).suited() == {"relu": []}


def test_a_record_without_a_site_is_no_pass():
    empty = xr.Dataset({"log10_forward_q": ("site", np.zeros(0))})
    with pytest.raises(pp.UnusableInput, match="nothing was seen"):
        pp.judge(empty)


def told(record):
    """The forward finding on the one pairing of a record."""
    return next(f for f in pp.judge(record) if f.direction == "forward")


def stack_of(share, **more):
    """A record of three seeds, still in q, whose inputs' directions differ by a share."""
    rank = np.tile(1 / (1 - np.asarray(share)), (3, 1))
    variables = {"log10_forward_q": np.zeros_like(rank), "forward_effective_rank": rank} | more
    return xr.Dataset({k: (("seed", "layer"), v) for k, v in variables.items()})


def test_inputs_that_become_parallel_are_named_whatever_their_norms():
    """A share of 0.5^l of the directions is below 10^-3.5 from layer 12 on."""
    found = told(stack_of(0.5 ** np.arange(1, 22)))
    assert (found.verdict, found.layer) == (V.COLLAPSING, 11)
    assert found.rate == pytest.approx(math.log10(0.5))  # of the share, not of q, which is still
    assert "effective rank goes from 2.00 to 1.0000" in found.reason
    assert "at most 7 layers" in found.remedy  # 0.5^8 is 10^-2.4, 0.5^9 is 10^-2.7
    for healthy in (0.8 ** np.arange(1, 22), np.full(21, 1e-5), np.full(21, 0.9)):
        assert told(stack_of(healthy)).verdict is V.STABLE


def test_one_seed_whose_inputs_differ_keeps_a_stack_from_collapsing():
    record = stack_of(0.5 ** np.arange(1, 22))
    record["forward_effective_rank"][1] = 4.0
    assert told(record).verdict is V.STABLE


def test_positions_with_a_large_direction_in_common_have_not_collapsed():
    """Of positions whose mean cosine is 0.99, the effective rank decides, where it is known."""
    cosine = np.tile(np.r_[0.0, np.full(9, 0.995)], (3, 1))
    judged = {}
    for name, share in (("kept", 10 ** -np.r_[0.1, np.full(9, 2.0)]), ("lost", 0.1 ** np.r_[1:11])):
        rank = np.tile(1 / (1 - share), (3, 1))
        tokens = {"forward_token_correlation": cosine, "forward_token_effective_rank": rank}
        judged[name] = told(stack_of(np.full(10, 0.9), **tokens))
    assert judged["kept"].verdict is V.STABLE
    assert (judged["lost"].verdict, judged["lost"].layer) == (V.COLLAPSING, 1)
    assert "effective rank goes from 1.11 to 1.0000" in judged["lost"].reason


def test_attention_alone_collapses_by_rank_and_with_skips_it_does_not():
    """Dong et al. (2021), arXiv:2103.03404; cosine alone is judged in tests/blocks."""
    measures = ("q", "token_correlation", "token_effective_rank")
    found = {}
    for arrangement in ("attention", "pre"):
        net = pp.Network(6, 32, f"transformer(arrangement={arrangement})", init="xavier_normal")
        found[arrangement] = told(pp.measure(net, KEY, seeds=2, batch=4, measures=measures))
    assert found["attention"].verdict is V.COLLAPSING
    assert "to 1.0000" in found["attention"].reason and "at most" in found["attention"].remedy
    assert found["pre"].verdict is not V.COLLAPSING
