"""Repair: planted faults, theory, healthy twins, the form of each framework, and training."""

import functools
import math
from pathlib import Path

import faults
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.cure.factors.reading import growth, worst
from propagate.models import observation

pytestmark = pytest.mark.lenient  # frameworks promote implicitly

KEY = jax.random.key(7)
GOAL = 0.02  # decades per layer, in both directions
REPAIRED = {  # each with how many parameters are changed: the fewest that do
    "all layers too large, haiku": 11,
    "a deep net without norms, keras": 17,
    "sigmoids, keras": 7,
    "one saturated tanh, function": 8,
    "saturated tanhs, nnx": 8,
    "branches without a scale, haiku": 17,
    "one branch without its scale, linen": 1,
    "scores too large, function": 7,
    "a layer of zeros, nnx": 1,
    "a branch of zeros, linen": 1,
    "constant weights, function": 1,
    "an exploding recurrence, linen": 1,
}
REFUSED = {
    "dead ReLUs, keras": "a bias",
    "a stopped gradient, haiku": "cut off",
    "NaN gradients, function": "infinite",
    "attention alone, equinox": "architecture",
    "raw inputs, linen": "its biases and inputs",
}
TWINS = (
    *("one layer too large, nnx", "one layer too small, equinox", "all layers too large, haiku"),
    *("one layer too small, keras", "one branch without its scale, linen"),
    "scores too large, function",
)


@pytest.fixture(scope="module")
def planted():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        from corpus import planted_faults, planting

        assert planted_faults
        yield planting.FAULTS


@pytest.fixture(scope="module")
def repaired(planted):
    """The repair of a planted fault, made once."""

    @functools.cache
    def made(name):
        model, inputs, options = planted[name].build(2)
        return pp.repair(model, *inputs, key=KEY, **options)

    return made


def leaves(form):
    """The arrays of a framework's form; an NNX module is no pytree."""
    if "nnx" in type(form).__module__ or hasattr(form, "__nnx_repr__"):
        from flax import nnx

        form = nnx.state(form, nnx.Param)
    return [np.asarray(x) for x in jax.tree.leaves(form) if hasattr(x, "dtype")]


def same(one, other):
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    return bool(pairs) and all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("name", REPAIRED)
def test_a_planted_fault_is_repaired_in_both_directions(repaired, name):
    fixed = repaired(name)
    assert fixed.before.findings.faults and not fixed.after.findings.faults
    assert worst(fixed.growth[1]) <= GOAL and not fixed.reasons
    assert len(fixed.multipliers.keys() | fixed.redrawn.keys()) == REPAIRED[name]


@pytest.mark.parametrize("name", TWINS)
def test_a_healthy_twin_comes_back_bit_for_bit(planted, name):
    model, inputs, options = planted[name].build(0)
    fixed = pp.repair(model, *inputs, key=KEY, **options)
    given = planted[name].build(0)
    own = {"function": given[1][0], "linen": given[2].get("variables")}
    own |= {"haiku": given[2].get("variables"), "nnx": given[0], "equinox": given[0]}
    own["keras"] = [v.value for v in getattr(given[0], "trainable_variables", ())]
    assert not fixed.changed and same(fixed.params, own[name.split(", ")[1]])
    assert "nothing to repair" in str(fixed)


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_factor_mends_is_refused_with_a_reason(planted, name):
    model, inputs, options = planted[name].build(2)
    fixed = pp.repair(model, *inputs, key=KEY, **options)
    assert not fixed.changed and fixed.after is fixed.before
    assert any(REFUSED[name] in reason for reason in fixed.reasons)
    assert len(fixed.reasons) == len(fixed.before.findings.faults)


def test_no_more_is_reached_than_factors_can(planted):
    """A factor moves both directions alike, so half of their difference is left of the larger."""
    model, inputs, options = planted["a call that multiplies, function"].build(2)
    fixed = pp.repair(model, *inputs, key=KEY, **options)
    before, after = fixed.growth
    least = abs(before["forward"] - before["backward"]) / 2
    assert worst(after) == pytest.approx(least, abs=0.01)
    assert "what the two differ by" in fixed.reasons[0]


def test_the_scales_are_those_of_theory(repaired):
    """He's for ReLU; the sigmoid's edge of chaos at sigma_w² = 103.008; 1 + rho at an addition."""

    def sigma2(name):
        fixed = repaired(name)
        weights = fixed.after.record[["weight", "log10_weight_sigma2"]].set_index(weight="weight")
        chosen = weights["log10_weight_sigma2"].sel(weight=list(fixed.multipliers))
        return fixed, 10**chosen.values

    _, relu = sigma2("all layers too large, haiku")
    assert np.mean(relu) == pytest.approx(2.0, rel=0.1)
    _, sigmoid = sigma2("sigmoids, keras")
    assert np.mean(sigmoid[:-1]) == pytest.approx(103.008, rel=0.15)
    stream, _ = sigma2("branches without a scale, haiku")
    least = math.sqrt(10 ** (0.9 * GOAL * 2) - 1)  # of a branch as large as its skip
    assert np.median([*stream.multipliers.values()]) == pytest.approx(least, rel=0.05)


