"""Advice: each remedy answers a planted fault, and what is predicted comes true."""

import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.batches import Batch
from propagate.cure.remedies import effect
from propagate.cure.site_remedies import SITE_REMEDIES
from propagate.cure.stack_proposals import Case
from propagate.cure.stack_remedies import STACK_REMEDIES, proposals
from propagate.verdicts.findings import Verdict
from propagate.verdicts.thresholds import FINE_DECADES

KEY = jax.random.key(0)
SMALL = {"seeds": 3, "batch": 8, "measures": ("q", "variance")}


def finding(verdict, rate=0.0, half=0.01, direction="forward"):
    fine = FINE_DECADES / abs(rate) if rate else math.inf
    interval = (rate - half, rate + half)
    return pp.Finding("he", "relu", direction, verdict, rate, interval, 9.0, fine, None, "why")


def both(verdict, rate=-0.5):
    return pp.Findings(finding(verdict, rate, direction=d) for d in ("forward", "backward"))


# stacks


CASES = {
    "mlp": Case(pp.Network(8, 8, init="xavier_uniform"), both(Verdict.VANISHING)),
    "torch": Case(pp.Network(8, 8, init="torch"), both(Verdict.COLLAPSING)),
    "zeros": Case(pp.Network(8, 8, "conv1d", init="zeros"), both(Verdict.SYMMETRIC)),
    "residual": Case(pp.Network(8, 8, "residual"), both(Verdict.EXPLODING)),
    "lstm": Case(pp.Network(8, 8, "lstm"), both(Verdict.VANISHING)),
    "post": Case(pp.Network(8, 8, "transformer(arrangement=post)"), both(Verdict.EXPLODING)),
    "half": Case(pp.Network(8, 8, dtype="float16"), both(Verdict.OVERFLOWED)),
    "raw": Case(
        pp.Network(8, 8), both(Verdict.SATURATED), Batch(5 + np.arange(32.0).reshape(4, 8))
    ),
}


@pytest.mark.parametrize("remedy", STACK_REMEDIES, ids=lambda r: r.name)
def test_each_remedy_of_stacks_proposes_a_changed_network(remedy):
    made = [
        (case, one)
        for case in CASES.values()
        if {f.verdict for f in case.findings} & set(remedy.of)
        for one in remedy.propose(case)
    ]
    assert made and remedy.reason and remedy.source
    for case, one in made:
        assert one.what and (one.net != case.net or one.inputs is not None)


def test_each_fault_of_a_stack_has_a_remedy():
    faults = set(Verdict) - {Verdict.STABLE, Verdict.DEPARTING, Verdict.NON_FINITE}
    for verdict in faults:
        case = Case(pp.Network(8, 8, init="xavier_uniform"), both(verdict))
        assert proposals(case), verdict


def test_exact_scales():
    said = {name: [one.what for _, one in proposals(case)] for name, case in CASES.items()}
    assert any("weights 1.414 times as large (sigma_w² = 2)" in one for one in said["mlp"])
    assert any("1/√L = 0.354" in one for one in said["residual"])
    assert any("alpha = 2 and beta = 0.354" in one for one in said["post"])  # (2L)^1/4, (8L)^-1/4
    assert any("forget bias 1 (a cell's memory of 3.19 steps)" in one for one in said["lstm"])
    assert any("subtract 20.5, divide by 9.23" in one for one in said["raw"])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (finding(Verdict.VANISHING, -0.5), finding(Verdict.STABLE, -0.01), "cures"),
        (finding(Verdict.VANISHING, -0.5), finding(Verdict.VANISHING, -0.1), "helps"),
        (finding(Verdict.VANISHING, -0.5), finding(Verdict.VANISHING, -0.4), "none"),
        (finding(Verdict.VANISHING, -0.5), finding(Verdict.VANISHING, -0.1, 0.3), "none"),
        (finding(Verdict.VANISHING, -0.1), finding(Verdict.EXPLODING, 0.5), "hurts"),
        (finding(Verdict.STABLE, 0.01), finding(Verdict.EXPLODING, 0.2), "hurts"),
        (finding(Verdict.STABLE, 0.01), finding(Verdict.INCONCLUSIVE, 0.2), "none"),
        (finding(Verdict.STABLE, 0.01), finding(Verdict.STABLE, 0.02), "none"),
        (finding(Verdict.DEAD, math.nan), finding(Verdict.VANISHING, -0.1), "helps"),
        (finding(Verdict.VANISHING, -0.1), finding(Verdict.DEAD, math.nan), "hurts"),
    ],
)
def test_a_change_helps_beyond_what_the_intervals_leave_open(before, after, expected):
    assert effect(before, after) == expected


