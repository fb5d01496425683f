"""Advice in numbers, followed to the digit that is printed, makes its finding go away."""

import re
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.verdicts.directions import apart
from propagate.verdicts.pre_activation import into

K = jax.random.key
WIDTH, AT = 64, 3
X = jax.random.normal(K(9), (128, WIDTH))


def params(gain=2.0, count=8):
    draws = [jax.random.normal(k, (WIDTH, WIDTH)) for k in jax.random.split(K(1), count)]
    return [{"w": w * (gain / WIDTH) ** 0.5, "b": jnp.zeros(WIDTH)} for w in draws]


def changed(layers, at=AT, **new):
    return [p | new if k == at else p for k, p in enumerate(layers)]


def scaled(layers, factor, at: Collection[int] = range(100)):
    return [p | {"w": p["w"] * factor} if k in at else p for k, p in enumerate(layers)]


def stack(phi):
    def model(layers, x):
        for p in layers[:-1]:
            x = phi(x @ p["w"] + p["b"][None])
        return x @ layers[-1]["w"]

    return model


def residual(layers, x):
    for first, second in zip(layers[::2], layers[1::2], strict=True):
        x = x + jax.nn.relu(x @ first["w"]) @ second["w"]
    return x


def number(finding, pattern):
    """The number that a reason gives, where the pattern has a group."""
    return float(re.search(pattern, finding.reason).group(1).replace(",", ""))


def moved(layers, finding):
    return changed(layers, b=layers[AT]["b"] + number(finding, r"higher by ([\d.]+)"))


def back(layers, finding):
    return changed(layers, b=layers[AT]["b"] + number(finding, r"add (-[\d.]+) to the bias"))


def smaller(layers, finding):
    return scaled(layers, number(finding, r"scale the weights of 0.w by ([\d.]+)"))


def everywhere(layers, finding):
    return scaled(layers, number(finding, r"(?:weights|branches) ([\d.]+) times as large"))


def alone(layers, finding):
    return scaled(layers, number(finding, r"weights ([\d.,]+) times as large would be"), {AT})


def branch(layers, finding):
    return scaled(layers, number(finding, r"a factor of ([\d.]+) would put"), {2 * AT + 1})


def drawn(layers, finding):
    deviation = number(finding, r"= ([\d.]+) in front of a ReLU")
    return changed(layers, w=deviation * jax.random.normal(K(5), (WIDTH, WIDTH)))


