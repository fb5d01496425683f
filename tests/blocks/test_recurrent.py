"""Recurrent stacks against plain loops, the frameworks' own cells and laws, and exact rates."""

import os
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import propagate as pp
from propagate.batches import Batch
from propagate.initializers import initializer
from propagate.network import layer_table
from propagate.record.measures import select
from propagate.run import memory, plan, program
from propagate.run.feed import Feed
from propagate.run.layerwise import layers_of
from propagate.run.pairings import Grouping, blocks_of
from propagate.types import UnusableInput

KEY = jax.random.key(3)
DEPTH, WIDTH, BATCH = 3, 8, 5


class Drawn(NamedTuple):
    """What `measure` draws for seed 0, scaled."""

    start: jax.Array
    target: jax.Array
    weights: dict[str, jax.Array]
    inputs: list[jax.Array]


def drawn(net: pp.Network) -> Drawn:
    feed = Feed(net, KEY, None, "gaussian", BATCH, 0.5, "gaussian")
    named = dict(layer_table(net, BATCH)[0].parameters)
    shared = {name: p for name, p in named.items() if p.shared}
    own = {name: p for name, p in named.items() if not p.shared}
    base = net.init.base
    weights = program.draw(base, shared, "float32", feed.shared_key(0))
    weights = {name: shared[name].scale(net.init) * w for name, w in weights.items()}
    inputs = [program.draw(base, own, "float32", k)["input"] for k in feed.layer_keys(0)]
    start = feed.inputs(0).reshape(BATCH, *net.family.signal(net.width))
    return Drawn(start, feed.target(0).reshape(start.shape), weights, inputs)


def gate(w, name, x, h):
    return x @ w[f"input_{name}"] + h @ w[f"recurrent_{name}"] + w[f"bias_{name}"][None]


def rnn(w, x, h):
    return gate(w, "state", x, jnp.tanh(h))


def lstm(w, x, state):
    """Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000), at forget=1."""
    c, h = state[:, 0], state[:, 1]
    names = ("input_gate", "forget_gate", "candidate", "output_gate")
    i, f, g, o = (gate(w, name, x, h) for name in names)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jnp.stack([c, jax.nn.sigmoid(o) * jnp.tanh(c)], axis=1)


def gru(w, x, h):
    """Cho et al. (2014) as PyTorch computes it."""
    r, z = (jax.nn.sigmoid(gate(w, name, x, h)) for name in ("reset", "update"))
    inside = h @ w["recurrent_candidate"] + w["bias_inside"][None]
    n = jnp.tanh(x @ w["input_candidate"] + w["bias_candidate"][None] + r * inside)
    return (1 - z) * n + z * h


CELLS = {
    "rnn(recurrent_init=orthogonal_1.2,input_init=sigma(0.5,0.1))": rnn,
    "lstm(forget=1)": lstm,
    "gru(defaults=torch)": gru,
}


def unrolled(net: pp.Network, cell):
    """Signals, and gradients of each step's own copy of the weights and of zeros added to h."""
    own = drawn(net)

    def value(copies, zeros):
        signals = [own.start + zeros[0]]
        for w, x, zero in zip(copies, own.inputs, zeros[1:], strict=True):
            signals.append(cell(w, x, signals[-1]) + zero)
        return jnp.sum(signals[-1] * own.target), signals

    zeros = [jnp.zeros_like(own.start)] * (DEPTH + 1)
    run = jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))
    (dw, dh), signals = run([own.weights] * DEPTH, zeros)
    return signals, dh, dw


def log_q(arrays) -> np.ndarray:
    return np.log10([np.mean(np.square(np.asarray(a, np.float64))) for a in arrays])


@pytest.mark.parametrize("family", CELLS)
def test_equals_the_gradients_of_the_unrolled_loop(family):
    net = pp.Network(DEPTH, WIDTH, family, "tanh", (1.2, 0.3))
    weights = [n for n, p in layer_table(net)[0].parameters if p.kind == "weight"]
    states = ("cell_q", "hidden_q", "cell_gradient_q", "hidden_gradient_q")
    wanted = ["q", *(f"{name}_gradient_q" for name in weights), *states[: 4 * ("lstm" in family)]]
    record = pp.measure(net, KEY, seeds=1, batch=BATCH, measures=wanted).isel(seed=0)
    signals, dh, dw = unrolled(net, CELLS[family])
    np.testing.assert_allclose(record.log10_forward_q, log_q(signals), atol=2e-5)
    np.testing.assert_allclose(record.log10_backward_q, log_q(dh), atol=1e-4)
    for name in weights:
        expected = log_q([step[name] for step in dw])
        np.testing.assert_allclose(record[f"log10_{name}_gradient_q"][1:], expected, atol=1e-4)
    for k, place in enumerate(states[:2] if "lstm" in family else ()):
        part = place.removesuffix("_q")
        expected = [log_q([a[:, k] for a in arrays[:-1]]) for arrays in (signals, dh)]
        np.testing.assert_allclose(record[f"log10_{part}_q"][1:], expected[0], atol=2e-5)
        np.testing.assert_allclose(record[f"log10_{part}_gradient_q"][1:], expected[1], atol=1e-4)


