"""Theory beside a custom model: exact rules, agreement where it holds, and its own limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.activations import ACTIVATIONS, activation
from propagate.models.site_theory.elementwise import NEAR_GAUSSIAN
from propagate.models.site_theory.rules import MIN_UNITS
from propagate.theory import gauss

KEY = jax.random.key(11)
WIDTH, BATCH = 256, 64
X = jax.random.normal(jax.random.key(1), (BATCH, WIDTH))


def weights(count, sigma_w2=2.0, shape=(WIDTH, WIDTH)):
    std = (sigma_w2 / shape[0]) ** 0.5
    return [std * jax.random.normal(k, shape) for k in jax.random.split(KEY, count)]


def theory(model, params, x=X, **options):
    found = pp.diagnose(model, params, x, key=KEY, measures=("mean",), **options)
    return found.record, found.theory()


def second(values):
    return float(np.mean(np.square(np.asarray(values, np.float64))))


def rows(record, kind):
    return np.flatnonzero(record.kind.values == kind)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_layer_of_every_activation_is_that_of_mean_field_theory(name):
    phi, (w, v) = activation(name), weights(2)
    record, expected = theory(lambda p, x: phi(x @ p[0]) @ p[1], [w, v])
    q = second(w) * WIDTH * second(X)
    at = gauss.moments(phi, q)
    first, last = rows(record, "matmul")
    forward, backward = (10 ** expected[f"log10_{d}_q"].values for d in ("forward", "backward"))
    assert np.isclose(forward[first], q, rtol=1e-6)
    assert np.isclose(forward[last], second(v) * WIDTH * at["second"][0], rtol=2e-5)
    assert np.isclose(backward[first], second(v) * WIDTH * at["slope2"][0], rtol=1e-3)
    assert np.isclose(backward[last], 1)


def test_a_chain_multiplies_its_layers():
    params = weights(6)
    record, expected = theory(lambda p, x: [x := jax.nn.relu(x @ w) for w in p][-1], params)
    gains = np.array([second(w) * WIDTH / 2 for w in params])
    q = second(X) * 2 * np.cumprod(gains)
    at = rows(record, "matmul")
    np.testing.assert_allclose(10 ** expected.log10_forward_q.values[at], q, rtol=1e-5)
    back = 0.5 * np.append(np.cumprod(gains[:0:-1])[::-1], 1.0)
    np.testing.assert_allclose(10 ** expected.log10_backward_q.values[at], back, rtol=1e-5)


def biased(p, x):
    for w, b in p:
        x = jnp.tanh(x @ w + b[None])
    return x


def pre_norm(p, x):
    for w, v in p:
        h = x - x.mean(-1, keepdims=True)
        h = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-5)
        x = x + jax.nn.gelu(h @ w) @ v
    return x


def gated(p, x):
    for w, v in p:
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True))
        a, b = jnp.split(x @ w, 2, axis=-1)
        x = (jax.nn.silu(a) * b) @ v
    return x


def dropped(p, x):
    for k, w in enumerate(p):
        keep = jax.random.bernoulli(jax.random.fold_in(KEY, k), 0.8, x.shape)
        x = jax.nn.relu(jnp.where(keep, x / 0.8, 0) @ w)
    return x


def convolved(p, x):
    for w in p:
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC))
    return x


def scanned(p, x):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p)[0]


NHWC = ("NHWC", "HWIO", "NHWC")
WIDE = [*zip(weights(5, 1.0, (WIDTH, 2 * WIDTH)), weights(5, 1.0, (2 * WIDTH, WIDTH)), strict=True)]
BIASED = [(w, 0.3 * w[0] / w[0].std()) for w in weights(5)]
KERNELS = [w.reshape(3, 3, 32, 32) for w in weights(4, shape=(9 * 32, 32))]
GATES = [*zip(weights(5, 1.0, (WIDTH, WIDTH)), weights(5, 2.0, (WIDTH // 2, WIDTH)), strict=True)]


@pytest.mark.parametrize(
    ("model", "params", "x"),
    [
        (biased, BIASED, X),
        (pre_norm, WIDE, X),
        (gated, GATES, X),
        (dropped, weights(5), X),
        (convolved, KERNELS, jax.random.normal(KEY, (8, 12, 12, 32))),
        (scanned, jnp.stack(weights(5)), X),
    ],
)
def test_wide_models_are_as_theory_has_them(model, params, x):
    record, expected = theory(model, params, x)
    for direction in ("forward", "backward"):
        off = expected[f"log10_{direction}_residual"].values[rows(record, "matmul")]
        off = np.append(off, expected[f"log10_{direction}_residual"].values[rows(record, "conv")])
        assert np.isfinite(off).all()
        assert np.abs(off).max() < 0.12, (direction, off)


def test_padding_and_depth_enter_as_they_are():
    """At the border of a picture a kernel's taps fall on zeros: (3·12 - 2)²/(3·12)² do not."""
    x = jax.random.normal(KEY, (8, 12, 12, 32))
    _, expected = theory(convolved, KERNELS[:1], x)
    share = (34 / 36) ** 2
    q = share * second(KERNELS[0]) * 9 * 32 * second(x)
    assert np.isclose(10 ** expected.log10_forward_q.values[0], q, rtol=1e-5)


