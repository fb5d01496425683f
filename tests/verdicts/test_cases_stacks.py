"""Stacks that were judged wrongly, each beside its healthy twin."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
import xarray as xr

import propagate as pp
from propagate.distributions import Scale
from propagate.initializers import initializer
from propagate.report import sweep_table
from propagate.verdicts.findings import Verdict
from propagate.verdicts.growth import Growth, growth, settles, with_total

KEY = jax.random.key(0)
V = Verdict


@functools.cache
def swept(family, measures=None):
    """Return a record of healthy weights and of zeros, compiled once for a family."""
    inits = ["zeros", "lecun_normal", "he_normal"]
    return pp.sweep(
        pp.Network(6, 16, family), init=inits, key=KEY, seeds=3, batch=4, measures=measures
    )


def judged(family, init, measures=None):
    return pp.judge(swept(family, measures).sel(init=init))


@pytest.mark.parametrize(
    "family",
    ["residual(branch=fixup)", "residual(branch=skipinit)", "residual", "transformer(norm=none)"],
)
def test_a_skip_connection_past_weights_of_zero_is_untrained(family):
    """Fixup's own zeros, and a branch that is scaled by zero, are trained from the first step."""
    backward = judged(family, "zeros")[1]
    assert backward.verdict is V.UNTRAINED and "every layer" in backward.reason
    assert "not zero" in backward.remedy
    assert judged(family, "zeros").suited() == {"relu": []}
    assert all(f.verdict is not V.UNTRAINED for f in judged(family, "lecun_normal"))


def all_equal(key, shape, dtype):
    return jax.numpy.full(shape, 0.02, dtype)


BIASED = dataclasses.replace(initializer("constant_0.01"), name="biased", bias=Scale(0.1))


@pytest.mark.parametrize(
    "family", ["residual(branch=fixup)", "residual", "transformer(norm=layer)"]
)
def test_units_within_a_branch_that_are_one_unit_are_symmetric(family):
    """The stream differs by unit; on the digits, fixup learns 0.19 so, and 0.87 with He."""
    inits = ["zeros", "constant_0.01", all_equal, "he_normal", "orthogonal", "identity"]
    net = pp.Network(4, 16, family, activation="sigmoid")
    record = pp.sweep(net, init=inits, key=KEY, seeds=2, batch=4, measures="q")
    found = pp.judge(record)
    for init in ("zeros", "constant_0.01", "all_equal"):
        own = [f for f in found if f.init == init]
        assert [f.verdict for f in own] == [V.SYMMETRIC] * 2
        assert "units within every branch" in own[0].reason
        assert "constant" not in str(found.suited())
    healthy = [f for f in found if f.init in ("he_normal", "orthogonal", "identity")]
    assert healthy and all(f.verdict is not V.SYMMETRIC for f in healthy)


@pytest.mark.parametrize(
    ("family", "init"),
    [
        ("residual(maps=1)", "constant_0.01"),
        ("residual(dropout=0.5)", "constant_0.01"),
        ("residual", BIASED),
    ],
)
def test_units_that_differ_in_training_are_not_symmetric(family, init):
    """One weight has no units within; masks and biases tell them apart."""
    net = pp.Network(4, 16, family, init=init)
    record = pp.measure(net, KEY, seeds=2, batch=4, measures="q")
    assert all(f.verdict is not V.SYMMETRIC for f in pp.judge(record))


def test_healthy_branches_that_start_at_zero_are_recommended():
    for branch in ("fixup", "skipinit", "rezero"):
        found = judged(f"residual(branch={branch})", "he_normal")
        assert found.suited() == {"relu": ["he_normal"]}, branch


def record_of(rates, gradients, **attrs) -> xr.Dataset:
    """A record of 8 layers whose log10 q grows at `rates`, one for each seed."""
    log_q = np.outer(rates, np.arange(9.0))
    variables = {"log10_forward_q": log_q, "log10_backward_q": log_q}
    if gradients is not None:
        variables["log10_weight_gradient_q"] = np.tile([np.nan, *gradients], (len(rates), 1))
    return xr.Dataset({k: (("seed", "layer"), v) for k, v in variables.items()}, attrs=attrs)


