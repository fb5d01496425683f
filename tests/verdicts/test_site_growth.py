"""Totals that are true, and the layer that does it: growth and steps of custom models."""

import itertools
import re
from dataclasses import replace

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given

import propagate as pp
from propagate.verdicts import thresholds
from propagate.verdicts.along_spine import beyond, ripple, way
from propagate.verdicts.grouped import grouped
from propagate.verdicts.site_rules.grown import grown

K = jax.random.key
WIDTH = 64
X = jax.random.normal(K(9), (128, WIDTH))


def chain(curve, names=None, rows=64, units=WIDTH, **more):
    """A record of layers in a row whose log10 second moments are a curve."""
    count = len(curve)
    names = [f"w{k}" for k in range(count)] if names is None else names
    words = {
        "name": [f"{name}/{k}" for k, name in enumerate(names)],
        "kind": ["matmul"] * count,
        "label": ["matmul"] * count,
        "parameter": names,
        "after": names,
    }
    numbers = {"depth": np.arange(1, count + 1), "rows": rows, "units": units}
    record = xr.Dataset({"log10_forward_q": ("site", np.asarray(curve, float))})
    record["log10_backward_q"] = record["log10_forward_q"]
    for name, values in words.items():
        record[name] = "site", np.array(values, np.str_)
    for name, values in numbers.items():
        record[name] = "site", np.broadcast_to(values, count)
    return record.assign(more).assign_coords(site=np.arange(count))


CURVES = st.lists(st.floats(-6, 6, allow_nan=False), min_size=2, max_size=60)


@given(steps=CURVES, direction=st.sampled_from(["forward", "backward"]))
def test_a_total_is_last_less_first_of_two_sites_and_the_rate_times_the_depth(steps, direction):
    record = chain(np.cumsum([0.0, *steps]))
    level = dict(zip(record["name"].values, record[f"log10_{direction}_q"].values, strict=True))
    for one in grown(record, direction, []):
        start, end = re.search(r"from (\S+) to ([^,\s]+)", one.reason).groups()
        between = abs(list(level).index(end) - list(level).index(start))
        assert one.total == pytest.approx(level[end] - level[start], abs=1e-6)
        assert one.rate * between == pytest.approx(one.total, abs=1e-6)
        assert f"{one.total:+.2f} decades" in one.reason
        assert (one.verdict.value == "exploding") == (one.total > 0)


@given(tooth=st.lists(st.floats(-6, 0), min_size=1, max_size=8), teeth=st.integers(2, 8))
def test_a_sawtooth_that_comes_back_has_no_growth_wherever_it_ends(tooth, teeth):
    curve = np.tile([0.0, *tooth], teeth)
    assert ripple(curve, -1) == pytest.approx(-min(tooth))
    for direction in ("forward", "backward"):
        assert not list(grown(chain(curve), direction, []))


def stream(sums, skips, norms=()):
    """A record of a residual stream: sums of log10 second moments, and what each skips with."""
    record = chain(sums, names=[""] * len(sums))
    record["kind"] = "site", np.where(np.isin(np.arange(len(sums)), norms), "norm", "add")
    return record.assign(log10_skip_q=("site", np.asarray(skips, float)))


STEPS = st.lists(st.tuples(st.floats(-3, 3), st.floats(-6, 0)), min_size=5, max_size=30)


