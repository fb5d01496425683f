"""Scans whose state is gated or decays: true totals, gates that are meant or that are shut."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.verdicts import thresholds
from propagate.verdicts.pre_activation import into

K = jax.random.key
GLOROT, LECUN = jax.nn.initializers.glorot_normal(), jax.nn.initializers.lecun_normal()
STATE, INPUTS, TURNS = 16, 8, 20
X = jax.random.normal(K(2), (16, TURNS, INPUTS))


def gru(bias, keep=True):
    """A gated unit whose update gate sees the inputs and the state."""

    def model(p, x):
        def turn(h, u):
            z = jax.nn.sigmoid(u @ p["wz"] + h @ p["uz"] + p["bz"][None])
            n = jnp.tanh(u @ p["wn"] + h @ p["un"])
            h = (1 - z) * n + z * h if keep else z * n + (1 - z) * h
            return h, h

        start = jnp.zeros((x.shape[0], STATE))
        return jax.lax.scan(turn, start, x.swapaxes(0, 1))[0] @ p["o"]

    square = jax.nn.initializers.orthogonal()
    params = {"o": GLOROT(K(3), (STATE, 2)), "bz": jnp.full(STATE, float(bias))}
    for k, name in enumerate("zn"):
        params[f"w{name}"] = GLOROT(K(k), (INPUTS, STATE))
        params[f"u{name}"] = square(K(9 + k), (STATE, STATE))
    return model, params


@pytest.mark.parametrize("bias", [-4.0, 0.0])
def test_a_state_that_is_mostly_replaced_in_a_turn_has_not_grown(bias):
    """The decay was counted as a fall between sums, and the last turn as a rise of 3 decades."""
    found = pp.diagnose(*gru(bias), X, key=K(0)).findings
    assert not found.faults
    assert not [f for f in found if f.verdict is pp.Verdict.EXPLODING]


def selective(p, x, grown=1.0):
    """A block as Mamba's: a decay that depends on the input, in a residual stream."""
    u = x @ p["in"]
    dt, b, c = jax.nn.softplus(u @ p["dt"] + p["bias"][None, None]), u @ p["B"], u @ p["C"]

    def turn(h, now):
        u, dt, b, c = now
        decay = grown * jnp.exp(-dt[..., None] * jnp.arange(1.0, 5.0)[None, None])
        h = decay * h + dt[..., None] * b[:, None] * u[..., None]
        return h, (h * c[:, None]).sum(-1)

    start = jnp.zeros((x.shape[0], 2 * INPUTS, 4))
    y = jax.lax.scan(turn, start, tuple(a.swapaxes(0, 1) for a in (u, dt, b, c)))[1]
    return x + (y.swapaxes(0, 1) + u) @ p["out"]


def test_a_decay_that_depends_on_the_input_is_healthy_and_one_above_1_explodes():
    dt, wide = jnp.geomspace(0.001, 0.1, 2 * INPUTS), 2 * INPUTS
    shapes = {"in": (INPUTS, wide), "dt": (wide, wide), "B": (wide, 4), "C": (wide, 4)}
    shapes["out"] = (wide, INPUTS)
    p = {name: LECUN(K(k), shape) for k, (name, shape) in enumerate(shapes.items())}
    p |= {"dt": 0.1 * p["dt"], "bias": dt + jnp.log(-jnp.expm1(-dt))}
    assert not pp.diagnose(selective, p, X, key=K(0)).findings
    planted = lambda p, x: selective(p, x, grown=2.0)  # noqa: E731
    found = pp.diagnose(planted, p, X, key=K(0))
    finding = next(f for f in found.findings.faults if f.verdict is pp.Verdict.EXPLODING)
    start, end = re.search(r"from (\S+) to ([^,\s]+)", finding.reason).groups()
    name = found.record["name"].values
    q = dict(zip(name, found.record[f"log10_{finding.direction}_q"].values, strict=True))
    assert finding.total == pytest.approx(q[end] - q[start], abs=1e-6)
    assert finding.total > thresholds.FINE_DECADES


def unrolled(p, x):
    """An LSTM whose turns are written out, from a state of zeros."""
    h = c = jnp.zeros((x.shape[0], STATE))
    for t in range(6):
        h, c = lstm_turn(p, h, c, x[:, t])
    return h @ p["o"]


def scanned(p, x):
    """The same as a scan."""

    def turn(state, u):
        return lstm_turn(p, *state, u), None

    zeros = jnp.zeros((x.shape[0], STATE))
    return jax.lax.scan(turn, (zeros, zeros), x.swapaxes(0, 1)[:6])[0][0] @ p["o"]


def lstm_turn(p, h, c, u):
    inside, forget, new, out = jnp.split(u @ p["w"] + h @ p["u"] + p["b"][None], 4, -1)
    c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(inside) * jnp.tanh(new)
    return jax.nn.sigmoid(out) * jnp.tanh(c), c


def lstm(inside=0.0, forget=1.0, out=0.0):
    draw = jax.nn.initializers.orthogonal()
    b = jnp.repeat(jnp.array([inside, forget, 0.0, out]), STATE)
    shapes = {"w": (INPUTS, 4 * STATE), "o": (STATE, 2)}
    weights = {name: GLOROT(K(k), shape) for k, (name, shape) in enumerate(shapes.items())}
    return weights | {"u": draw(K(5), (STATE, 4 * STATE)), "b": b}


