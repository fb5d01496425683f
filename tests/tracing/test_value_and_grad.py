"""What a probe does around the user's computation, and what it may be asked to take."""

import gc
import importlib
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.tracing.probe import Options, probe, uncollected
from propagate.tracing.trees import arguments, parameter_paths, partition

MEAN_Q, ALL = 70, 160  # reductions for statistics of a GPT's 310 sites and 124 parameters
W, X = 0.5 * jnp.eye(3), jnp.arange(6.0).reshape(2, 3)


def loss(w, x):
    return jnp.mean(jnp.tanh(x @ w) ** 2)


def enabled_during(run):
    """Whether the collector ran at each call of a host function in the user's program."""
    seen = []

    @jax.custom_vjp
    def watched(x):
        return x

    def forward(x):
        seen.append(gc.isenabled())
        return x, None

    watched.defvjp(forward, lambda _, g: (g,))
    run(lambda w, x: jnp.sum(watched(x @ w) @ w))
    return seen


def test_the_collector_is_held_back_while_a_program_is_traced_and_not_while_it_runs():
    """A function's own derivative rule is run by `value_and_grad`, eagerly or within a jit."""
    assert gc.isenabled()
    eager = enabled_during(lambda fn: pp.value_and_grad(fn)(W, X))
    within = enabled_during(lambda fn: jax.jit(pp.value_and_grad(fn))(W, X))
    assert eager and all(eager)
    assert within and not any(within)
    assert gc.isenabled()


def test_the_collector_comes_back_after_an_error_and_stays_off_where_it_was():
    with pytest.raises(ZeroDivisionError), uncollected():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_probe_takes_what_it_is_told_to():
    tapped, _ = probe(loss, W, X, Options(("q",)))
    kept = replace(tapped, take=lambda site, eqn, ins, x: {"value": {"x": x}})
    value, seen = kept(W, X, kept.slots())
    np.testing.assert_allclose(value, loss(W, X), rtol=1e-6)
    np.testing.assert_array_equal(seen[(0,)]["value"]["x"], X @ W)
    assert set(seen) == set(tapped.sites)


def test_several_arguments_are_differentiated_in_the_order_asked_for():
    fn = lambda a, b, x: jnp.sum(jnp.tanh(x @ a) @ b)  # noqa: E731
    for argnums in (1, (1,), (1, 0), (-2, -3)):
        (_, grads), trace = pp.value_and_grad(fn, argnums=argnums)(W, 2 * W, X)
        own = jax.grad(fn, argnums=argnums)(W, 2 * W, X)
        assert jax.tree.structure(grads) == jax.tree.structure(own)
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(own), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        assert trace.record().sizes["weight"] == np.size(argnums)


def test_a_tree_comes_apart_and_is_filled_again():
    tree = {"a": X, "b": [1, "word"], "c": None}
    moving, fill = partition(tree, lambda x: isinstance(x, jax.Array))
    assert moving == {"a": X, "b": [None, None], "c": None} or moving["b"] == [None, None]
    again = fill(jax.tree.map(lambda x: 2 * x, moving))
    np.testing.assert_array_equal(again["a"], 2 * X)
    assert again["b"] == [1, "word"] and again["c"] is None


def test_flat_arguments_and_paths_have_one_order():
    params = {"b": {"w": W, "a": X}, "a": [X, W]}
    paths = parameter_paths(params)
    assert paths == ["a.0", "a.1", "b.a", "b.w"]
    for x, path in zip(arguments(params, None), paths, strict=True):
        np.testing.assert_array_equal(x, X if path in ("a.0", "b.a") else W)


def wide(w, x):
    """Attention-like: (inputs, positions, units), a nonlinearity, and a scan of two turns."""
    h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)
    return jnp.mean(jax.nn.relu(h @ w[0]) ** 2)


def many(key, *shape):
    return jax.random.normal(key, shape)


PARAMS = many(jax.random.key(0), 2, 32, 32) / 32**0.5
TOKENS = many(jax.random.key(1), 16, 64, 32)