def keras_cell(kind, w, x, state):
    order = {"rnn": ["state"], "gru": ["update", "reset", "candidate"]}.get(
        kind, ["input_gate", "forget_gate", "candidate", "output_gate"]
    )
    layers = keras.layers
    cell = {"rnn": layers.SimpleRNNCell, "lstm": layers.LSTMCell, "gru": layers.GRUCell}[kind](
        WIDTH
    )
    cell.build((BATCH, WIDTH))
    bias = jnp.concatenate([w[f"bias_{g}"] + (g == "forget_gate") for g in order])
    if kind == "gru":
        inside = [jnp.zeros(2 * WIDTH), w["bias_inside"]]
        bias = jnp.stack([bias, jnp.concatenate(inside)])
    cell.kernel.assign(jnp.concatenate([w[f"input_{g}"] for g in order], axis=1))
    cell.recurrent_kernel.assign(jnp.concatenate([w[f"recurrent_{g}"] for g in order], axis=1))
    cell.bias.assign(bias)
    return cell(x, state)[1]


def linen_cell(kind, w, x, state):
    letters = {"rnn": {"state": ""}, "gru": {"reset": "r", "update": "z", "candidate": "n"}}.get(
        kind, {"input_gate": "i", "forget_gate": "f", "candidate": "g", "output_gate": "o"}
    )
    params = {}
    for name, letter in letters.items():
        bias = w[f"bias_{name}"] + (name == "forget_gate")
        own = {"kernel": w[f"input_{name}"]}, {"kernel": w[f"recurrent_{name}"]}
        own[kind == "lstm"]["bias"] = bias
        params[f"i{letter}"], params[f"h{letter}"] = own
    if kind == "gru":
        params["hn"]["bias"] = w["bias_inside"]
    cell = {"rnn": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}[kind](WIDTH)
    carry, _ = cell.apply({"params": params}, state if kind == "lstm" else state[0], x)
    return jax.tree.leaves(carry)


def haiku_lstm(kind, w, x, state):
    order = ["input_gate", "candidate", "forget_gate", "output_gate"]
    kernel = [[w[f"{part}_{g}"] for g in order] for part in ("input", "recurrent")]
    params = {"w": jnp.block(kernel), "b": jnp.concatenate([w[f"bias_{g}"] for g in order])}
    run = hk.transform(lambda x, c, h: hk.LSTM(WIDTH)(x, hk.LSTMState(h, c))[1])
    found = run.apply({"lstm/linear": params}, None, x, *state)
    return [found.cell, found.hidden]


STEPS = [(k, f) for k in ("rnn", "lstm", "gru") for f in (keras_cell, linen_cell)]


@pytest.mark.lenient
@pytest.mark.parametrize("kind, framework", [*STEPS, ("lstm", haiku_lstm)])
def test_a_step_is_that_of_the_frameworks_cell_with_the_same_weights(kind, framework):
    family = {"rnn": "rnn", "lstm": "lstm(forget=1)", "gru": "gru(defaults=torch)"}[kind]
    net = pp.Network(1, WIDTH, family, "tanh", (1.2, 0.3))
    start, (step,) = layers_of(net, KEY, batch=BATCH)
    own = drawn(net)
    np.testing.assert_array_equal(start, own.start)
    state = {"rnn": [jnp.tanh(start)], "gru": [start]}.get(kind) or [start[:, 0], start[:, 1]]
    if framework is keras_cell and kind == "lstm":
        hidden, cell = framework(kind, own.weights, own.inputs[0], state[::-1])
        found = [cell, hidden]
    else:
        found = framework(kind, own.weights, own.inputs[0], state)
    ours = step(start)
    expected = {"rnn": [jnp.tanh(ours)], "gru": [ours]}.get(kind) or [ours[:, 0], ours[:, 1]]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


UNITS = 64


def keras_draws(kind):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    cells = {"rnn": layers.SimpleRNNCell, "lstm": layers.LSTMCell, "gru": layers.GRUCell}
    cell = cells[kind](UNITS)
    cell.build((1, UNITS))
    return cell.kernel, cell.recurrent_kernel, cell.bias


def linen_draws(kind):
    cell = {"rnn": nn.SimpleCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind](UNITS)
    x = jnp.zeros((1, UNITS))
    params = cell.init(KEY, (x, x) if kind == "lstm" else x, x)["params"]
    kernels = [
        jnp.concatenate([p["kernel"] for n, p in params.items() if n[0] == way], axis=1)
        for way in "ih"
    ]
    return *kernels, jnp.concatenate([p["bias"] for p in params.values() if "bias" in p])