def test_the_layers_whose_weights_get_no_gradient_are_named():
    some = [0.0, 0.0, -np.inf, -np.inf, 0.0, 0.0, 0.0, 0.0]
    found = pp.judge(record_of(np.zeros(3), some))[1]
    assert (found.verdict, found.layer) == (V.UNTRAINED, 3)
    assert "2 of 8 layers, from layer 3 on" in found.reason
    shared = record_of(np.zeros(3), some, parameters='{"shared": true}')
    assert pp.judge(shared)[1].verdict is V.STABLE  # other steps train the same weights


def test_what_was_not_seen_is_not_recommended():
    found = judged("residual(branch=fixup)", "he_normal", measures=("q",))
    assert found.suited() == {"relu": []} and "log10_weight_gradient_q not" in found[1].reason
    assert "none is known to suit" in sweep_table.advice(found)
    assert judged("mlp", "he_normal", measures=("q",)).suited() == {"relu": ["he_normal"]}


@pytest.mark.parametrize("family", ["residual(branch=nf)", "conv2d", "mlp(norm=layer)"])
def test_theory_without_a_band_stands_beside_the_verdict(family):
    net = pp.Network(8, 16, family)
    record = pp.measure(net, KEY, seeds=3, batch=4, measures=("q",))
    for alone, beside in zip(pp.judge(record), pp.judge(record, pp.predict(net)), strict=True):
        assert (alone.verdict, alone.interval) == (beside.verdict, beside.interval)
        assert "theory, which has no band here, expects" in beside.reason
    with pytest.raises(pp.UnusableInput, match="limit of wide layers"):
        pp.departures(record, pp.predict(net))


def test_theory_decides_where_seeds_cannot():
    """He + ReLU at width 64: the log10 of one network scatters by 0.9 decades over 50 layers."""
    net = pp.Network(50, 64)
    records = [pp.measure(net, jax.random.key(k), seeds=1, measures=("q",)) for k in range(6)]
    found = [f for record in records for f in pp.judge(record)]
    assert {f.verdict for f in found} == {V.STABLE}
    asked = [f for f in found if "is within its band" in f.reason]
    assert asked and len(asked) < len(found)
    names = ["log10_forward_q_expected", "log10_forward_q_expected_sd"]
    plain = [record.drop_vars(names, errors="ignore") for record in records]
    plain = [record.drop_vars([n for n in record if "expected" in n]) for record in plain]
    assert V.INCONCLUSIVE in {f.verdict for record in plain for f in pp.judge(record)}


def test_theory_is_not_believed_where_the_measurement_leaves_its_band():
    layers = np.arange(41.0)
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(-0.06, 0.1, (3, 41)), axis=-1)
    record = xr.Dataset({"log10_forward_q": (("seed", "layer"), walk)})
    assert pp.judge(record)[0].verdict is V.INCONCLUSIVE
    for slope, believed in ((-0.06, True), (0.0, False)):
        theory = {
            "log10_forward_q_expected": ("layer", slope * layers),
            "log10_forward_q_expected_sd": ("layer", 0.1 * np.sqrt(layers + 1)),
        }
        verdict = pp.judge(record.assign(theory))[0].verdict
        assert (verdict is not V.INCONCLUSIVE) == believed, slope


def test_a_rate_settles_exactly_where_the_verdict_is_not_inconclusive():
    rng = np.random.default_rng(1)
    walks = np.cumsum(rng.normal(0.05, 0.3, (40, 3, 31)), axis=-1)
    for direction in ("forward", "backward"):
        for seeds in (1, 2, 3):
            said = settles(walks[:, :seeds], direction)
            for walk, settled in zip(walks[:, :seeds], said, strict=True):
                name = f"log10_{direction}_q"
                record = xr.Dataset({name: (("seed", "layer"), walk)})
                assert settled == (pp.judge(record)[0].verdict is not V.INCONCLUSIVE)
                assert math.isfinite(growth(walk, direction).rate)
    lost = walks[:1].copy()
    lost[0, 0, 3] = -np.inf
    assert settles(lost, "forward").all()


def test_weights_that_do_not_follow_from_the_key_are_noticed():
    def own_generator(key, shape, dtype):
        return np.random.normal(size=shape).astype(dtype) / shape[0] ** 0.5

    def own_seed(key, shape, dtype):
        return np.random.default_rng(0).normal(size=shape).astype(dtype) / shape[0] ** 0.5

    def from_key(key, shape, dtype):
        return jax.random.normal(key, shape, dtype) / shape[0] ** 0.5

    net = pp.Network(4, 8)
    options = {"key": KEY, "seeds": 3, "batch": 4, "measures": ("q",)}
    with pytest.raises(pp.UnusableInput, match="own_generator gave different weights for one key"):
        pp.sweep(net, init=["he_normal", own_generator], **options)
    found = pp.judge(pp.sweep(net, init=[own_seed, from_key], **options))
    assert {f.init for f in found if "the same for every key" in f.reason} == {"own_seed"}


