"""What a probe does around the user's computation, and what it may be asked to take."""

import gc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.tracing.probe import Options, probe, uncollected
from propagate.tracing.trees import arguments, parameter_paths, partition

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