def haiku_draws(kind):
    core = {"rnn": hk.VanillaRNN, "lstm": hk.LSTM, "gru": hk.GRU}[kind]

    def run(x):
        made = core(UNITS)
        return made(x, made.initial_state(1))

    params = hk.transform(run).init(KEY, jnp.zeros((1, UNITS)))
    leaves = [a for own in params.values() for a in own.values()]
    kernels = [a for a in leaves if a.ndim == 2]
    if kind == "lstm":
        kernels = [kernels[0][:UNITS], kernels[0][UNITS:]]
    return *kernels, jnp.concatenate([a for a in leaves if a.ndim == 1])


def our_draws(kind, defaults):
    net = pp.Network(1, UNITS, f"{kind}(defaults={defaults})", init="zeros")
    named = dict(layer_table(net)[0].parameters)
    draws = program.draw(net.init.base, named, "float32", KEY)
    scaled = {name: p.scale(net.init) * draws[name] for name, p in named.items()}
    kinds = ("input_", "recurrent_", "bias_")
    return net, [jnp.stack([w for n, w in scaled.items() if n.startswith(k)]) for k in kinds]


@pytest.mark.lenient
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(
    "defaults, draws", [("keras", keras_draws), ("flax", linen_draws), ("haiku", haiku_draws)]
)
def test_defaults_are_the_frameworks_own(kind, defaults, draws):
    """Variance and kurtosis of N weights within 5 standard errors of two samples of normal
    weights, which those of the truncated and the uniform do not reach: each fails with
    probability below 6e-7. 1/n against 0.774/n is 7 standard errors of the smaller N."""
    net, (kernel, recurrent, bias) = our_draws(kind, defaults)
    *theirs, their_bias = (np.asarray(a, np.float64) for a in draws(kind))
    for a, b in zip((kernel, recurrent), theirs, strict=True):
        a, b = np.asarray(a, np.float64).ravel(), b.ravel()
        assert a.size == b.size
        assert a.var() == pytest.approx(b.var(), rel=5 * np.sqrt(2 * 2 / a.size))
        fourth = [np.mean(w**4) / w.var() ** 2 for w in (a, b)]
        assert fourth[0] == pytest.approx(fourth[1], abs=5 * np.sqrt(2 * 24 / a.size))
    assert not bias.any()
    if kind == "lstm":
        added = 1.0 if defaults == "haiku" else their_bias.max()  # Haiku adds it in the cell
        assert net.family.forget_bias == added == {"flax": 0.0}.get(defaults, 1.0)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_defaults_of_torch(kind):
    """U(±1/√hidden) for all, two biases, no forget bias (torch.nn.RNN, LSTM, GRU)."""
    net, (kernel, recurrent, bias) = our_draws(kind, "torch")
    for weights in (kernel, recurrent):
        assert abs(weights).max() <= UNITS**-0.5
        tolerance = 5 * np.sqrt(0.8 / weights.size)  # of a uniform variance: 6e-7
        assert weights.var() == pytest.approx(1 / (3 * UNITS), rel=tolerance)
    assert bias.shape == ({"rnn": 1, "lstm": 4, "gru": 4}[kind], UNITS)
    both = np.asarray(jnp.mean(bias**2, axis=1)) * 3 * UNITS
    twice = [2, 2, 1, 1] if kind == "gru" else [2] * len(both)
    np.testing.assert_allclose(both, twice, rtol=5 * np.sqrt(0.8 / UNITS))
    assert kind != "lstm" or net.family.forget_bias == 0


@pytest.mark.lenient
def test_a_keras_gate_is_a_quarter_of_an_orthogonal_matrix():
    net = pp.Network(1, UNITS, "lstm(defaults=keras)")
    named = dict(layer_table(net)[0].parameters)
    recurrent, kernel = named["recurrent_candidate"].init, named["input_candidate"].init
    assert UNITS * recurrent.moments(UNITS, UNITS)[1] == 0.25
    assert UNITS * kernel.moments(UNITS, UNITS)[1] == pytest.approx(2 / 5)  # 6/(n + 4n)/3
    singular = np.linalg.svd(recurrent.base.sample(KEY, (UNITS, UNITS), "float32"), False, False)
    assert singular.max() < 1 and np.mean(singular**2) == pytest.approx(0.25, rel=0.05)