@given(steps=STEPS, direction=st.sampled_from(["forward", "backward"]))
def test_a_decay_between_turns_is_no_growth_of_what_is_recorded(steps, direction):
    """Whatever is taken off a state before the next sum, a total is that of two sums."""
    sums = np.cumsum([one for one, _ in steps])
    skips = np.append(np.nan, sums[:-1] + [decay for _, decay in steps[1:]])
    record = stream(sums, skips)
    level = dict(zip(record["name"].values, record[f"log10_{direction}_q"].values, strict=True))
    for one in grown(record, direction, []):
        start, end = re.search(r"from (\S+) to ([^,\s]+)", one.reason).groups()
        assert one.total == pytest.approx(level[end] - level[start], abs=1e-6)
    sign = 1 if direction == "forward" else -1
    assert way(record, direction).total == pytest.approx(sign * (sums[-1] - sums[0]))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_stream_that_is_normalised_behind_each_sum_is_followed_from_norm_to_norm(direction):
    """Sums that differ by decades, and norms that take that off: nothing grows; raw sums do."""
    sums, blocks = np.linspace(0.0, 6.0, 8), 8
    q = np.ravel([[s, 0.0] for s in sums])
    skips = np.where(np.arange(16) % 2 == 0, 0.0, np.nan)
    depths = np.repeat(np.arange(1, blocks + 1), 2)
    record = stream(q, skips, norms=range(1, 16, 2)).assign(depth=("site", depths))
    record["log10_backward_q"] = "site", np.ravel([[-s, 0.0] for s in sums])
    assert way(record, direction).total == 0.0
    assert not list(grown(record, direction, []))
    alone = record.assign(log10_skip_q=record["log10_skip_q"] + 1.0)  # not what the norms give
    assert len(list(grown(alone, direction, []))) == 1


def test_a_stream_goes_on_from_a_layer_behind_a_sum_and_a_net_of_two_products_is_none():
    """ALBERT's embeddings are a sum, normalised and made wider: the stream begins behind that."""
    q = np.array([-3.0, 0.0, 0.2, 0.3, 0.4, 0.5, 0.6])
    skips = np.array([np.nan, np.nan, 0.0, 0.2, 0.3, 0.4, 0.5])
    depth = np.array([1, 2, 3, 4, 5, 6, 7])
    record = stream(q, skips).assign(depth=("site", depth))
    record["kind"] = "site", np.where(np.arange(7) == 1, "matmul", "add")
    record["parameter"] = "site", np.where(np.arange(7) == 1, "wider", "")
    there = way(record, "forward")
    assert there.read.tolist() == [1, 2, 3, 4, 5, 6] and there.total == pytest.approx(0.6)
    sums, inputs = np.linspace(0.0, 2.0, 6), np.full(6, -1.0)
    both = stream(np.ravel(np.transpose([inputs, sums])), np.where(np.arange(12) % 2, -1.0, np.nan))
    both["kind"] = "site", np.tile(["matmul", "add"], 6)
    both["parameter"] = "site", np.tile(["wx", ""], 6)
    both = both.assign(depth=("site", np.repeat(np.arange(1, 7), 2)))
    there = way(both, "forward")
    assert there.read.tolist() == there.sites.tolist() and there.total == pytest.approx(2.0)


def test_a_sawtooth_that_sinks_is_vanishing():
    """A tooth of two decades, and half a decade lost in each of twelve."""
    curve = np.repeat(-0.5 * np.arange(24), 2) - np.tile([2.0, 0.0], 24)
    (one,) = grown(chain(curve), "forward", [])
    assert one.verdict.value == "vanishing" and one.total == curve[-1] - curve[0]
    assert beyond(way(chain(curve), "forward")) == pytest.approx(one.total + ripple(curve, -1))


@given(size=st.floats(1.05, 3), layers=st.integers(1, 50))
def test_a_total_counts_in_a_shallow_model_as_in_a_deep_one(size, layers):
    for sign, limit in ((1, thresholds.FINE_DECADES), (-1, -thresholds.VANISHED)):
        verdict = "exploding" if sign > 0 else "vanishing"
        beyond_it = chain(np.linspace(0, size * limit, layers + 1))
        assert {f.verdict.value for f in grown(beyond_it, "forward", [])} == {verdict}
        assert not list(grown(chain(np.linspace(0, limit / size, layers + 1)), "forward", []))