def test_seeds_that_are_equal_are_said_to_say_nothing():
    found = pp.judge(record_of(np.full(3, 0.01), None))
    assert all("the 3 seeds are equal to the last digit" in f.reason for f in found)
    assert "equal" not in pp.judge(record_of([0.01, 0.02, 0.01], None))[0].reason


def test_a_record_of_nothing_but_nan_is_an_error():
    record = swept("residual").sel(init="he_normal")
    with pytest.raises(pp.UnusableInput, match="something was measured"):
        pp.judge(record * np.nan)
    half = record.assign(log10_backward_q=record.log10_backward_q * np.nan)
    assert [f.direction for f in pp.judge(half)] == ["forward"]
    assert pp.judge(half).suited() == {"relu": []}


def stable(init, rate, half):
    ends = (rate - half, rate + half)
    both = ("forward", "backward")
    return [pp.Finding(init, "relu", d, V.STABLE, rate, ends, 0.0, 99.0, None, "") for d in both]


@pytest.mark.parametrize("change", [-0.001, 0.001])
def test_chance_does_not_reorder_what_suits(change):
    he, own = stable("he", 0.004, 0.02), stable("own", 0.004 + change, 0.02)
    slow = stable("slow", 0.04, 0.001)
    for order, names in (((slow, he, own), ["he", "own"]), ((own, slow, he), ["own", "he"])):
        findings = pp.Findings(f for pair in order for f in pair)
        assert findings.suited() == {"relu": [*names, "slow"]}
        assert sweep_table.best(findings) == {"relu": names[0]}


def test_a_remedy_names_nothing_that_the_pairing_does_not_have():
    inits = ["he_normal", "torch", "sigma(1,0.5)"]
    net = pp.Network(20, 64, activation="sigmoid")
    measures = ("q", "variance")
    found = pp.judge(pp.sweep(net, init=inits, key=KEY, seeds=3, batch=8, measures=measures))
    forward = {f.init: f for f in found if f.direction == "forward"}
    assert {f.verdict for f in forward.values()} == {V.COLLAPSING}
    assert forward["he_normal"].remedy == "a larger scale"
    assert all("bias" in forward[init].remedy for init in inits[1:])


@functools.cache
def of_formula(formula):
    """Return the findings on a small stack with an activation of one's own."""
    net = pp.Network(6, 16, init="he_normal", activation=formula)
    measures = ("q", "variance", "zero_fraction", "dead_fraction")
    return pp.judge(pp.measure(net, KEY, seeds=2, batch=8, measures=measures))


def test_an_activation_that_is_nan_somewhere_is_told_from_one_that_overflows():
    for formula in ("sqrt(h)", "log(h)"):
        for found in of_formula(formula):
            assert found.verdict is V.NON_FINITE and "NaN from layer" in found.reason
            assert "no value at some h" in found.reason and "value at every h" in found.remedy
    assert {f.verdict for f in of_formula("h**5")} == {V.OVERFLOWED}  # inf - inf is NaN, too
    assert V.NON_FINITE not in {f.verdict for f in of_formula("sqrt(abs(h))")}


def test_a_constant_activation_tells_nothing_apart():
    forward, backward = of_formula("0*h + 1")
    assert forward.verdict is V.COLLAPSING and "is zero from layer 1 on" in forward.reason
    assert backward.verdict is V.DEAD and "nan" not in f"{forward} {backward}"


def test_growth_that_had_not_settled_is_told_from_rate_times_depth():
    assert "decades per layer once settled, +3.13 decades" in with_total(
        Growth(0.125, 0, 0, 3.13, 20)
    )
    assert "per layer, +2.51 decades" in with_total(Growth(0.125, 0, 0, 2.51, 20))


def test_severity_is_that_of_what_is_claimed():
    found = pp.judge(swept("mlp").sel(init=["zeros", "he_normal"]))
    assert {(f.verdict, f.severity) for f in found} == {
        (V.SYMMETRIC, "fault"),
        (V.STABLE, "none"),
    }
    assert len(str(found).splitlines()) == 4  # what is stable is said, too
