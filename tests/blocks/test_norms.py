"""Normalisation and dropout: what they do to second moments and to gradients."""

import jax
import numpy as np
import pytest

import propagate as pp
from propagate.blocks.contract import normalise

KEY = jax.random.key(21)


def measured(spelling: str, phi: str, init="he_normal", *, batch=32, **size):
    size = {"depth": 24, "width": 256} | size
    net = pp.Network(**size, family=spelling, activation=phi)
    options = {"seeds": 8, "batch": batch, "measures": ("q",)}
    record = pp.sweep(net, init=init, key=KEY, compile_for=("identity", "relu"), **options)
    return record.squeeze("activation")


@pytest.mark.parametrize(
    ("phi", "batch", "rate"),
    [("relu", 32, 1.5219528), ("relu", 128, 1.4796813), ("identity", 32, 1.0344828)],
)
def test_batch_normalisation_explodes_gradients_at_the_rate_of_theory(phi, batch, rate):
    """Yang et al. (2019), Thm. 8 (ReLU), and (B-2)/(B-3): E q_{l-1}/q_l past the first layers.

    A ratio's variance is about 5/n, the more so the fewer inputs: over 8 seeds × 18 layers the
    mean has a standard error of 0.012 of itself; 4.5 of them are exceeded with probability 7e-6.
    """
    q = 10 ** measured("mlp(norm=batch)", phi, "he_uniform", batch=batch).log10_backward_q.values[0]
    ratios = (q[:, :-1] / q[:, 1:])[:, 5:23]
    assert ratios.mean() == pytest.approx(rate, rel=0.055)
    assert np.std(ratios) / np.sqrt(ratios.size) < 0.012 * rate


@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
def test_the_scale_of_weights_does_not_matter_to_gradients_between_normalised_layers(norm):
    """Only to the input's; without normalisation each layer multiplies by 9."""
    inits, small = ["he_normal", "3*he_normal"], {"depth": 6, "width": 32}
    q = measured(f"mlp(norm={norm})", "relu", inits, **small).log10_backward_q
    one, three = q.values
    np.testing.assert_allclose((three - one)[:, 1:], 0, atol=1e-3)
    np.testing.assert_allclose((three - one)[:, 0], np.log10(9), atol=1e-3)
    plain = measured("mlp", "relu", inits, **small).log10_backward_q.values
    assert (plain[1] - plain[0])[:, 1] == pytest.approx(5 * np.log10(9), abs=1e-4)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "rms"])
def test_moments_are_those_of_numpy(norm):
    x = np.random.default_rng(0).normal(2, 3, size=(6, 4, 5))
    axis = {"batch": (0, 1)}.get(norm, -1)
    centred = x - x.mean(axis, keepdims=True) if norm in ("batch", "layer") else x
    expected = centred / np.sqrt(np.mean(centred**2, axis, keepdims=True) + 1e-5)
    expected = x if norm == "none" else expected
    np.testing.assert_allclose(normalise(norm, x.astype("float32")), expected, atol=1e-5)


@pytest.mark.parametrize(("norm_at", "expected"), [("after", 1.0), ("before", 0.5)])
def test_a_norm_stands_before_or_after_the_activation(norm_at, expected):
    """E h² = E x² with LeCun's weights: 1 right after a norm, 1/2 with a ReLU between.

    Each layer's q has a relative variance below 5/n: over 8 seeds × 6 layers a standard error of
    0.02; 5 of them are exceeded with probability 6e-7.
    """
    spelling = f"mlp(norm=batch,norm_at={norm_at})"
    q = 10 ** measured(spelling, "relu", "lecun_normal", depth=6).log10_forward_q.values[0, :, 1:]
    assert q.mean() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("dropped", [0.2, 0.5])
def test_dropout_multiplies_by_one_over_what_it_keeps(dropped):
    """E x² grows by 1/p, p = 1 - dropout, forward and backward alike.

    A step's relative variance is about (6/p - 1)/n: over 8 seeds × 10 layers, 0.025 at p = 1/2 and
    less at 0.8; 5 of them are exceeded with probability 6e-7.
    """
    record = measured(f"mlp(dropout={dropped})", "relu", depth=10)
    for place, order in (("forward", 1), ("backward", -1)):
        q = 10 ** record[f"log10_{place}_q"].values[0][:, ::order]
        assert np.mean(q[:, 1:] / q[:, :-1]) == pytest.approx(1 / (1 - dropped), rel=0.125)


def test_dropout_drops_its_share_of_activated_units():
    """Of 6 × 64 × 64 units of a linear layer: 5 standard errors of 0.0024."""
    from propagate.run.layerwise import layers_of

    net = pp.Network(6, 64, "mlp(dropout=0.3)", "identity", "identity")
    h, steps = layers_of(net, KEY, batch=64)
    zeros = []
    for step in steps:
        out = step(h)
        zeros.append(np.mean(np.asarray(out)[np.asarray(h) != 0] == 0))
        h = out * 0 + 1
    assert np.mean(zeros) == pytest.approx(0.3, abs=0.015)
    np.testing.assert_allclose(np.unique(np.asarray(out)), [0, 1 / 0.7], rtol=1e-6)