@pytest.mark.parametrize("model", [scanned, unrolled])
@pytest.mark.parametrize(
    ("biases", "severity", "words"),
    [
        ({"forget": 8.0}, "note", "a gate that takes 0.000"),  # Tallec & Ollivier (2018)
        ({"inside": -7.0, "forget": 7.0}, "note", "as one does that remembers for long"),
        (
            {"inside": -20.0},
            "fault",
            r"stays as it is, .*: add (20|19\.9|20\.1) to the bias b",
        ),
        ({"inside": 20.0}, "fault", r"add -(20|19\.9|20\.1) to the bias b"),  # always open
        ({"forget": -20.0}, "fault", r"add (20|19\.9|20\.1) to the bias b"),  # forgets everything
        ({"out": -20.0}, "fault", r"add (20|19\.9|20\.1) to the bias b"),  # shows nothing
    ],
)
def test_a_gate_that_keeps_a_state_is_no_fault_and_any_other_is(model, biases, severity, words):
    found = pp.diagnose(model, lstm(**biases), X, key=K(0)).findings
    flat = [f for f in found if f.verdict is pp.Verdict.SATURATED]
    assert flat and {f.severity for f in flat} == {severity}
    assert {f.parameter for f in flat} == {"b"}
    assert re.search(words, flat[0].reason)
    assert severity == "fault" or not found.faults


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("bias", "severity"), [(8.0, "note"), (20.0, "fault"), (-8.0, "fault")])
def test_an_update_gate_is_told_by_what_it_keeps_and_not_by_its_name(keep, bias, severity):
    """At 20, 1 - z is exactly zero: one fault, and none that follows from it."""
    sign = 1 if keep else -1
    model, p = gru(sign * bias, keep)
    diagnosis = pp.diagnose(model, p, X, key=K(0))
    (finding,) = (f for f in diagnosis.findings if f.verdict is pp.Verdict.SATURATED)
    assert (finding.parameter, finding.severity) == ("bz", severity)
    assert len(diagnosis.findings.faults) == (severity == "fault")
    if severity == "note":
        return
    added = float(re.search(r"add (\S+) to the bias bz", finding.reason).group(1).rstrip(";"))
    assert added == pytest.approx(-sign * bias, abs=0.3)
    mended = p | {"bz": p["bz"] + added}
    assert not pp.diagnose(model, mended, X, key=K(0)).findings.faults


def test_the_numbers_of_what_comes_into_a_gate_are_those_of_numpy():
    """Of a sum of two products and a bias, which is no site: mean and deviation in a turn."""
    model, p = gru(8.0)
    turns = lambda p, x: model(p, x[:, :1])  # noqa: E731
    record = pp.diagnose(turns, p, X, key=K(0)).record
    k = int(np.flatnonzero(record["label"].values == "logistic")[0])
    h = np.asarray(X[:, 0], np.float64) @ np.asarray(p["wz"], np.float64) + 8.0
    comes = into(record, k)
    np.testing.assert_allclose((comes.mean, comes.sd), (h.mean(), h.std()), rtol=1e-4)
    assert (comes.layer, comes.bias) == ("wz", "bz")


def test_inputs_that_spread_a_gate_ask_for_a_scale_whatever_the_gate_is():
    """Gates at both ends remember nothing: the layer whose output is the largest is to blame."""
    found = pp.diagnose(scanned, lstm(forget=8.0), 300 * X, key=K(0)).findings
    flat = [f for f in found.faults if f.verdict is pp.Verdict.SATURATED]
    assert {f.parameter for f in flat} == {"w"}
    assert all(re.search(r"scale the weights of w by 0\.00\d+", f.reason) for f in flat)


def mixture(p, x):
    for layer in p:
        z = jax.nn.sigmoid(x @ layer["t"] + layer["b"][None])
        x = z * jax.nn.relu(x @ layer["f"]) + (1 - z) * jax.nn.relu(x @ layer["g"])
    return x


def highway(p, x):
    for layer in p:
        z = jax.nn.sigmoid(x @ layer["t"] + layer["b"][None])
        x = z * jax.nn.relu(x @ layer["f"]) + (1 - z) * x
    return x


@pytest.mark.parametrize(("model", "severity"), [(highway, "note"), (mixture, "fault")])
def test_a_gate_on_a_skip_connection_keeps_it_and_one_between_two_layers_shuts_one(model, severity):
    """Highway networks start with gates that carry (Srivastava et al. 2015, arXiv:1505.00387)."""
    he = jax.nn.initializers.he_normal()
    draw = lambda k: {n: he(K(9 * k + j), (STATE, STATE)) for j, n in enumerate("fgt")}  # noqa: E731
    p = [draw(k) | {"b": jnp.full(STATE, -7.0)} for k in range(4)]
    found = pp.diagnose(model, p, jax.random.normal(K(5), (64, STATE)), key=K(0)).findings
    flat = [f for f in found if f.verdict is pp.Verdict.SATURATED]
    assert {f.severity for f in flat} == {severity}


def associative(p, x):
    """A gated linear recurrence without a loop (Feng et al. 2024, arXiv:2410.01201)."""
    z, new = jax.nn.sigmoid(x @ p["wz"] + p["bz"][None, None]), x @ p["wn"]
    join = lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1])  # noqa: E731
    return jax.lax.associative_scan(join, (1 - z, z * new), axis=1)[1][:, -1] @ p["o"]


@pytest.mark.parametrize(("bias", "severity"), [(-7.0, "note"), (-20.0, "fault")])
def test_an_associative_scan_has_a_state_too(bias, severity):
    _, p = gru(bias)
    found = pp.diagnose(associative, p, X[:, :8], key=K(0)).findings
    (finding,) = (f for f in found if f.verdict is pp.Verdict.SATURATED)
    assert (finding.parameter, finding.severity) == ("bz", severity)
