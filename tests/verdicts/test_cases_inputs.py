"""Raw inputs among others, joined to them or with a layer of their own; their healthy twins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp

K = jax.random.key
LECUN = jax.nn.initializers.lecun_normal()
SIZES = {"first": (9, 32), "second": (32, 32), "third": (32, 32), "head": (32, 4)}
SIZES |= {"of_x": (8, 32), "of_t": (1, 32), "after_t": (32, 32), "of_waves": (16, 32)}
P = {name: LECUN(K(i), size) for i, (name, size) in enumerate(SIZES.items())}
X, T = jax.random.normal(K(20), (32, 8)), 1000 * jax.random.uniform(K(21), (32,))
STEPS = jax.random.randint(K(22), (32,), 0, 1000)
TABLE = {"table": jax.random.normal(K(23), (1000, 1))}


def layers(p, h, *names):
    for name in names:
        h = jax.nn.silu(h @ p[name])
    return h @ p["head"]


def joined(p, x, t):
    h = jnp.concatenate([x, t[:, None].astype(jnp.float32)], axis=-1)
    return layers(p, h, "first", "second", "third")


def beside(p, x, t):
    """A diffusion model's time, with layers of its own, added to those of x."""
    own = jax.nn.silu(t[:, None].astype(jnp.float32) @ p["of_t"]) @ p["after_t"]
    return (own + jax.nn.silu(x @ p["of_x"])) @ p["head"]


def added(p, x, t):
    h = jax.nn.silu(jax.nn.silu(x @ p["of_x"]) @ p["second"] + t[:, None] @ p["of_t"])
    return layers(p, h, "third")


def waves(p, x, t):
    angles = t[:, None] * jnp.exp(-jnp.arange(8.0))[None]
    e = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return (jax.nn.silu(e @ p["of_waves"]) @ p["after_t"] + x @ p["of_x"]) @ p["head"]


def from_table(p, x, t):
    return joined(p, x, p["table"][t][:, 0])


def batch(p, b):
    return joined(p, b["x"], b["t"])


def normed(p, x, t):
    h = jnp.concatenate([x, t[:, None]], axis=-1)
    h = (h - h.mean(0)[None]) / jnp.sqrt(h.var(0)[None] + 1e-6)
    return layers(p, h, "first", "second")


WILD = {
    "joined": (joined, (X, T), "first", "input 2", T),
    "integers, joined": (joined, (X, STEPS), "first", "input 2", STEPS),
    "joined, of a dictionary": (batch, ({"x": X, "t": T},), "first", "input 1['t']", T),
    "a layer of its own": (beside, (X, STEPS), "of_t", "input 2", STEPS),
    "added on the way": (added, (X, T), "of_t", "input 2", T),
}


@pytest.mark.parametrize("name", WILD)
def test_a_wild_input_is_named_first_and_alone_and_its_numbers_mend_it(name):
    """Its mean and deviation are NumPy's; x, and what x makes, are not blamed for it."""
    model, inputs, layer, called, raw = WILD[name]
    found = pp.diagnose(model, P, *inputs, key=K(0))
    (finding,) = [f for f in found.findings.faults if f.direction == "forward"]
    assert (finding.parameter, finding.verdict) == (layer, pp.Verdict.EXPLODING)
    mean, sd = np.mean(raw), np.std(raw)
    assert f"the values of {called}, which reach {layer}" in finding.reason
    assert f"subtract {mean:.3g}, divide by {sd:.3g}" in finding.reason
    assert str(found.findings[0]) == str(finding)
    (change,) = [c for c in pp.advise(found) if c.remedy == "standardised inputs"]
    assert f"{called} of {layer}" in change.what
    rescaled = (raw.astype(jnp.float32) - float(f"{mean:.3g}")) / float(f"{sd:.3g}")
    mended = jax.tree.map(lambda x: rescaled if x is raw else x, inputs)
    assert not [
        f for f in pp.diagnose(model, P, *mended, key=K(0)).findings if f.direction == "forward"
    ]


HEALTHY = {
    "waves": (waves, (X, T)),
    "a table": (from_table, (X, STEPS)),
    "rescaled within": (lambda p, x, t: joined(p, x, (t - 500) / 290), (X, T)),
    "a mask": (joined, (X, T > 990)),
    "a normalisation": (normed, (X, T)),
    "a picture from 0 to 1": (joined, (X, T / 1000)),
    "one that hardly differs": (joined, (X, 12 + T / 1e4)),
    "one that is small": (joined, (X, T / 1e8)),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_inputs_that_are_encoded_or_rescaled_are_healthy(name):
    model, inputs = HEALTHY[name]
    found = pp.diagnose(model, P | TABLE, *inputs, key=K(0)).findings
    assert not [f for f in found if f.direction == "forward"]


def test_growth_behind_a_wild_input_is_still_named():
    """All of the signal passes the first layer: its scale does not hide that of the others."""
    weights = [LECUN(k, (32, 32)) * 4 for k in jax.random.split(K(1), 8)]
    model = lambda ws, x: jax.lax.scan(lambda h, w: (h @ w, None), x, ws)[0]  # noqa: E731
    x = 200 * jax.random.normal(K(2), (32, 32))
    found = pp.diagnose(model, jnp.stack(weights), x, key=K(0)).findings
    reasons = [f.reason for f in found.faults if f.direction == "forward"]
    assert any("Standardise" in reason for reason in reasons)
    assert any("times as large would keep it" in reason for reason in reasons)


def test_the_record_tells_on_which_inputs_a_site_depends():
    record = pp.diagnose(added, P, X, T, key=K(0)).record
    inputs = dict(zip(record.name.values, record.inputs.values, strict=True))
    assert (inputs["of_x"], inputs["of_t"], inputs["third"]) == ("0", "1", "0 1")
    read = dict(zip(record.name.values, record.input_number.values, strict=True))
    assert (read["of_x"], read["of_t"]) == (0, 1) and np.isnan(read["third"])