RELU, TANH = stack(jax.nn.relu), stack(jnp.tanh)
BRANCHES = scaled(params(1.0, 36), 2**0.5, range(1, 36, 2))
SMALL_BRANCHES = scaled(params(1.0, 16), 0.5, range(1, 16, 2))
FAULTS = {
    "dead": (RELU, changed(params(), b=jnp.full(WIDTH, -8.0)), moved, "dead"),
    "saturated": (TANH, scaled(params(1.0), 12.0, {AT}), alone, "departing"),
    "flat by a bias": (TANH, changed(params(1.0), b=jnp.full(WIDTH, 6.0)), back, "saturated"),
    "flat": (TANH, scaled(params(1.0), 15.0), smaller, "saturated"),
    "vanishing": (RELU, params(0.2, 10), everywhere, "vanishing"),
    "exploding": (RELU, params(8.0, 10), everywhere, "exploding"),
    "one small": (RELU, scaled(params(), 1e-3, {AT}), alone, "departing"),
    "zero": (RELU, scaled(params(), 0.0, {AT}), drawn, "dead"),
    "equal": (RELU, changed(params(), w=jnp.full((WIDTH, WIDTH), 0.02)), drawn, "symmetric"),
    "one branch": (residual, scaled(SMALL_BRANCHES, 30.0, {2 * AT + 1}), branch, "exploding"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_advice_that_is_followed_mends_it(name):
    model, layers, follow, verdict = FAULTS[name]
    found = pp.diagnose(model, layers, X, key=K(0)).findings.faults
    finding = next(f for f in found if f.verdict.value == verdict)
    assert not pp.diagnose(model, follow(layers, finding), X, key=K(0)).findings.faults


def squared_distances(h):
    return jnp.sum((h[:, None] - h[None]) ** 2, axis=-1)


FLAT = {
    "relu6 above": (jax.nn.relu6, 20.0, 1.0, r"; add -20 to them"),
    "clip above": (lambda h: jnp.clip(h, 0, 6), 20.0, 1.0, r"; add -20 to them"),
    "relu6, far and wide": (
        jax.nn.relu6,
        6e4,
        1e3,
        r"; add -6e\+04 to them, then multiply them by 0\.000\d+",
    ),
    "hard_tanh, wide": (jax.nn.hard_tanh, 0.0, 3e5, r"hard_tanh at .*; multiply them by \S+e-06"),
    "a narrow kernel": (
        lambda h: jnp.exp(-(squared_distances(h) + 1) * 1e3),
        0.0,
        1.0,
        r"exp at .* of mean -\S+ and standard deviation \S+; multiply them by \S+e-06",
    ),
}


@pytest.mark.parametrize("name", FLAT)
def test_numbers_that_are_followed_give_a_flat_operation_a_slope(name):
    """Of h ↦ scale · h + shift; the same on h as it is has no such finding."""
    phi, shift, scale, words = FLAT[name]
    first, second = ([p["w"] for p in params(count=2)][k] for k in (0, 1))

    def model(p, x, moved=lambda h: h):
        h = scale * (x @ p["in"]) + shift
        if name == "a narrow kernel":
            return jnp.exp(moved(-(squared_distances(h) + 1) * 1e3)) @ x @ p["out"]
        return phi(moved(h)) @ p["out"]

    weights = {"in": first, "out": second}
    found = pp.diagnose(model, weights, X, key=K(0))
    (finding,) = [f for f in found.findings.faults if "at each of its inputs, of mean" in f.reason]
    assert re.search(words, finding.reason), finding.reason
    (change,) = [c for c in pp.advise(found) if "at each of its inputs, of mean" in c.what]
    assert re.search(words, change.what)
    add, by = (
        float(number(finding, pattern)) if re.search(pattern, finding.reason) else neutral
        for pattern, neutral in ((r"add (\S+) to", 0.0), (r"multiply them by ([^\s;]+)", 1.0))
    )
    mended = lambda p, x: model(p, x, lambda h: (h + add) * by)  # noqa: E731
    after = pp.diagnose(mended, weights, X, key=K(0)).findings.faults
    assert not [f for f in after if f.verdict is pp.Verdict.UNTRAINED]


@pytest.mark.parametrize("phi", [jnp.tanh, jax.nn.sigmoid])
def test_where_a_bias_is_not_enough_the_scale_is_told_too(phi):
    """A readout of deviation 48 about -120: centred alone it is saturated still."""
    weights = [p["w"] for p in params(count=3)]
    weights[-1] = weights[-1][:, :1]

    def model(p, x, bias=-120.0, factor=1.0):
        for w in p[:-1]:
            x = jax.nn.relu(x @ w)
        return phi((34 * (x @ p[-1]) + bias) * factor)

    told = lambda fn: [  # noqa: E731
        f
        for f in pp.diagnose(fn, weights, X, key=K(0)).findings.faults
        if f.verdict is pp.Verdict.SATURATED
    ]
    (finding,) = told(model)
    add = number(finding, r"add ([\d.]+) to the bias, then scale it and the weights of 2")
    factor = number(finding, r"the weights of 2 by ([\d.]+)")
    assert told(lambda p, x: model(p, x, -120 + add))
    assert not told(lambda p, x: model(p, x, -120 + add, factor))
    advice = pp.advise(pp.diagnose(model, weights, X, key=K(0)))
    (of_weight,) = [c.factors[0][1] for c in advice if c.what.startswith("multiply 2 by")]
    assert of_weight == pytest.approx(factor, rel=0.05)


def test_a_gradient_that_a_saturated_activation_ends_is_told_once():
    """Float32's tanh is 1 at 90: that is said of its bias, and not of each weight before it."""
    first, second = (p["w"] for p in params(1.0, 2))
    model = lambda p, x: jnp.tanh(jnp.tanh(x @ p["first"]) @ p["w"] + p["b"][None])  # noqa: E731
    layers = {"first": first, "w": second, "b": jnp.full(WIDTH, 90.0)}
    found = pp.diagnose(model, layers, X, key=K(0)).findings
    (finding,) = [f for f in found if f.verdict is pp.Verdict.SATURATED]
    assert finding.reason.endswith("add -90 to the bias b")
    assert not [f for f in found if f.verdict is pp.Verdict.UNTRAINED]
    assert not pp.diagnose(model, layers | {"b": jnp.zeros(WIDTH)}, X, key=K(0)).findings


def test_what_a_flat_operation_makes_alike_is_no_fault_of_its_own():
    """Behind it nothing tells the inputs apart; with a slope they stay apart."""
    weights = [p["w"] for p in params(count=6)]

    def model(weights, x, shift=20.0):
        for k, w in enumerate(weights):
            x = jax.nn.relu6(x @ w + (shift if k == 2 else 0.0))
        return x

    (finding,) = pp.diagnose(model, weights, X, key=K(0)).findings.faults
    assert finding.verdict is pp.Verdict.UNTRAINED
    assert re.search(r"add -20\S* to them; so at 1 and 2$", finding.reason)
    mended = lambda p, x: model(p, x, 0.0)  # noqa: E731
    assert not pp.diagnose(mended, weights, X, key=K(0)).findings.faults


def test_branches_of_the_advised_size_keep_the_stream_within_a_factor_of_e():
    found = pp.diagnose(residual, BRANCHES, X, key=K(0))
    (finding,) = (f for f in found.findings if f.direction == "forward")
    assert "additions of a residual stream" in finding.reason
    scale = number(finding, r"branches ([\d.]+) times as large")
    mended = scaled(BRANCHES, scale, range(1, 36, 2))
    after = pp.diagnose(residual, mended, X, key=K(0))
    assert not after.findings.faults
    q = after.record.log10_forward_q.values[after.record.kind.values == "add"]
    assert q[-1] - np.log10(np.mean(np.asarray(X) ** 2)) < np.log10(np.e) + 0.1


SHIFTED = {
    "less a number": (lambda h: h - 8, lambda h: h - 8),
    "of another scale and shape": (
        lambda h: (2 * h.reshape(-1, WIDTH) - 16) / 4,
        lambda h: h / 2 - 4,
    ),
    "a row less": (lambda h: h - jnp.linspace(7, 9, WIDTH)[None], None),
    "of a nonlinearity": (lambda h: jnp.square(h) - 999, None),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_numbers_between_a_product_and_its_activation_are_taken_into_account(name):
    """NumPy's mean and deviation of what the ReLU gets; where no bias can move it, none is told."""
    between, by_hand = SHIFTED[name]
    model = lambda w, x: jax.nn.relu(between(x @ w["in"])) @ w["out"]  # noqa: E731
    first, second = (p["w"] for p in params()[:2])
    found = pp.diagnose(model, {"in": first, "out": second}, X, key=K(0))
    (finding,) = (f for f in found.findings if f.verdict is pp.Verdict.DEAD)
    if by_hand is None:
        assert "What comes in" not in finding.reason
        return
    h = by_hand(np.asarray(X, np.float64) @ np.asarray(first, np.float64))
    assert f"mean {h.mean():.3g} and standard deviation {h.std():.3g}" in finding.reason
    assert f"biases higher by {-h.mean():.3g}" in finding.reason


def test_what_comes_into_an_activation_is_told_as_it_is():
    """NumPy's mean and deviation of W x + b, and how many deviations that is below zero."""
    layers = changed(params(), at=0, b=jnp.full(WIDTH, -8.0))
    found = pp.diagnose(RELU, layers, X, key=K(0))
    record = found.record
    h = np.asarray(X, np.float64) @ np.asarray(layers[0]["w"], np.float64) - 8
    k = int(np.flatnonzero(record.kind.values == "activation")[0])
    comes = into(record, k)
    assert comes is not None
    np.testing.assert_allclose((comes.mean, comes.sd), (h.mean(), h.std()), rtol=1e-4)
    (finding,) = (f for f in found.findings if f.verdict is pp.Verdict.DEAD)
    gone = int((h <= 0).all(axis=0).sum())
    for part in (
        f"{gone} of {WIDTH} pass nothing on",
        f"mean {h.mean():.3g} and standard deviation {h.std():.3g}",
        f"{-h.mean() / h.std():.2g} deviations below zero",
    ):
        assert part in finding.reason
    assert into(record, 0) is None


def test_dead_channels_above_zero_are_told_nothing_of_a_bias():
    """A one-hot signal is zero almost everywhere, and no bias is the reason."""

    def model(layers, x):
        x = jax.nn.relu(jax.nn.one_hot(0 * x[:, 0].astype(int), WIDTH) + 0 * x)
        return stack(jax.nn.relu)(layers, x)

    found = pp.diagnose(model, params(), X, key=K(0))
    dead = [f.reason for f in found.findings if f.verdict is pp.Verdict.DEAD]
    assert not [reason for reason in dead if "biases" in reason]


def test_a_large_common_direction_beside_a_difference_is_no_collapse():
    """All positions have a vector in common, 12 times their difference: their cosine is 0.99.

    With a thousandth of the difference they have collapsed, and attention alone makes them.
    """
    tokens = jax.random.normal(K(3), (4, 16, WIDTH))

    def model(layers, x, skip):
        x = jax.nn.relu(x @ layers[0]["w"]) + skip * 12.0
        for p in layers[1:]:
            scores = jax.nn.softmax(x @ x.swapaxes(1, 2) / WIDTH / 144)
            x = (x + 0.1 * (scores @ (x @ p["w"]))) if skip else scores @ (x @ p["w"])
        return x

    found = {
        skip: pp.diagnose(lambda p, x, s=skip: model(p, x, s), params(1.0), tokens, key=K(0))
        for skip in (True, False)
    }
    record = found[True].record
    assert record.forward_token_correlation.values[-1] > 0.99
    assert apart(record.forward_token_effective_rank.values)[-1] > -3
    assert not [f for f in found[True].findings if "positions" in f.reason]
    (finding,) = (f for f in found[False].findings if "positions" in f.reason)
    assert "to 1.0000; a skip connection" in finding.reason