def test_layers_that_explain_a_growth_equally_are_both_named():
    curve = np.cumsum([0, 0, 0, 3, 0, 0, 3.1, 0, 0, 0])
    assert [f.parameter for f in grown(chain(curve), "forward", [])] == ["w3", "w6"]
    assert [f.parameter for f in grown(chain(-curve[::-1]), "forward", [])] == ["w4", "w7"]


def test_the_sum_of_squares_is_what_a_narrow_layer_leaves_of_a_gradient():
    """One layer of two units among 64: q of its gradient is 32 times as large, its sum the same."""
    units = np.array([64, 64, 2, 64, 64, 64])
    q = -np.log10(units / 64)
    assert np.ptp(way(chain(q, units=units), "backward").level) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("curve", "fault"),
    [
        (np.r_[np.linspace(-9, 0, 12), np.zeros(48)], None),  # from a zero state
        (np.linspace(0, 9, 60), "exploding"),
        (np.linspace(0, -9, 60), "vanishing"),
    ],
)
def test_a_loop_is_judged_once_its_transient_is_over(curve, fault):
    found = list(grown(chain(curve, ["w"] * 60), "forward", []))
    assert [f.verdict.value for f in found] == ([fault] if fault else [])
    back = list(grown(chain(curve[::-1] if fault else curve, ["w"] * 60), "backward", []))
    if fault == "vanishing":  # that a loop forgets is no fault
        assert [f.severity for f in back] == ["note"]


def stack(sizes, gain, seed=0):
    keys = jax.random.split(K(seed), len(sizes) - 1)
    pairs = zip(keys, itertools.pairwise(sizes), strict=True)
    return [jax.random.normal(k, pair) * (gain / pair[0]) ** 0.5 for k, pair in pairs]


def net(phis, scale=None):
    def model(p, x):
        for i, w in enumerate(p[:-1]):
            x = phis[i](x @ w)
            x = x * scale[i] if scale else x
        return x @ p[-1]

    return model


NETS = {
    "relu": ([64] * 7 + [10], 2.0, jax.nn.relu),
    "tanh": ([64] * 7, 1.0, jnp.tanh),
    "gelu": ([64, 128, 32, 128, 64, 96, 48, 10], 2.0, jax.nn.gelu),
}


@pytest.mark.parametrize("name", NETS)
def test_the_layer_that_is_named_is_the_one_that_does_it(name):
    """A wrong scale at every position. No other layer is ever named; the small ones are notes.

    Ten times too large or small is 2.0 decades, 2.5 times the threshold: all are named, except for
    the first layer's in front of tanh, which forgets what is large.
    """
    sizes, gain, phi = NETS[name]
    weights, model = stack(sizes, gain), net([phi] * 7)
    assert pp.diagnose(model, weights, X, key=K(0)).findings == ()
    for at in range(len(weights)):
        factor = 0.1 if at % 2 else 10.0
        planted = [w * factor if k == at else w for k, w in enumerate(weights)]
        found = pp.diagnose(model, planted, X, key=K(0)).findings
        named = {f.parameter for f in found if f.verdict.value != "saturated"}
        assert named <= {str(at)}, (factor, at, found)
        assert named or (name, at) == ("tanh", 0)
        if factor < 1:
            assert not found.faults


@pytest.mark.parametrize("at", [0, 2, 4])
def test_an_activation_or_a_factor_in_the_code_is_named_at_its_place(at):
    weights = stack([64] * 7, 2.0)
    phis = [jax.nn.sigmoid if k == at else jax.nn.relu for k in range(6)]
    (one,) = pp.diagnose(net(phis), weights, X, key=K(0)).findings
    assert (one.parameter, one.severity) == (str(at), "note") and "logistic" in one.reason
    scale = [1e-4 if k == at else 1.0 for k in range(6)]
    (one,) = pp.diagnose(net([jax.nn.relu] * 6, scale), weights, X, key=K(0)).findings
    assert one.is_fault and one.verdict.value == "vanishing"
    assert f"between {at} and {at + 1}, across a factor of 0.0001 and matmul" in one.reason