def test_a_scan_is_its_layers():
    params = weights(4)
    unrolled = lambda p, x: [x := jnp.tanh(x @ w) for w in p][-1]  # noqa: E731
    one, two = theory(scanned, jnp.stack(params))[1], theory(unrolled, params)[1]
    for name in ("log10_forward_q", "log10_backward_q"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-6)


CASES = {
    "a batch norm": (lambda p, x: ((h := x @ p[0]) / jnp.std(h, axis=0)[None]) @ p[1], weights(2)),
    "a softmax": (lambda p, x: jax.nn.softmax(x @ p[0]) @ p[1], weights(2)),
    "a maximum": (
        lambda p, x: jnp.max((x @ p[0]).reshape(BATCH, -1, 4), -1) @ p[1][:64],
        weights(2),
    ),
    "a weight twice": (lambda p, x: jnp.tanh(x @ p[0]) @ p[0], weights(1)),
    "a mean that is not zero": (
        lambda p, x: jnp.tanh(x @ p[0]) @ p[1],
        [weights(1)[0], jnp.full((WIDTH, WIDTH), 0.01)],
    ),
    "a loop": (
        lambda p, x: (
            jax.lax.fori_loop(0, jnp.int32(x[0, 0] * 0 + 2), lambda _, h: jnp.sin(h), x @ p[0])
            @ p[1]
        ),
        weights(2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_behind_what_theory_does_not_cover_it_starts_from_the_measured_moments(case):
    model, params = CASES[case]
    whole = lambda p, x: jax.nn.relu(model(p[:-1], x)) @ p[-1]  # noqa: E731
    record, expected = theory(whole, [*params, weights(9)[-1]])
    off = expected.log10_forward_residual.values[record.kind.values != "elementwise"]
    assert np.abs(off[[0, -1]]).max() < 0.12
    assert np.isnan(off).any()


def test_a_gradient_that_is_stopped_is_not_expected():
    """Half of what a layer makes goes on without a gradient: it comes back from the other half."""

    def net(p, x):
        left, right = jnp.split(x @ p[0], 2, axis=-1)
        return jax.lax.stop_gradient(left) @ p[1][: WIDTH // 2] + right @ p[2][: WIDTH // 2]

    record, expected = theory(net, weights(3))
    off = expected.log10_backward_residual.values[rows(record, "matmul")]
    assert np.abs(off[0]) < 0.1


def test_a_layer_aligned_with_the_signal_stands_out():
    """x W W^T of a square Gaussian W has twice the second moment of independent layers: +0.30."""
    params = weights(4, 1.0)
    healthy = theory(lambda p, x: [x := x @ w for w in p][-1], params)[1]
    params[2] = params[1].T
    aligned = theory(lambda p, x: [x := x @ w for w in p][-1], params)[1]
    assert np.abs(healthy.log10_forward_residual).max() < 0.05
    off = aligned.log10_forward_residual.values
    assert np.abs(off[:2]).max() < 0.05
    assert abs(off[2] - np.log10(2)) < 0.05


def test_a_loss_gives_the_gradient_of_the_last_layer():
    options = {"loss": lambda out, labels: jnp.mean((out - labels) ** 2), "labels": X[:, ::-1]}
    record, expected = theory(
        lambda p, x: [x := jnp.tanh(x @ w) for w in p][-1], weights(4), **options
    )
    back = expected.log10_backward_residual.values[rows(record, "matmul")]
    assert np.isfinite(back[:-1]).all()
    assert np.abs(back[:-1]).max() < 0.12


def test_a_network_is_predicted_by_predict():
    with pytest.raises(pp.UnusableInput, match="theory"):
        pp.predict(lambda x: x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_biases_that_are_taken_for_gaussian_change_the_moments_by_little(name):
    """By the first term of a Gram-Charlier series, kappa/24 E f(h) He_4(z)."""
    phi, bound = activation(name), 0.17 if name == "squared_relu" else 0.06
    q, he4 = np.array([0.5, 1.0, 2.0, 4.0]), lambda z: z**4 - 6 * z**2 + 3
    for f in (lambda at: at.phi**2, lambda at: at.slope**2):
        plain = gauss.average(phi, lambda z, at, f=f: f(at), q)
        shift = NEAR_GAUSSIAN / 24 * gauss.average(phi, lambda z, at, f=f: f(at) * he4(z), q)
        assert np.abs(shift / plain).max() < bound


def test_the_fewest_units_that_a_mean_is_taken_over_are_close_to_many():
    """E 1/mean(z^2) = n/(n - 2) over n units: 0.058 decades at the fewest; five standard errors."""
    z = np.random.default_rng(0).normal(size=(100_000, MIN_UNITS))
    inverse = 1 / np.mean(z**2, axis=-1)
    exact, error = MIN_UNITS / (MIN_UNITS - 2), np.std(inverse) / np.sqrt(inverse.size)
    assert abs(np.mean(inverse) - exact) < 5 * error
    assert np.log10(exact) < 0.059