def test_what_helps_one_direction_and_hurts_the_other_says_so():
    before = pp.Findings(
        [finding(Verdict.STABLE), finding(Verdict.VANISHING, -0.5, 0.01, "backward")]
    )
    after = pp.Findings(
        [finding(Verdict.EXPLODING, 0.5), finding(Verdict.STABLE, 0.0, 0.01, "backward")]
    )
    one = pp.Change(before[1], "scale", "more", "why", "who", before=before, after=after)
    assert one.helps and not one.cures and one.hurts == ("forward",)
    assert "forward stable +0.000 → exploding +0.500, which is worse; backward" in str(one)


@pytest.fixture(scope="module")
def measured():
    return pp.sweep(
        pp.Network(20, 64),
        init=["lecun_normal", "he_normal"],
        activation=["relu"],
        key=KEY,
        **SMALL,
    )


@pytest.fixture(scope="module")
def advised(measured):
    options = {k: v for k, v in SMALL.items() if k == "measures"}
    return pp.advise(measured.sel(init=["lecun_normal"]), most=1, **options)


def test_a_change_of_a_stack_is_measured_before_it_is_shown(advised):
    (best,) = advised
    assert best.cures and best.net is not None and best.net.init.name == "critical"
    again = pp.judge(pp.measure(best.net, KEY, **SMALL))
    assert [f.verdict for f in again] == [Verdict.STABLE, Verdict.STABLE]
    assert [f.rate for f in again] == pytest.approx([f.rate for f in best.after])
    assert best.effects == {"forward": "cures", "backward": "cures"}
    assert "lecun_normal + relu" in str(advised) and "→ stable" in str(advised)
    (told,) = json.loads(json.dumps(advised.plain(), allow_nan=False))
    assert told["network"]["init"] == "critical" and told["after"]["forward"]["verdict"] == "stable"


def test_a_stack_with_something_fine_gets_no_advice(measured):
    assert pp.advise(measured) == ()
    assert pp.advise(pp.Network(12, 32), key=KEY, **SMALL) == ()


def test_bad_use_gets_one_line(measured):
    unfit = measured.sel(init=["lecun_normal"])
    own = measured.assign_coords(activation=["mine"]).sel(init=["lecun_normal"])
    for found, options, words in (
        (pp.Network(4, 8), {}, "pass key="),
        (unfit.drop_attrs(), {}, "pass key="),
        (unfit.assign_attrs(input="my.npz"), {}, "pass inputs="),
        (own, {}, "pass the Network itself"),
        (unfit, {"most": 0}, "most must be"),
        ([], {}, "got list"),
        (chain(jax.nn.relu, 1.0), {"seeds": 3}, "needs no key and no options, got seeds"),
    ):
        with pytest.raises(pp.UnusableInput, match=words):
            pp.advise(found, **options)


# custom models


N, ROWS = 64, 64
X = jax.random.normal(jax.random.key(9), (ROWS, N))


def weights(sigma_w2, layers=12, n=N):
    keys = jax.random.split(jax.random.key(5), layers)
    return {"layers": [{"w": jax.random.normal(k, (n, n)) * (sigma_w2 / n) ** 0.5} for k in keys]}


def forward(phi, params, x):
    for layer in params["layers"]:
        x = phi(x @ layer["w"])
    return x


def stream(params, x, scale=1.0):
    for layer in params["layers"]:
        x = x + scale * (jax.nn.relu(x) @ layer["w"])
    return x


def looped(params, x):
    return jax.lax.scan(lambda h, _: (h @ params["w"], None), x, None, length=12)[0]


