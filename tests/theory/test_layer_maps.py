"""Normalised, residual and dropout layers: exact laws, and wide networks that were drawn."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.theory import gauss, mean_field
from propagate.theory.layer_maps import Weights, chain, gradients, layer, normalise, residual
from propagate.types import UnusableInput

HE = Weights(2.0)


def through(step, depth, q=1.0, apart=1.0):
    """Return the passages of `depth` layers and the q to which each leads."""
    passages, qs = [], []
    for _ in range(depth):
        passages.append(step(q, apart))
        q, apart = passages[-1][:2]
        qs.append(q)
    return passages, np.array(qs)


def test_a_layer_without_anything_is_that_of_meanfield():
    found = layer("tanh", Weights(1.7, 0.05, 0.9, 0.5), 0.6, 0.3)
    at = gauss.moments("tanh", 0.6)
    assert found.q == pytest.approx(mean_field.q_map("tanh", 1.7, 0.05, 0.6, 0.9), rel=1e-12)
    assert found.apart == pytest.approx(
        mean_field.c_map("tanh", 1.7, 0.05, 0.6, 0.3, 0.9), rel=1e-9
    )
    assert found.gradient == pytest.approx(1.7 / 0.9 * 0.5 * at["slope2"][0], rel=1e-12)


def test_gradients_of_two_inputs_shatter():
    """Plain He ReLU from orthogonal inputs: the product of 1 - theta/pi, by hand."""
    passages, _ = through(lambda q, apart: layer("relu", HE, q, apart), 10)
    for depth, expected in ((1, 0.5), (2, 0.30155762421360044), (10, 0.03365215097663177)):
        p, r = gradients(passages[:depth], correlation=1.0)[0]
        assert (p, r) == pytest.approx((1, expected), rel=1e-9)


def test_plain_he_blocks_double():
    passages, q = through(lambda q, apart: residual(layer("relu", HE, q), q), 30)
    assert q == pytest.approx(2.0 ** np.arange(1, 31), rel=1e-12)
    assert gradients(passages)[0, 0] == pytest.approx(2.0**30, rel=1e-12)


@pytest.mark.parametrize("deep", [1, 2])
def test_scaled_branches_grow_linearly(deep):
    """NF-ResNet (Brock et al., 2021): 1 + k alpha^2, one layer in a branch or two."""

    def block(q, apart):
        branch = layer("relu", HE, q, norm="rms")
        if deep == 2:
            branch = chain(branch, layer("relu", HE, branch.q))
        return residual(branch, q, scale=0.2)

    passages, q = through(block, 20)
    assert q == pytest.approx(1 + 0.04 * np.arange(1, 21), rel=1e-12)
    assert gradients(passages)[0, 0] == pytest.approx(q[-1], rel=1e-12)


def test_a_batch_norm_in_the_branch_adds_one():
    """De & Smith (2020): l + 1; and blocks that start with nothing in the branch stay."""
    _, q = through(
        lambda q, apart: residual(layer("relu", HE, q, apart, norm="batch", batch=32), q, apart), 9
    )
    assert q == pytest.approx(np.arange(2, 11), rel=1e-12)
    passages, q = through(lambda q, apart: residual(layer("relu", HE, q), q, scale=0.0), 9)
    assert (q == 1).all() and (gradients(passages)[:, 0] == 1).all()


def test_a_tanh_residual_network_grows_as_the_root_of_depth():
    """Yang & Schoenholz (2017): sum of log(1 + sigma_w^2 E phi'^2) with sigma_w = 1, p_0 = 1."""
    passages, _ = through(lambda q, apart: residual(layer("tanh", Weights(1.0), q, 0), q, 0), 1000)
    grown = np.log(gradients(passages)[::-1, 0])
    total = np.log(gradients(passages[:100])[0, 0])
    assert total == pytest.approx(10.5455, abs=5e-5)
    assert grown[1000] == pytest.approx(34.2651, abs=5e-5)


def test_the_rate_of_a_batch_normalised_network():
    passages, _ = through(
        lambda q, apart: layer("tanh", Weights(1.3, 0.2), q, apart, norm="batch", batch=16), 6
    )
    p = gradients(passages)[:, 0]
    assert p[1] / p[2] == pytest.approx(pp.batch_norm_rate("tanh", 16).value, rel=1e-9)
    limit = layer("tanh", Weights(1.0), 0.394294490398, norm="batch")
    assert limit.gradient == pytest.approx(pp.batch_norm_rate("tanh").value, rel=1e-9)


def test_norms_over_units():
    tanh = gauss.moments("tanh", 1.0)
    before = layer("tanh", Weights(1.5, 0.1), 7.0, 0.4, norm="rms")
    assert before.q == pytest.approx(1.5 * tanh["second"][0] + 0.1, rel=1e-12)
    assert before.gradient == pytest.approx(1.5 * tanh["slope2"][0] / 7, rel=1e-12)
    assert before[:2] == layer("tanh", Weights(1.5, 0.1), 7.0, 0.4, norm="layer")[:2]
    after = layer("relu", HE, 3.0, norm="layer", after=True)  # E phi phi' = q/2 pi if c = 0
    variance = 3 * (math.pi - 1) / (2 * math.pi)
    assert (after.q, after.apart) == pytest.approx((2, 1), rel=1e-12)
    assert after.gradient == pytest.approx(2 * 0.5 / variance, rel=1e-12)
    size = layer("relu", HE, 3.0, norm="rms", after=True)
    assert (size.q, size.gradient) == pytest.approx((2, 2 / 3), rel=1e-12)
    assert normalise(4.0, 0.3)[:2] == (1.0, 0.3) and normalise(4.0).gradient == 0.25


def test_dropout_is_on_the_diagonal_only():
    """The fixed point of c for tanh at sigma_w^2 = 1.76095464, sigma_b^2 = 0.05, keep 0.9."""
    weights = Weights(1.7609546396, 0.05, keep=0.9)
    passages, _ = through(lambda q, apart: layer("tanh", weights, q, apart), 100)
    assert 1 - passages[-1].apart == pytest.approx(0.356414, abs=1e-6)


def drawn(stack, key, width, batch):
    """Return (q, c q) of a random stack's signals, and (p, r) of its gradients, per layer."""
    keys = jax.random.split(key, len(stack) + 2)
    start = jax.random.normal(keys[0], (batch, width))

    def pairs(h):
        gram = h @ h.T / width
        own = jnp.trace(gram)
        return own / batch, (gram.sum() - own) / (batch * (batch - 1))

    def run(taps):
        h, seen = start, []
        for step, own, tap in zip(stack, keys[2:], taps, strict=True):
            h = step(own, h + tap)
            seen.append(pairs(h))
        return jnp.sum(h * jax.random.normal(keys[1], h.shape)), seen

    found, seen = jax.grad(run, has_aux=True)([jnp.zeros_like(start)] * len(stack))
    return jnp.array(seen), jnp.array([pairs(g) for g in found])


def centred(h, axis):
    h = h - h.mean(axis, keepdims=True)
    return h / jnp.sqrt(jnp.mean(h * h, axis, keepdims=True))


NORMS = {"batch": lambda h: centred(h, 0), "layer": lambda h: centred(h, 1), None: lambda h: h}


def dense(phi, weights, norm=None, after=False):
    """A layer as `passage.layer` describes it, drawn."""

    def step(key, h):
        width = h.shape[1]
        keys = jax.random.split(key, 3)
        x = NORMS[norm](phi(h)) if after else phi(NORMS[norm](h))
        x = x * jax.random.bernoulli(keys[1], weights.keep, x.shape).astype(x.dtype) / weights.keep
        w = jax.random.normal(keys[0], (width, width)) * math.sqrt(weights.sigma_w2 / width)
        return x @ w + math.sqrt(weights.sigma_b2) * jax.random.normal(keys[2], (width,))[None]

    return step


W = Weights(1.5, 0.1)
CASES = {
    "batch norm": (
        dense(jax.nn.relu, W, "batch"),
        lambda q, apart: layer("relu", W, q, apart, norm="batch", batch=8),
    ),
    "batch norm, dropout": (
        dense(jnp.tanh, Weights(1.5, 0.1, 0.8), "batch"),
        lambda q, apart: layer("tanh", Weights(1.5, 0.1, 0.8), q, apart, norm="batch", batch=8),
    ),
    "layer norm after": (
        dense(jax.nn.relu, W, "layer", True),
        lambda q, apart: layer("relu", W, q, apart, norm="layer", after=True),
    ),
    "layer norm": (
        dense(jnp.tanh, W, "layer"),
        lambda q, apart: layer("tanh", W, q, apart, norm="layer"),
    ),
    "residual, batch norm": (
        lambda key, h: 0.8 * h + 0.7 * dense(jax.nn.relu, W, "batch")(key, h),
        lambda q, apart: residual(
            layer("relu", W, q, apart, norm="batch", batch=8), q, apart, skip=0.8, scale=0.7
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wide_networks_are_as_expected(case):
    """20 networks of 3 layers of 256 units: 14 numbers, each within 5 standard errors of their mean
    and 0.01 of the second moment for the next order in 1/width (seen: 0.003); for a Gaussian mean
    5 are exceeded once in 10^5 such tests. Expectations that are 20 % off are seen to be."""
    step, expected = CASES[case]
    keys = jax.random.split(jax.random.key(5), 20)
    found = [np.asarray(x) for x in jax.jit(jax.vmap(lambda k: drawn([step] * 3, k, 256, 8)))(keys)]
    passages, _ = through(expected, 3)
    signals = np.array([(p.q, p.q * (1 - p.apart)) for p in passages])
    for sample, theory in zip(found, (signals, gradients(passages)[:-1]), strict=True):
        off, error = sample.mean(0) - theory, sample.std(0, ddof=1) / math.sqrt(len(sample))
        assert (abs(off) < 5 * error + 0.01 * theory[:, :1]).all(), (off / error).round(1)
        off = sample.mean(0) - 1.2 * theory
        assert (abs(off)[:, 0] > 5 * error[:, 0]).any()


@pytest.mark.parametrize("call", [
    lambda: layer("relu", HE, -1.0),
    lambda: layer("relu", HE, 1.0, 3.0),
    lambda: layer("relu", HE, 0.0),
    lambda: layer("relu", Weights(-1.0), 1.0),
    lambda: layer("relu", Weights(1.0, keep=0.0), 1.0),
    lambda: layer("relu", HE, 1.0, norm="group"),
    lambda: layer("relu", HE, 0.0, norm="rms"),
    lambda: layer("relu", HE, 1.0, 0.0, norm="batch", batch=8),
    lambda: layer("relu", HE, 1.0, norm="batch", batch=3),
    lambda: layer("relu", HE, 1.0, norm="batch", batch=8, after=True),
    lambda: layer(lambda h: 0 * h + 1, HE, 1.0, norm="layer", after=True),
    lambda: normalise(0.0),
    lambda: residual(layer("relu", HE, 1.0), math.nan),
])  # fmt: skip
def test_bad_input(call):
    with pytest.raises(UnusableInput):
        call()
