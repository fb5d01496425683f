"""Scans whose state is gated or decays: true totals, gates that are meant, and gates that are shut."""

import re

import jax
import jax.numpy as jnp
import pytest

import propagate as pp
from propagate.verdicts import thresholds

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
