"""Inputs whose growth was judged wrongly, and the right answers."""

import jax
import jax.numpy as jnp
import pytest

import propagate as pp

K = jax.random.key
HE = jax.nn.initializers.he_normal()


def gaussian(keys, n, gain=1.0):
    return [jax.random.normal(k, (n, n)) * (gain / n) ** 0.5 for k in keys]


@pytest.mark.lenient
def test_a_plain_classifier_is_healthy():
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(6):
                x = nn.relu(nn.Dense(256, kernel_init=HE)(x))
            return nn.Dense(10)(x)

    found = pp.diagnose(Net(), jax.random.normal(K(2), (128, 256)), key=K(0))
    assert str(found) == "healthy: no findings at 13 sites"


def test_a_coupling_flow_is_healthy_though_its_signal_falls_in_every_block():
    def model(params, x):
        for a, b, c in params:
            u, v = jnp.split(x, 2, -1)
            v = v * jnp.exp(0.05 * jnp.tanh(jax.nn.relu(jax.nn.relu(u @ a) @ b) @ c))
            x = jnp.concatenate([v, u], -1)
        return x

    w = gaussian(jax.random.split(K(1), 48), 32)
    params = [w[3 * i : 3 * i + 3] for i in range(16)]
    found = pp.diagnose(model, params, jax.random.normal(K(2), (256, 64)), key=K(0))
    assert not found.findings.faults, found.findings


def test_glorot_layers_of_any_shape_are_healthy():
    def model(p, x):
        for w in p["layers"]:
            x = jnp.tanh(x @ w)
        return x @ p["out"]

    keys, glorot = jax.random.split(K(1), 6), jax.nn.initializers.glorot_normal()
    shapes = [(2, 64)] + [(64, 64)] * 4
    layers = [glorot(k, s) for k, s in zip(keys, shapes, strict=False)]
    p = {"layers": layers, "out": glorot(keys[-1], (64, 1))}
    x = jax.random.uniform(K(2), (256, 2), minval=-1)
    assert pp.diagnose(model, p, x, key=K(0)).findings == ()


@pytest.mark.parametrize("large", [None, 3])
def test_normed_branches_are_not_blamed_for_a_stream_that_starts_small(large):
    """Pre-LN blocks of large weights train as others do, each at its best rate of Adam or SGD.

    The control: one branch that is larger than its peers is told, wherever the stream starts.
    """

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-3)

    def model(params, x):
        for p in params:
            x = x + jax.nn.gelu(norm(x) @ p["u"]) @ p["o"]
        return norm(x)

    keys = jax.random.split(K(1), 16)
    ups, downs = ([w * 30 for w in gaussian(k, 64)] for k in (keys[:8], keys[8:]))
    params = [{"u": u, "o": o} for u, o in zip(ups, downs, strict=True)]
    if large is not None:
        params[large]["o"] = params[large]["o"] * 100
    x = 0.1 * jax.random.normal(K(2), (256, 64))
    faults = pp.diagnose(model, params, x, key=K(0)).findings.faults
    assert {f.parameter for f in faults} == ({f"{large}.o"} if large is not None else set())


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1e6, "exploding"), (1.0, None), (1e-6, "vanishing")]
)
def test_a_call_that_was_not_opened_is_judged_in_a_shallow_model(factor, verdict):
    @jax.custom_vjp
    def solve(w, x):
        return jnp.tanh(x @ w)

    solve.defvjp(
        lambda w, x: (solve(w, x), (w, x)),
        lambda s, g: (factor * s[1].T @ g, factor * g @ s[0].T),
    )

    def model(p, x):
        return solve(p["core"], jax.nn.relu(x @ p["embed"])) @ p["out"]

    *keys, data = jax.random.split(K(1), 4)
    p = dict(zip(("embed", "core", "out"), gaussian(keys, 64), strict=True))
    found = pp.diagnose(model, p, jax.random.normal(data, (32, 64)), key=K(0)).findings
    if verdict is None:
        assert found == ()
        return
    (one,) = found
    assert (one.verdict.value, one.direction, one.parameter) == (verdict, "backward", "core")
    assert one.is_fault and "across solve" in one.reason
    assert 11 < abs(one.total) < 13


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("gain", "words"), [(1.0, "learns from the last"), (2.0, "share wh")])
def test_a_recurrent_net_gets_a_sentence_and_not_one_for_each_step(gain, words, swapped):
    def model(p, x):
        terms = lambda h, x: (x @ p["wx"], h @ p["wh"])[:: -1 if swapped else 1]  # noqa: E731
        step = lambda h, x: (jax.nn.relu(sum(terms(h, x)[1:], terms(h, x)[0])), None)  # noqa: E731
        return jax.lax.scan(step, jnp.zeros((len(x), 32)), x.swapaxes(0, 1))[0]

    (wh,) = gaussian([K(1)], 32, gain)
    p = {"wx": jax.random.normal(K(0), (8, 32)) / 8**0.5, "wh": 1.5 * wh if gain > 1 else wh}
    found = pp.diagnose(model, p, jax.random.normal(K(2), (16, 100, 8)), key=K(0)).findings
    assert 1 <= len(found) <= 3
    assert bool(found.faults) == (gain > 1)
    assert all(words in f.reason and f.parameter == "wh" for f in found)