def test_the_operation_that_acts_is_named_and_not_the_rarest():
    phis = [(lambda x: jnp.exp(4 * x)) if k == 3 else jax.nn.relu for k in range(6)]
    (one,) = pp.diagnose(net(phis), stack([64] * 7, 2.0), X, key=K(0)).findings
    assert (one.site, one.verdict.value) == ("3/exp", "exploding") and one.is_fault


@pytest.mark.parametrize("layers", [(2, 4), (1, 2, 3, 4, 5)])
def test_small_layers_that_add_up_are_at_fault_together(layers):
    planted = [w / 32 if k in layers else w for k, w in enumerate(stack([64] * 7, 2.0))]
    found = pp.diagnose(net([jax.nn.relu] * 6), planted, X, key=K(0)).findings
    assert found.faults
    if len(layers) == 2:
        assert {f.parameter for f in found.faults} == {"2", "4"}


def test_in_two_layers_a_step_of_many_decades_counts():
    weights = stack([64] * 3, 2.0)
    assert pp.diagnose(net([jax.nn.relu]), weights, X, key=K(0)).findings == ()
    found = pp.diagnose(net([jax.nn.relu]), [weights[0], 1e4 * weights[1]], X, key=K(0)).findings
    assert {(f.verdict.value, f.direction, f.parameter) for f in found} == {
        ("exploding", "forward", "1"),
        ("exploding", "backward", "1"),
    }


def sites(count, verdict=pp.Verdict.SATURATED, name="cell/tanh[{}]"):
    nan = float("nan")
    made = lambda k: pp.Finding(  # noqa: E731
        "", "", "forward", verdict, nan, (nan, nan), nan, nan, k, "98% are flat", name.format(k)
    )
    return [made(k) for k in range(count)]


def test_findings_that_say_the_same_are_one():
    many = [*sites(150), *sites(2, pp.Verdict.DEAD), *sites(3, name="head{}/relu")]
    found = grouped(many)
    assert [f.site for f in found] == ["cell/tanh[0]", "cell/tanh[0]", "cell/tanh[1]", "head0/relu"]
    assert found[0].reason == "98% are flat; so at 150 places up to cell/tanh[149]"
    assert len(found[0].also) == 149 and found[0].also[-1] == "cell/tanh[149]"
    assert grouped(found) == found


def test_findings_of_equal_reasons_are_one_whatever_their_names():
    cut = lambda name: replace(sites(1)[0], parameter=name, site="", reason="stop_gradient cuts")  # noqa: E731
    names = ("0.bias", "0.kernel", "1.bias", "1.kernel")
    (one,) = grouped(map(cut, names))
    assert str(one).startswith("0.bias, forward: saturated (stop_gradient cuts; so at 0.kernel, 1.")
    assert one.also == names[1:]
    other = replace(cut("2.kernel"), direction="backward")
    assert [f.parameter for f in grouped([*map(cut, names), other])] == ["0.bias", "2.kernel"]
    assert len(grouped(map(cut, names[:2]))) == 2  # both are named


def test_groups_that_share_a_finding_are_one():
    said = lambda name, percent: replace(  # noqa: E731
        sites(1)[0], parameter=name, reason=f"{percent}% are flat"
    )
    apart = [said("head", 98), said("w1", 97)]
    assert grouped(apart) == tuple(apart)
    assert len(grouped([*apart, said("w2", 98)])) == 1


def test_a_diagnosis_begins_with_its_conclusion():
    weights = stack([64] * 7, 2.0)
    found = pp.diagnose(net([jax.nn.relu] * 6), [10 * w for w in weights], X, key=K(0))
    assert str(found).splitlines()[0] == "2 faults at 11 sites:"
    assert pp.Findings(sites(1)).conclusion(3) == "1 fault at 3 sites"
