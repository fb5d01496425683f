"""Theory of every family that it covers against measurement, and a plain word where it is not."""

import jax
import numpy as np
import pytest

import propagate as pp

KEY = jax.random.key(1)
DEPTH, SEEDS, BATCH = 8, 8, 16
COVERED = [
    ("mlp(norm=batch)", "he_normal", "relu", 128),
    ("mlp(norm=layer)", "lecun_normal", "tanh", 128),
    ("mlp(norm=layer,norm_at=after,dropout=0.2)", "he_normal", "relu", 128),
    ("mlp(norm=rms,norm_at=after)", "torch", "gelu", 128),
    ("conv1d", "delta_orthogonal", "tanh", 64),
    ("conv2d(positions=4)", (1.5, 0.2), "tanh", 32),
    ("residual(branch=depth,maps=1)", "lecun_normal", "tanh", 128),
    ("residual(branch=fixup)", "he_normal", "relu", 128),
    ("residual(branch=nf)", "he_normal", "gelu", 128),
    ("residual(norm=batch)", "he_normal", "relu", 128),
]
VARIABLES = ("log10_forward_q", "log10_forward_variance", "log10_backward_q")
BIAS = 0.05  # decades that layers of 32 to 128 units may be off the limit of wide ones


@pytest.fixture(scope="module")
def measured():
    def run(family, init, phi, width):
        net = pp.Network(DEPTH, width, family, phi, init)
        chosen = [name.removeprefix("log10_") for name in VARIABLES]
        record = pp.measure(net, KEY, seeds=SEEDS, batch=BATCH, measures=chosen)
        return record, pp.predict(net, batch=BATCH)

    return run


@pytest.mark.parametrize(("family", "init", "phi", "width"), COVERED)
def test_theory_is_what_is_measured(family, init, phi, width, measured):
    """Within 6 standard errors of 8 seeds and the bias of finite width: t_7 > 6 has p = 5e-4, and
    neighbouring layers go together, so that one run of all fails with about 1 in 100."""
    record, theory = measured(family, init, phi, width)
    for name in VARIABLES:
        off = record[name].mean("seed") - theory[name]
        error = record[name].std("seed", ddof=1) / np.sqrt(SEEDS)
        assert (abs(off) < 6 * error + BIAS).all(), (name, off.values, error.values)


def test_another_network_is_not_what_is_measured(measured):
    record, _ = measured("residual(branch=depth,maps=1)", "lecun_normal", "tanh", 128)
    wrong = pp.predict(pp.Network(DEPTH, 128, "residual(maps=1)", "tanh", "lecun_normal"))
    off = record.log10_forward_q.mean("seed") - wrong.log10_forward_q
    assert abs(off[-1]) > 0.5


@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        ("plain", lambda layer: 2.0**layer),
        ("skipinit", lambda layer: 1.0),
        ("rezero", lambda layer: 1.0),
        ("fixup", lambda layer: 1.0),
        ("nf", lambda layer: 1 + 0.04 * layer),
    ],
)
def test_known_second_moments_of_residual_stacks(branch, expected):
    """He relu: a plain block doubles them (De and Smith, 2020); 1 + k alpha^2 (Brock, 2021)."""
    theory = pp.predict(pp.Network(12, 64, f"residual(branch={branch})", "relu", "he_normal"))
    exact = [expected(layer) for layer in range(13)]
    np.testing.assert_allclose(10**theory.log10_forward_q, exact, rtol=1e-9)


@pytest.mark.parametrize(("batch", "rate"), [(32, 1.52195283), (128, 1.47968127)])
def test_batch_norm_makes_gradients_grow_at_the_exact_rate(batch, rate):
    """Yang et al. (2019), Theorem 8: relu."""
    theory = pp.predict(pp.Network(30, 64, "mlp(norm=batch)", "relu"), batch=batch)
    steps = -np.diff(theory.log10_backward_q)[5:-5]
    np.testing.assert_allclose(10**steps, rate, rtol=1e-4)


@pytest.mark.parametrize(
    "family",
    ["rnn", "lstm", "gru", "transformer", "conv2d(padding=zero)", "conv1d(norm=batch)"],
)
def test_what_is_not_covered_is_said(family):
    with pytest.raises(pp.UnusableInput, match="not covered by theory"):
        pp.predict(pp.Network(4, 16, family))
