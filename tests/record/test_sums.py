"""Sums finished on the host against the measures of a stack, which are pure functions of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from propagate.record import measures
from propagate.record.sums import (
    REDUCTIONS,
    Layout,
    Sizes,
    finish,
    flat,
    keep,
    kept,
    needed,
    reduce,
)

B, T, N = 5, 7, 6
Y = np.random.default_rng(0).normal(0.3, 1, (B, T, N)).astype(np.float32)
Y[:, :, 2] = 0  # a dead channel
SCALES = (1.0, 1e-30, 1e30)
OF_WEIGHTS = [m for m in measures.SITE_MEASURES if m.shaped]
OF_VALUES = [m for m in measures.SITE_MEASURES if not m.shaped]


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("measure", OF_VALUES, ids=lambda m: m.name)
def test_a_reduction_is_its_measure(measure, scale, few):
    """Of values laid out (positions, units, inputs), as a vmapped matrix product leaves them."""
    if measure.name == "saturated_fraction":
        seen, expected = flat(jnp.asarray(Y)), measure.fn(Y)
    else:
        x = jnp.asarray(Y.transpose(1, 2, 0)) * np.float32(scale)
        layout = Layout(batch=2, unit=1)
        sums = needed([measure])
        seen = jax.jit(keep if few else lambda x: reduce(x, sums, layout))(x)
        seen = kept(jax.device_get(seen), sums, layout)
        laid = {
            "token_correlation": Y,
            "token_effective_rank": Y,
            "dead_fraction": Y.reshape(-1, N),
        }
        expected = measure.fn(jnp.asarray(laid.get(measure.name, Y.reshape(B, -1))))
    expected = np.float64(expected)
    if measure.power:
        expected = np.log10(expected) + measure.power * np.log10(scale)
    found = finish(measure, jax.device_get(seen), Sizes(B, T, N))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("measure", OF_WEIGHTS, ids=lambda m: m.name)
def test_weights_are_as_numpy_has_them(measure, few):
    """Of two heads, with what a causal mask hides, and a first row of one key."""
    scores = np.random.default_rng(2).normal(0, [[[1.0]], [[4.0]]], (B, 2, T, T))
    scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p = (p / p.sum(-1, keepdims=True)).astype(np.float32)
    at = [(b, h, q) for h in range(2) for q in range(1, T) for b in range(B)]
    each = [p[b, h, q, : q + 1].astype(float) for b, h, q in at]
    entropy = np.array([-(w * np.log(w)).sum() / np.log(len(w)) for w in each])
    head = np.array([h for _, h, _ in at])
    oracle = {
        "entropy": entropy.mean(),
        "lowest_entropy": min(entropy[head == h].mean() for h in range(2)),
        "largest_weight": np.mean([w.max() for w in each]),
        "score_sd": np.mean([np.log(w).var() for w in each]) ** 0.5,
    }
    layout, sums = Layout(0, 3), needed([measure])
    seen = jax.jit(keep if few else lambda x: reduce(x, sums, layout))(jnp.asarray(p))
    seen = kept(jax.device_get(seen), sums, layout)
    found = finish(measure, seen, layout.of(p.shape))
    np.testing.assert_allclose(found, oracle[measure.name], rtol=1e-4)
    laid = jnp.asarray(p.transpose(1, 0, 2, 3).reshape(2, -1, T))
    np.testing.assert_allclose(measure.fn(laid), oracle[measure.name], rtol=1e-4)


def test_what_does_not_sum_to_one_is_no_softmax():
    measure = OF_WEIGHTS[-1]
    layout, sums = Layout(0, 2), needed([measure])
    seen = jax.device_get(reduce(jnp.asarray(Y), sums, layout))
    assert np.isnan(finish(measure, seen, layout.of(Y.shape)))
    one_hot = jnp.eye(N)[None].repeat(B, axis=0)
    seen = jax.device_get(reduce(one_hot, sums, layout))
    found = [float(finish(m, seen, layout.of(one_hot.shape))) for m in OF_WEIGHTS]
    assert found == [0, 0, 1, 0]


def test_every_measure_has_its_reduction():
    assert set(REDUCTIONS) == {m.name for m in measures.SITE_MEASURES}


def test_variance_far_below_the_second_moment_keeps_its_digits():
    variance = next(m for m in measures.SITE_MEASURES if m.name == "variance")
    x = 1 + np.random.default_rng(1).normal(0, 1e-4, (64, 1, 8)).astype(np.float32)
    seen = reduce(jnp.asarray(x), needed([variance]), Layout(0, 2))
    expected = np.log10(x.astype(np.float64).var(0).mean())
    np.testing.assert_allclose(
        finish(variance, jax.device_get(seen), Sizes(64, 1, 8)), expected, atol=1e-3
    )


def test_a_value_without_inputs_has_no_variance_over_them():
    for m in measures.SITE_MEASURES:
        if m.name in ("variance", "correlation"):
            seen = reduce(jnp.ones(4), needed([m]), Layout(None, 0))
            assert np.isnan(finish(m, jax.device_get(seen), Sizes(1, 1, 4)))


def test_a_mean_whose_sum_overflows_is_not_measured():
    mean, q = (next(m for m in measures.SITE_MEASURES if m.name == name) for name in ("mean", "q"))
    for value, expected in ((1e37, np.nan), (1e33, 1.0)):
        x = jnp.full((B, T, N), value)
        seen = jax.device_get(reduce(x, needed([mean, q]), Layout(0, 2)))
        np.testing.assert_allclose(finish(mean, seen, Sizes(B, T, N)), expected, rtol=1e-5)
        np.testing.assert_allclose(finish(q, seen, Sizes(B, T, N)), 2 * np.log10(value), rtol=1e-5)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_shows(value):
    x = Y.copy()
    x[1, 2, 3] = value
    q = next(m for m in measures.SITE_MEASURES if m.name == "q")
    seen = jax.device_get(reduce(jnp.asarray(x), ("squares",), Layout(0, 2)))
    assert not np.isfinite(finish(q, seen, Sizes(B, T, N)))
