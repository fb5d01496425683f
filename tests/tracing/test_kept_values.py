"""Values handed out by the model's program and summed apart: the same numbers, and few programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.models import initial_weights, observation
from propagate.models.pure_function import pure
from propagate.record import kept_values, measures
from propagate.record.kept_values import Kept, reduced
from propagate.record.sums import Layout, finish, needed
from propagate.tracing.probe import Options, fitting, probe
from propagate.verdicts.findings import Verdict

KEY = jax.random.key(0)
N, B = 16, 8
EVERY = tuple(m for m in measures.SITE_MEASURES if m.name != "saturated_fraction")


def net(params, x):
    for w in params["layers"]:
        x = x + jax.nn.gelu(x @ w + params["bias"])
    return x


def scanned(params, x):
    block = lambda x, w: (x + jnp.tanh(x @ w), None)  # noqa: E731
    x = jax.lax.scan(block, x, jnp.stack(params["layers"]))[0]
    return jax.lax.cond(x.sum() > -1e9, jnp.tanh, jnp.sin, x)


def weights(scale=1.0):
    keys = jax.random.split(KEY, 3)
    layers = [scale * jax.random.normal(k, (N, N)) / N**0.5 for k in keys]
    return {"layers": layers, "bias": jnp.full((1, N), 0.1)}


X = jax.random.normal(jax.random.key(1), (B, N))


def same(ours, theirs, rtol=1e-5):
    """Records of the same sites and numbers."""
    assert set(ours.variables) == set(theirs.variables)
    for name in ours.data_vars:
        if ours[name].dtype.kind == "f":
            np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, atol=rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("model", [net, scanned])
def test_statistics_are_the_same_whether_values_are_kept_or_summed_in_the_program(model):
    kept = pp.diagnose(model, weights(), X, key=KEY)
    inside = pp.diagnose(model, weights(), X, key=KEY, kept_bytes=0)
    some = pp.diagnose(model, weights(), X, key=KEY, kept_bytes=4 * 3 * B * N * 4)
    same(kept.record, inside.record)
    same(kept.record, some.record)
    np.testing.assert_allclose(kept.outputs, model(weights(), X), rtol=1e-5, atol=1e-6)


def test_statistics_are_those_of_explicit_perturbations():
    """The cotangent of h is the gradient by zeros that are added to it."""
    loss = lambda out, _: jnp.mean(out**2)  # noqa: E731

    def perturbed(zeros, x):
        for w, z in zip(weights()["layers"], zeros, strict=True):
            x = x + jax.nn.gelu(x @ w + z + weights()["bias"])
        return jnp.mean(x**2)

    found = pp.diagnose(net, weights(), X, key=KEY, loss=loss).record
    found = found.isel(site=found.kind.values == "matmul")
    gradients = jax.grad(perturbed)([jnp.zeros((B, N))] * 3, X)
    expected = [np.mean(np.square(np.asarray(g, np.float64))) for g in gradients]
    np.testing.assert_allclose(10**found.log10_backward_q, expected, rtol=1e-4)


def test_kept_values_at_the_edges_of_float32_neither_vanish_nor_overflow():
    def chain(params, x):
        for w in params["layers"]:
            x = x @ w
        return x

    for power in (-12, 12):
        params = {"layers": [jnp.eye(N) * 10.0**power] * 3}
        record = pp.diagnose(chain, params, X, key=KEY).record
        q = np.log10(np.mean(np.square(X, dtype=np.float64)))
        expected = [q + 2 * power * k for k in (1, 2, 3)]
        np.testing.assert_allclose(record.log10_forward_q, expected, rtol=1e-4)


def test_what_is_not_finite_is_found_in_kept_values():
    params = weights()
    params["layers"][1] = params["layers"][1].at[0, 0].set(jnp.nan)
    record = pp.diagnose(net, params, X, key=KEY).record
    assert np.isnan(record.log10_forward_q.values[-1])
    assert np.isfinite(record.log10_forward_q.values[0])
    assert not [
        f
        for f in pp.diagnose(net, weights(), X, key=KEY).findings
        if f.verdict == Verdict.NON_FINITE
    ]


@pytest.mark.parametrize("turns", [(), (3,), (2, 3)])
def test_a_program_and_the_host_sum_alike(turns, monkeypatch):
    layout, sums = Layout(0, 2), needed(EVERY)
    draw = np.random.default_rng(0).normal(0.3, 1, (*turns, 5, 4, 6)).astype(np.float32)
    draw[..., 2] = 0
    one = Kept(jnp.asarray(draw), sums, layout, len(turns))
    (host,) = reduced([one])
    monkeypatch.setattr(kept_values, "WORTH_A_PROGRAM", 0)
    (device,) = reduced([one])
    for m in EVERY:
        pair = [finish(m, own, layout.of((5, 4, 6))) for own in (host, device)]
        assert pair[0].shape == turns
        np.testing.assert_allclose(*pair, rtol=2e-5, atol=2e-5, err_msg=m.name)


def test_values_are_kept_from_the_smallest_site_on_up_to_a_number_of_bytes():
    wide = lambda w, x: jnp.sum(jnp.tanh(x @ w) @ jnp.ones((4 * N, 2)))  # noqa: E731
    tapped, _ = probe(wide, jnp.ones((N, 4 * N)), X, Options(("q",)))
    small = min(tapped.sites, key=lambda path: tapped.sites[path].shape)
    assert not fitting(tapped, 0)
    assert fitting(tapped, 2 * 4 * B * 2) == {small}
    assert fitting(tapped, 2**20) == set(tapped.sites)


def test_the_models_program_holds_no_reduction_for_a_statistic_and_serves_again(monkeypatch):
    """So that what is compiled grows with the model alone; and numbers follow new weights."""
    compiled = []
    whole = observation._compiled

    def watched(run, args, *, quick):
        compiled.append(str(jax.make_jaxpr(run)(*args)).count("reduce_max"))
        return whole(run, args, quick=quick)

    monkeypatch.setattr(observation, "_compiled", watched)
    one = pp.diagnose(net, weights(), X, key=KEY)
    known = len(observation._programs), list(observation._programs)[-1]
    two = pp.diagnose(net, weights(2.0), X, key=KEY)
    assert compiled == [0, 0]
    assert known == (len(observation._programs), list(observation._programs)[-1])
    apart = two.record.log10_weight_q - one.record.log10_weight_q
    np.testing.assert_allclose(apart[1:], 2 * np.log10(2), rtol=1e-4)


def test_what_a_function_closes_over_is_not_kept_from_an_earlier_call():
    for scale in (1.0, 3.0):
        inner = jax.jit(lambda x, scale=scale: x * jnp.full((1, N), scale))
        found = pp.diagnose(lambda w, x: inner(x @ w), jnp.eye(N), X, key=KEY)  # noqa: B023
        np.testing.assert_allclose(found.outputs, scale * X, rtol=1e-6)


@pytest.mark.lenient
def test_initialisation_is_compiled_once_for_a_model():
    import flax.linen as nn

    model, given = nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(2)]), []
    for seed in (0, 0, 1):
        ready = pure(model, X, key=jax.random.key(seed))
        given.append(jax.tree.leaves(ready.params)[1])
    np.testing.assert_array_equal(given[0], given[1])
    assert not np.array_equal(given[0], given[2])
    program = next(f for known, f in initial_weights._initialisers.items() if known[1] == id(model))
    assert program._cache_size() == 1
    plain = model.init(initial_weights.streams(jax.random.split(jax.random.key(0), 3)[1]), X)
    np.testing.assert_allclose(given[0], jax.tree.leaves(plain)[1], rtol=1e-5)


@pytest.mark.lenient
def test_a_model_that_looks_at_a_number_of_its_input_is_initialised_as_well():
    import flax.linen as nn

    class Chosen(nn.Module):
        @nn.compact
        def __call__(self, x, deep):
            return nn.Dense(2)(nn.Dense(4)(x) if deep else x)

    assert len(jax.tree.leaves(pure(Chosen(), X, jnp.asarray(True), key=KEY).params)) == 4