@pytest.mark.parametrize("few", [100, 2**18])
def test_all_values_handed_out_and_a_sample_of_them_give_what_sums_inside_give(few, monkeypatch):
    """All to rounding. Of a sample, q is within 0.1 decades: 128 rows whose squares scatter by 0.6
    of their mean have a standard error of 0.023, so that is four: p = 6e-5 for each number."""
    monkeypatch.setattr("propagate.record.kept_values.FEW_IN_ALL", few)

    def record(**options):
        return jax.jit(pp.value_and_grad(wide, **options))(PARAMS, TOKENS)[1].record()

    inside, every, some = record(kept_bytes=0), record(sample=None), record(sample=4096)
    for name in inside.data_vars:
        if inside[name].dtype.kind == "f":
            pair = inside[name].values, every[name].values
            np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-4, err_msg=name)
    assert (inside["values"] == 16 * 64 * 32).all() and (some["values"] == 4096).sum() >= 3
    for name in ("log10_forward_q", "log10_backward_q"):
        np.testing.assert_allclose(some[name], inside[name], atol=0.1, err_msg=name)
    assert some["log10_forward_max"].attrs["of"] == "the sample"
    assert (some["log10_forward_max"] <= inside["log10_forward_max"] + 1e-5).all()


def test_a_sample_leaves_value_and_gradients_as_they_are():
    (value, grads), _ = jax.jit(pp.value_and_grad(wide, sample=64))(PARAMS, TOKENS)
    plain, own = jax.jit(jax.value_and_grad(wide))(PARAMS, TOKENS)
    np.testing.assert_allclose(value, plain, rtol=1e-6)
    np.testing.assert_allclose(grads, own, atol=1e-6 * float(jnp.abs(own).max()))


def test_the_smallest_sample_flags_the_sick_net_and_not_its_healthy_twin():
    def net(layers, x):
        for w in layers:
            x = jax.nn.relu(x @ w)
        return x

    keys = jax.random.split(jax.random.key(2), 8)
    layers = [many(k, 32, 32) * (2 / 32) ** 0.5 for k in keys]
    found = lambda layers: pp.diagnose(net, layers, TOKENS, key=keys[0], sample=1)  # noqa: E731
    healthy, dead = found(layers), found([layers[0], -jnp.abs(layers[1]), *layers[2:]])
    assert not healthy.findings
    assert any("in a sample of 16 of 1024" in f.reason for f in dead.findings), str(dead)
    small = found([0.03 * w for w in layers]).findings
    assert {f.verdict.value for f in small} >= {"vanishing"}


def test_what_is_kept_is_bounded_and_asked_for_in_numbers():
    with pytest.raises(pp.UnusableInput, match="sample must be 1 number"):
        pp.value_and_grad(loss, sample=0)(W, X)
    with pytest.raises(pp.UnusableInput, match="kept_bytes must be 0 or more"):
        pp.value_and_grad(loss, kept_bytes=-1)(W, X)


@pytest.mark.lenient
def test_a_gpt_on_cuda_has_few_reductions_for_all_its_sites(monkeypatch):
    """310 sites in two directions had 5 to 14 each; now those of a shape are summed together."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    monkeypatch.syspath_prepend(folder)
    gpt = importlib.import_module("diagnose_cost")
    args = gpt.weights(jax.random.key(0)), jnp.zeros((gpt.BATCH, gpt.LENGTH), int)

    def reductions(fn):
        leaves = jax.jit(lambda *args: jax.tree.leaves(fn(*args)))
        text = jax.export.export(leaves, platforms=["cuda"])(*args).mlir_module()
        return text.count("stablehlo.reduce(")

    plain = reductions(jax.value_and_grad(gpt.loss))
    assert reductions(pp.value_and_grad(gpt.loss, measures=("mean", "q"))) - plain <= MEAN_Q
    assert reductions(pp.value_and_grad(gpt.loss)) - plain <= ALL