RUN = {
    "function": lambda model, form, x: model(form, x),
    "linen": lambda model, form, x: model.apply(form, x),
    "nnx": lambda model, form, x: form(x),
    "equinox": lambda model, form, x: jax.vmap(form)(x),
    "haiku": lambda model, form, x: model.apply(form, None, x),
    "keras": lambda model, form, x: np.asarray(model(x)),
}


@pytest.mark.parametrize("framework", faults.FRAMEWORKS)
def test_it_returns_the_frameworks_own_form_and_the_code_for_it(planted, framework):
    """The form runs as that framework runs it; the lines of code make the same of the model."""
    from corpus.planted_faults import one_scaled

    path = faults.PATHS[framework].format(5)
    model, inputs, options = one_scaled(framework, 2, 1)
    given = {"nnx": model, "equinox": model}.get(framework, options.get("variables", inputs[0]))
    fixed = pp.repair(model, *inputs, key=KEY, **options)
    assert list(fixed.multipliers) == [path]
    assert fixed.multipliers[path] == pytest.approx(10**-1.5, rel=0.1)
    assert worst(fixed.growth[1]) <= GOAL
    if framework == "keras":
        untouched = [np.asarray(v.value) for v in model.trainable_variables]
        assert not same(fixed.params, untouched)
        fixed.set_weights()
    else:
        assert type(fixed.params) is type(given)
        with pytest.raises(pp.UnusableInput, match="set_weights is for Keras"):
            fixed.set_weights()
    out = RUN[framework](model, fixed.params, inputs[-1])
    q = 10 ** float(fixed.after.record["log10_forward_q"].values[-1])
    assert float(np.mean(np.square(out))) == pytest.approx(q, rel=1e-4)
    again, own, options = one_scaled(framework, 2, 1)
    names = {"jax": jax, "model": again, "params": own[0], "variables": options.get("variables")}
    if framework == "haiku":
        names["params"] = options["variables"]
    if framework == "equinox":
        import equinox

        names["eqx"] = equinox
    exec(fixed.code(), names)
    made = {"linen": names["variables"], "nnx": names["model"], "equinox": names["model"]}
    if framework == "keras":
        made["keras"] = [v.value for v in again.trainable_variables]
    pairs = zip(leaves(made.get(framework, names["params"])), leaves(fixed.params), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-3)


def chain(count=10, width=64, gain=2.0):
    keys = jax.random.split(jax.random.key(2), count)
    return [jax.random.normal(k, (width, width)) * (gain / width) ** 0.5 for k in keys]


def relu_net(params, x):
    for w in params:
        x = jax.nn.relu(x @ w)
    return x


X = jax.random.normal(jax.random.key(3), (64, 64))


def test_a_layer_of_a_stack_has_a_factor_of_its_own():
    """A scan over stacked weights: one slice is changed, the others stay as they are."""
    stack = jnp.stack(chain()).at[4].multiply(100.0)
    run = lambda w, x: jax.lax.scan(lambda x, w: (jax.nn.relu(x @ w), None), x, w)[0]  # noqa: E731
    fixed = pp.repair(run, stack, X, key=KEY)
    assert list(fixed.multipliers) == ["params[4]"]
    others = np.delete(np.arange(10), 4)
    assert np.array_equal(np.asarray(fixed.params)[others], np.asarray(stack)[others])


def test_one_array_in_two_places_stays_one():
    weights = chain()
    weights[6] = weights[3] = weights[3] * 30.0
    fixed = pp.repair(relu_net, weights, X, key=KEY)
    assert list(fixed.multipliers) == ["3"]
    assert fixed.params[3] is fixed.params[6] and worst(fixed.growth[1]) <= 2 * GOAL


def test_a_weight_that_is_used_twice_gets_one_factor():
    """Twelve layers share one matrix, as the turns of an unrolled recurrence do."""
    q = jax.nn.initializers.orthogonal(1.5)(KEY, (64, 64))

    def run(params, x):
        for _ in range(12):
            x = x @ params["w"]
        return x

    fixed = pp.repair(run, {"w": q}, X, key=KEY)
    assert fixed.multipliers == {"w": pytest.approx(1 / 1.5, rel=1e-3)}