def lstm(params, x):
    def step(state, _):
        c, h = state
        i, f, g, o = jnp.split(h @ params["w"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (c, jax.nn.sigmoid(o) * jnp.tanh(c)), None

    return jax.lax.scan(step, (x, x), None, length=24)[0][0]


def biased(params, x):
    h = jax.nn.relu(x @ params["a"]["w"] + params["a"]["b"][None])
    return h @ params["c"]["w"]


def attend(params, x):
    q, k = (x @ params[name] for name in ("q", "k"))
    return jax.nn.softmax(q @ k.T) @ x


def rooted(params, x):
    return jnp.sqrt(jnp.maximum(x @ params["w"], 0.0))


def stopped(params, x):
    return jax.lax.stop_gradient(x @ params["w"]) @ params["v"]


def run(model, params, x=X, **options):
    return pp.diagnose(model, params, x, key=KEY, **options)


def chain(phi, sigma_w2, layers=12, x=X):
    return run(functools.partial(forward, phi), weights(sigma_w2, layers), x)


def odd(k, factor, phi=jax.nn.relu, at=None):
    """A chain with one weight, or one activation, that is not like its peers."""
    params = weights(2.0)
    params["layers"][k]["w"] = params["layers"][k]["w"] * factor

    def model(params, x):
        for j, layer in enumerate(params["layers"]):
            x = (phi if j == at else jax.nn.relu)(x @ layer["w"])
        return x

    return run(model, params)


def odd_branch():
    params = weights(2.0)

    def model(params, x):
        for k, layer in enumerate(params["layers"]):
            x = x + (1.0 if k == 5 else 12**-0.5) * (jax.nn.relu(x) @ layer["w"])
        return x

    return run(model, params)


def classified():
    params = {"a": weights(2.0, 1)["layers"][0]["w"], "c": 30 * jax.random.normal(KEY, (N, 8))}
    model = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["c"]  # noqa: E731
    labels = jnp.arange(ROWS) % 8
    return run(model, params, loss="cross_entropy", labels=labels)


def halved(sigma_w2, scale):
    """In float16, with a loss so many times the mean square."""
    params = jax.tree.map(lambda w: w.astype(jnp.float16), weights(sigma_w2, 6))
    loss = lambda out, _: scale * jnp.mean(out.astype(jnp.float32) ** 2)  # noqa: E731
    return run(functools.partial(forward, jax.nn.relu), params, X.astype(jnp.float16), loss=loss)


def square(key, n=N, m=N):
    return jax.random.normal(jax.random.key(key), (n, m)) / n**0.5


PLANTED = {
    "too small a weight": lambda: odd(5, 0.03),
    "one sigmoid": lambda: odd(5, 1.0, jax.nn.sigmoid, at=5),
    "a branch without its scale": odd_branch,
    "Xavier + ReLU": lambda: chain(jax.nn.relu, 0.5),
    "He, and halved": lambda: chain(lambda h: 0.5 * jax.nn.relu(h), 2.0),
    "plain residual": lambda: run(stream, weights(2.0)),
    "exploding loop": lambda: run(looped, {"w": 2 * square(1)}),
    "forgetting LSTM": lambda: run(lstm, {"w": square(1, N, 4 * N)}),
    "dead by its bias": lambda: run(
        biased, {"a": {"w": square(1), "b": jnp.full(N, -20.0)}, "c": {"w": square(2)}}
    ),
    "dead by a number": lambda: chain(lambda h: jax.nn.relu(h - 8.0), 2.0, 2),
    "raw inputs": lambda: chain(jax.nn.relu, 2.0, 3, 80 * X + 120),
    "equal weights": lambda: run(lambda p, x: x @ p["w"], {"w": jnp.ones((N, N))}),
    "saturated": lambda: chain(jnp.tanh, 200.0, 5),
    "attention without its scale": lambda: run(attend, {"q": 4 * square(1), "k": 4 * square(2)}),
    "sure of itself": classified,
    "gradients below float16": lambda: halved(2.0, 1e-7),
    "signals above float16": lambda: halved(200.0, 1.0),
    "root of zero": lambda: run(rooted, {"w": square(1)}),
    "stopped": lambda: run(stopped, {"w": square(1), "v": square(2)}),
}


@pytest.fixture(scope="module")
def planted():
    found = {name: make() for name, make in PLANTED.items()}
    return {name: (one, pp.advise(one)) for name, one in found.items()}


def test_each_remedy_of_custom_models_answers_a_planted_fault(planted):
    given = {(c.remedy, c.reason) for _, advice in planted.values() for c in advice}
    missed = [r.propose.__name__ for r in SITE_REMEDIES if (r.name, r.reason) not in given]
    assert not missed


@pytest.mark.parametrize("name", PLANTED)
def test_advice_names_what_is_there(planted, name):
    found, advice = planted[name]
    assert advice, found.findings.text(notes=True)
    paths = {*found.record["weight"].values, "loss"}
    for one in advice:
        assert (
            one.what
            and one.predicted
            and one.reason
            and one.source
            and one.finding in found.findings
        )
        assert all(path in paths and math.isfinite(f) and f >= 0 for path, f in one.factors)
    json.dumps(advice.plain(), allow_nan=False)
    assert len(str(advice).splitlines()) == len(advice) >= len(advice.first())


def test_a_healthy_model_gets_no_advice():
    assert pp.advise(chain(jax.nn.relu, 2.0)) == ()


def totals(found):
    q = found.record["log10_forward_q"].values
    sites = found.record["kind"].values
    at = np.flatnonzero(sites == ("add" if (sites == "add").any() else "matmul"))
    return float(q[at[-1]] - q[at[0]])


def predicted(change, subject="signal"):
    return float(change.predicted.split(f"{subject} ")[1].split("→ ")[1].split()[0].strip(";,"))


def scaled(params, change):
    """The model's parameters times the factors of a change, as `layers.3.w` says."""
    factors = dict(change.factors)
    layers = [
        {"w": layer["w"] * factors.get(f"layers.{k}.w", 1.0)}
        for k, layer in enumerate(params["layers"])
    ]
    return {"layers": layers}


def test_what_is_predicted_of_weights_comes_true(planted):
    """A ReLU network is homogeneous, so the arithmetic is exact."""
    _, advice = planted["Xavier + ReLU"]
    law = next(c for c in advice if c.remedy == "initialiser")
    again = run(functools.partial(forward, jax.nn.relu), scaled(weights(0.5), law))
    assert totals(again) == pytest.approx(predicted(law), abs=0.02)
    assert not again.findings.faults
    assert [f for _, f in law.factors] == pytest.approx([2.0] * 12, rel=0.1)  # variance 0.5 → 2


def test_what_is_predicted_of_branches_comes_true(planted):
    """12 additions of 1/12 each: (1 + 1/12)^11, up to the correlation of branch and skip."""
    _, advice = planted["plain residual"]
    change = next(c for c in advice if c.factors)
    assert [f for _, f in change.factors] == pytest.approx([12**-0.5] * 12)
    again = run(stream, scaled(weights(2.0), change))
    assert predicted(change) == pytest.approx(11 * math.log10(1 + 1 / 12), abs=0.1)
    assert totals(again) == pytest.approx(predicted(change), abs=0.3) and not again.findings.faults


def test_numbers_of_single_places(planted):
    def said(name):
        return str(planted[name][1])

    assert re.search(r"\(x - 1[12]\d\) / [78]\d", said("raw inputs"))
    assert "multiply layers.5.w by 3" in said("too small a weight")
    assert "layers.5.w ends by 0.2" in said("a branch without its scale")  # 1/sqrt(12)
    assert "relu in place of logistic" in said("one sigmoid")
    assert "lasts for 3.19 turns" in said("forgetting LSTM")
    assert "set a.b to 0 (its rms is 20)" in said("dead by its bias")
    assert "add 8 to what comes into layers.0/relu" in said("dead by a number")
    assert "multiply w by 0.4" in said("exploding loop")  # it was drawn with gain 2
    assert "stop_gradient" in said("stopped") and "sqrt(x + 1e-12)" in said("root of zero")
    assert re.search(r"multiply the loss by 2\^\d\d", said("gradients below float16"))
    assert "compute in bfloat16" in said("signals above float16")