def test_an_lstm_remembers_for_as_long_as_its_forget_bias_says():
    """-1/ln sigma(1) = 3.192219 steps; `figures/lstm_forget.py` has 0 to 3."""
    family = "lstm(forget=1,recurrent_init=zeros,input_init=zeros)"
    net = pp.Network(8, WIDTH, family, "tanh")
    record = pp.measure(net, KEY, seeds=1, batch=2, measures=("cell_gradient_q",))
    steps = np.diff(record.log10_cell_gradient_q.values[0, 1:])  # decades of (gradient)^2
    np.testing.assert_allclose(steps, -2 * np.log10(1 / (1 + np.exp(-1))), atol=1e-6)
    assert 2 / np.log(10) / steps.mean() == pytest.approx(3.192219, rel=1e-5)


@pytest.fixture(scope="module")
def gradients():
    """Of a recurrence alone, on a signal so small that tanh is linear to 1e-6."""
    net = pp.Network(8, WIDTH, "rnn(input_init=zeros)", activate_input=True)
    gains = ["orthogonal_0.9", "orthogonal", "orthogonal_1.1"]
    found = pp.sweep(
        net,
        key=KEY,
        init=[*gains, "identity", "he_normal", "zeros"],
        activation=["identity", "relu", "tanh"],
        seeds=1,
        inputs=1e-3 * jax.random.normal(KEY, (4, WIDTH)),
        measures=("backward_q",),
    )
    return lambda init, phi: found.log10_backward_q.sel(init=init, activation=phi).values[0]


def test_norm_keeping_recurrences_keep_the_gradient_and_others_do_not(gradients):
    linear = gradients("orthogonal", "identity")
    np.testing.assert_allclose(linear, linear[-1], atol=1e-6)
    # relu cuts at its last step what is negative; all that lives then is positive
    irnn = gradients("identity", "relu")
    np.testing.assert_allclose(irnn[:-1], irnn[0], atol=1e-6)
    assert np.isfinite(irnn[0]) and irnn[0] < irnn[-1]
    assert np.ptp(gradients("he_normal", "identity")) > 1  # 2 per step: 2.4 decades in 8 steps


@pytest.mark.parametrize("gain", [0.9, 1, 1.1])
def test_an_orthogonal_tanh_recurrence_is_critical_at_gain_one(gradients, gain):
    found = gradients("orthogonal" if gain == 1 else f"orthogonal_{gain}", "tanh")
    np.testing.assert_allclose(np.diff(found), -2 * np.log10(gain), atol=1e-4)


def test_no_recurrence_cuts_the_gradient_exactly(gradients):
    found = gradients("zeros", "tanh")
    assert np.isneginf(found[:-1]).all() and np.isfinite(found[-1])


def test_input_and_recurrent_initialisers_stand_apart():
    net = pp.Network(2, WIDTH, "gru(input_init=zeros,recurrent_init=2*orthogonal)", init=(1, 0.5))
    weights = drawn(net).weights
    for name in net.family.gates:
        assert not weights[f"input_{name}"].any() and weights[f"bias_{name}"].any()
        square = weights[f"recurrent_{name}"] @ weights[f"recurrent_{name}"].T
        np.testing.assert_allclose(square, 4 * np.eye(WIDTH), atol=1e-5)
    zeros = pp.Network(2, WIDTH, "gru(recurrent_init=zeros)")
    named = dict(layer_table(zeros)[0].parameters)
    swept = initializer("he_normal")
    assert named["input_reset"].scale(swept) == swept.scale(WIDTH, WIDTH)
    assert named["recurrent_reset"].scale(swept) == 0


def test_data_leaves_the_activation_of_a_gated_cell_alone():
    data = Batch(np.ones((BATCH, 2 * WIDTH)))
    for family, raw in {"rnn": True, "lstm": False, "gru": False, "transformer": False}.items():
        net = pp.Network(2, WIDTH, family)
        assert Feed(net, KEY, data, "gaussian", BATCH, 0.5, "gaussian").raw == raw
    with pytest.raises(UnusableInput, match="gru does not start with its activation"):
        pp.Network(2, WIDTH, "gru", activate_input=False)


@pytest.mark.parametrize(
    "family, said",
    [
        ("lstm(forget=inf)", "forget must be a finite number"),
        ("rnn(defaults=theano)", "defaults must be one of none, torch"),
        ("gru(recurrent_init=nope)", "unknown initialiser 'nope'"),
    ],
)
def test_unusable_options_are_named(family, said):
    with pytest.raises(UnusableInput, match=said):
        pp.Network(2, WIDTH, family)


def test_memory_counts_shared_weights_once():
    """What a step more takes is a signal's, not the weights'."""
    needed = []
    for depth in (100, 101):
        net = pp.Network(depth, 1024, family="lstm")
        (block,) = blocks_of(net, [net.init], 1, Grouping(1))
        chosen = select(("q",), net.family.table)
        made = plan.program(net, [net.activation], block, chosen, "gaussian", 1)
        needed.append(memory.bytes_needed(net, made, 1, 1))
    assert needed[0] > 4 * 8 * 1024**2
    assert needed[1] - needed[0] < 1024**2