def test_gains_biases_and_zeros_that_are_meant_stay():
    """A ReZero stream whose one weight is too large: beside that, nothing is touched."""
    weights = chain(12)
    weights[5] = weights[5] * 1000.0
    params = {"w": weights, "b": [jnp.ones(64)] * 12, "gain": jnp.full((12, 64), 0.3)}
    params["zero"] = jnp.zeros((12,))

    def run(p, x):
        for k, (w, b) in enumerate(zip(p["w"], p["b"], strict=True)):
            h = jax.nn.relu(x @ w) + p["zero"][k] * b[None]
            x = h + p["zero"][k] * p["gain"][k][None]
        return x

    fixed = pp.repair(run, params, X, key=KEY)
    assert list(fixed.multipliers) == ["w.5"]
    assert all(fixed.params[k] is params[k] or same(fixed.params[k], params[k]) for k in "b")
    assert same(fixed.params["gain"], params["gain"]) and same(fixed.params["zero"], params["zero"])


def test_the_program_is_compiled_once(monkeypatch):
    calls, whole = [], observation._compiled
    monkeypatch.setattr(
        observation, "_compiled", lambda *args, **kw: calls.append(1) or whole(*args, **kw)
    )
    fixed = pp.repair(relu_net, chain(gain=0.7), X, key=KEY)
    assert fixed.measured > 1 and len(calls) == 1


def test_growth_can_be_asked_for_of_a_healthy_model():
    weights = chain(gain=1.5)
    assert not pp.repair(relu_net, weights, X, key=KEY).changed
    fixed = pp.repair(relu_net, weights, X, key=KEY, growth=0.01)
    assert fixed.changed and worst(fixed.growth[1]) < worst(growth(fixed.before.record)) / 3


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, "small"])
def test_growth_must_be_positive(wrong):
    with pytest.raises(pp.UnusableInput, match="growth must be a positive number"):
        pp.repair(relu_net, chain(), X, key=KEY, growth=wrong)


def test_the_table_the_picture_and_the_sentences_tell_the_same():
    weights = chain()
    weights[4] = weights[4] * 100.0
    fixed = pp.repair(relu_net, weights, X, key=KEY)
    text = " ".join(str(fixed.table()).split())  # it is as wide as the terminal
    assert "what was changed of relu_net" in text and str(fixed) in text and "he_normal" in text
    ax = fixed.plot()
    assert [line.get_label().split(", ")[1] for line in ax.lines] == 2 * ["before"] + 2 * ["after"]
    spans = [np.ptp(line.get_ydata()) for line in ax.lines]
    assert min(spans[:2]) > 3 and max(spans[2:]) < 1
    assert fixed.summary()["multipliers"] == fixed.multipliers


SEEDS, RATES, STEPS = 3, (0.001, 0.01, 0.1, 1.0), 100


def stack_of(gain, phi, count):
    def build(key):
        keys = jax.random.split(key, count)
        return [jax.random.normal(k, (64, 64)) * (gain / 64) ** 0.5 for k in keys]

    def run(params, x):
        for w in params[:-1]:
            x = phi(x @ w)
        return x @ params[-1]

    return build, run


def unscaled_residual(count):
    build, _ = stack_of(1.0, jnp.tanh, 2 * count)

    def run(params, x):
        for k in range(count):
            x = x + 2.0 * jax.nn.relu(x @ params[2 * k]) @ params[2 * k + 1]
        return x

    return build, run


TRAINED = {
    "sigmoids": stack_of(1.0, jax.nn.sigmoid, 7),
    "too small": stack_of(0.7, jax.nn.relu, 12),
    "unscaled residual": unscaled_residual(12),
}


@pytest.mark.parametrize("name", TRAINED)
def test_the_repaired_model_trains_where_the_original_does_not(name):
    """Loss after 100 steps of SGD, at the best of four rates, of each of three seeds."""
    build, run = TRAINED[name]
    labels = jnp.argmax(X @ jax.random.normal(jax.random.key(5), (64, 4)), axis=-1)

    def loss(params):
        logits = run(params, X)[:, :4]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(64), labels])

    @jax.jit
    def trained(params):
        def at(rate):
            def step(params, _):
                grads = jax.grad(loss)(params)
                return jax.tree.map(lambda w, g: w - rate * g, params, grads), None

            return loss(jax.lax.scan(step, params, None, STEPS)[0])

        return jax.lax.map(at, jnp.array(RATES))

    for seed in range(SEEDS):
        start = build(jax.random.key(seed))
        fixed = pp.repair(run, start, X, key=KEY)
        assert fixed.changed
        ends = []
        for params in (start, fixed.params):
            got = trained(params)
            ends.append(float(jnp.min(jnp.where(jnp.isfinite(got), got, jnp.inf))))
        assert ends[1] < 0.2 < 1.0 < ends[0]
