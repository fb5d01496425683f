"""One contract for every named initialiser: its draws have the moments that it states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy import stats

from propagate.distributions import TRUNCATED_STD, polar_factor
from propagate.initializers import INITIALIZERS, initializer
from propagate.types import UnusableInput

SHAPE = FAN_IN, FAN_OUT = 300, 200
KEYS = [jax.random.key(seed) for seed in range(3)]
NUMBERS = len(KEYS) * FAN_IN * FAN_OUT
SIGMAS = 5  # a sound initialiser fails one check with probability 5.7e-7
TUNED = ("critical", "critical_orthogonal")  # have no scale without an activation
EXACT = ("zeros", "constant", "identity")
KURTOSIS = {
    "normal": 3.0,
    "uniform": 1.8,
    "truncated_normal": 3.0 + float(stats.truncnorm(-2, 2).stats("k")),
}
MORE = [
    "normal_0.02",
    "uniform_0.3",
    "he_normal_0.2",
    "he_uniform(mode=fan_out)",
    "0.5*flax",
    "orthogonal_1.5",
    "sparse_0.5",
    "sigma(1.5,0.1)",
]


def draws(spec) -> np.ndarray:
    init = initializer(spec)
    return np.stack([init(key, SHAPE) for key in KEYS]).astype(np.float64)


def variance_error(name: str) -> float:
    """Standard error of the variance of `NUMBERS` draws of variance 1: sqrt((kurtosis - 1)/n)."""
    base = initializer(name).base
    if base.name == "orthogonal":
        return 0.0
    kept = base.moments(*SHAPE)[1] if base.name.startswith("sparse") else 1.0
    return np.sqrt((KURTOSIS.get(base.name, 3.0) - 1) / (kept * NUMBERS))


@pytest.mark.parametrize(
    "name", [n for n in [*INITIALIZERS, *MORE] if n not in ("lsuv", *TUNED, *EXACT)]
)
def test_draws_have_the_stated_mean_and_variance(name):
    """Two checks at 5 sigma for each of 29 initialisers: 3.3e-5 for all 58, if they are sound.

    The mean of an orthogonal matrix has the same standard error as that of independent entries;
    its sum of squares, and so nearly its variance, is exact.
    """
    mean, variance = initializer(name).moments(*SHAPE)
    w = draws(name)
    assert variance > 0
    assert abs(w.mean() - mean) < SIGMAS * np.sqrt(variance / NUMBERS)
    assert w.var() == pytest.approx(variance, rel=SIGMAS * variance_error(name) + 1e-4)


@pytest.mark.parametrize("name", [*EXACT, "constant_0.3", "identity_-2"])
def test_initialisers_without_chance_have_exact_moments(name):
    mean, variance = initializer(name).moments(*SHAPE)
    w = draws(name)
    assert w.mean() == pytest.approx(mean, rel=1e-6)
    assert w.var() == pytest.approx(variance, rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("name", [*INITIALIZERS, *MORE])
def test_the_name_spells_the_initialiser(name):
    init = initializer(name)
    assert initializer(init.name) == init
    assert hash(initializer(init.name)) == hash(init)
    assert init.law


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("zeros", 0.0),
        ("constant", 0.0),
        ("normal", 1e-4),
        ("normal_0.02", 4e-4),
        ("truncated_normal", 4e-4),
        ("uniform", 0.05**2 / 3),
        ("lecun_normal", 1 / 300),
        ("lecun_uniform", 1 / 300),
        ("glorot_normal", 2 / 500),
        ("xavier_uniform", 2 / 500),
        ("he_normal", 2 / 300),
        ("he_uniform", 2 / 300),
        ("he_normal_0.2", 2 / (1.04 * 300)),
        ("he_normal(mode=fan_out)", 2 / 200),
        ("he_uniform(mode=fan_avg)", 2 / 250),
        ("kaiming_uniform(slope=1,mode=fan_out)", 1 / 200),
        ("orthogonal", 1 / 300),
        ("orthogonal_3", 9 / 300),
        ("identity", (1 / 300) * (1 - 1 / 300)),
        ("sparse", 0.1 * 1e-4),
        ("sparse(sparsity=0.5,std=2)", 2.0),
        ("sigma(1.5,0.1)", 2.25 / 300),
        ("torch", 1 / 900),
        ("equinox", 1 / 900),
        ("keras", 2 / 500),
        ("flax", 1 / 300),
        ("haiku", 0.7737 / 300),
        ("0.5*he_normal", 0.5 / 300),
    ],
)
def test_the_variance_is_that_of_the_source(name, variance):
    assert initializer(name).moments(*SHAPE)[1] == pytest.approx(variance, rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 40), (60, 25), (25, 60)])
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_orthogonal_matrices_have_orthonormal_rows_or_columns(shape, gain):
    w = np.asarray(initializer(f"orthogonal({gain})")(KEYS[0], shape), np.float64)
    gram = w.T @ w if shape[0] >= shape[1] else w @ w.T
    np.testing.assert_allclose(gram, gain**2 * np.eye(min(shape)), atol=1e-5 * gain**2)


def test_truncated_draws_end_at_two_standard_deviations_of_the_parent():
    assert pytest.approx(stats.truncnorm(-2, 2).std(), rel=1e-12) == TRUNCATED_STD
    end = 2 * 0.02 / TRUNCATED_STD
    largest = np.abs(draws("truncated_normal_0.02")).max()
    assert 0.999 * end < largest <= end * (1 + 1e-6)
    assert np.abs(draws("normal_0.02")).max() > end


def test_haiku_does_not_correct_for_the_cut_and_flax_does():
    cut = stats.truncnorm(-2, 2).var()
    haiku, flax = (initializer(name).moments(*SHAPE)[1] for name in ("haiku", "flax"))
    assert haiku / flax == pytest.approx(cut, rel=1e-12)
    assert np.abs(draws("haiku")).max() <= 2 / np.sqrt(FAN_IN) * (1 + 1e-6)


@pytest.mark.parametrize(("name", "limit"), [("torch", 300**-0.5), ("uniform_0.3", 0.3)])
def test_uniform_draws_fill_their_interval(name, limit):
    largest = np.abs(draws(name)).max()
    assert 0.999 * limit < largest <= limit * (1 + 1e-6)


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.9])
def test_sparse_has_the_same_number_of_zeros_for_every_output_unit(sparsity):
    w = np.asarray(initializer(f"sparse({sparsity})")(KEYS[0], SHAPE))
    np.testing.assert_array_equal((w == 0).sum(axis=0), np.ceil(sparsity * FAN_IN))
    assert sparsity == 0 or len(np.unique(w[:, :20] == 0, axis=1).T) == 20


@pytest.mark.parametrize("name", ["torch", "equinox"])
def test_torch_and_equinox_draw_biases_as_they_draw_weights(name):
    """The limits are certain; the variance is checked at 5 sigma, of probability 5.7e-7."""
    init, n = initializer(name), 20_000
    limit = FAN_IN**-0.5
    b = np.asarray(init.base.biases.sample(KEYS[0], (n,), jnp.float32), np.float64)
    b *= init.bias(*SHAPE)
    assert 0.99 * limit < np.abs(b).max() <= limit * (1 + 1e-6)
    assert b.var() == pytest.approx(limit**2 / 3, rel=SIGMAS * np.sqrt(0.8 / n))


def test_only_the_named_initialisers_have_biases():
    biased = {name for name in INITIALIZERS if initializer(name).bias.gain} - set(TUNED)
    assert biased == {"torch", "equinox"}
    assert initializer("sigma(1,0.3)").bias(*SHAPE) == 0.3


@pytest.mark.parametrize("name", ["he_normal", "orthogonal", "flax", "identity", "sparse"])
def test_other_bases_have_normal_biases(name):
    assert initializer(name).base.biases.name == "normal"


@pytest.mark.parametrize(
    "names",
    [
        (
            "he_normal",
            "lecun_normal",
            "glorot_normal",
            "normal_0.02",
            "sigma(1.5,0.2)",
            "0.1*normal",
        ),
        ("he_uniform", "keras", "torch", "equinox", "uniform", "kaiming_uniform_0.1"),
        ("flax", "haiku", "truncated_normal"),
        ("orthogonal", "orthogonal_2"),
        ("sparse", "3*sparse"),
    ],
)
def test_initialisers_that_share_a_base_share_their_draws(names):
    inits = [initializer(name) for name in names]
    assert len({init.base for init in inits}) == 1
    first, *others = (np.asarray(init(KEYS[0], (30, 20)), np.float64) for init in inits)
    for init, w in zip(inits[1:], others, strict=True):
        ratio = init.scale(30, 20) / inits[0].scale(30, 20)
        np.testing.assert_allclose(w, ratio * first, rtol=5e-7)


def test_a_multiplier_scales_the_weights_and_not_the_biases():
    init, half = initializer("torch"), initializer("0.5*torch")
    assert half == 0.5 * init
    assert half.bias == init.bias
    assert half.scale(*SHAPE) == 0.5 * init.scale(*SHAPE)


@pytest.mark.parametrize("text", ["*he_normal", "a*he_normal", "nan*he_normal", "2*3*he_normal"])
def test_a_multiplier_must_be_a_number(text):
    with pytest.raises(UnusableInput):
        initializer(text)


def test_aliases_mean_the_same_initialiser():
    assert initializer("kaiming_normal") == initializer("he_normal")
    assert initializer("kaiming_uniform_0.1") == initializer("he_uniform_0.1")
    for kind in ("normal", "uniform"):
        one, other = initializer(f"xavier_{kind}"), initializer(f"glorot_{kind}")
        assert (one.base, one.scale, one.bias) == (other.base, other.scale, other.bias)


def test_lsuv_cannot_be_drawn_without_data():
    assert initializer("lsuv").data_scaled
    with pytest.raises(UnusableInput, match="lsuv needs a batch"):
        initializer("lsuv")(KEYS[0], SHAPE)


def test_a_function_is_taken_as_it_is():
    sampler = jax.nn.initializers.he_normal()
    init = initializer(sampler)
    np.testing.assert_array_equal(init(KEYS[0], SHAPE), sampler(KEYS[0], SHAPE, jnp.float32))
    assert np.isnan(init.moments(*SHAPE)).all()
    assert init.bias.gain == 0
    assert initializer(sampler) == init
    assert initializer(init) is init


def test_functions_of_jax_are_told_apart_by_what_they_were_made_with():
    made = jax.nn.initializers
    functions = made.he_uniform(), made.glorot_normal(), made.normal(0.02), made.zeros
    names = [initializer(function).name for function in functions]
    assert names[0] == "variance_scaling(2,fan_in,uniform)"
    assert names[2:] == ["normal(0.02)", "zeros"] and len(set(names)) == 4


def test_a_pair_is_a_point_of_the_mean_field_plane():
    init = initializer((1.5, 0.1))
    assert init == initializer("sigma(1.5,0.1)")
    assert init.moments(*SHAPE) == pytest.approx((0.0, 2.25 / FAN_IN))
    assert init.bias(*SHAPE) == 0.1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name not in ("lsuv", *TUNED)])
def test_draws_have_the_asked_for_shape_and_dtype(name, dtype):
    w = initializer(name)(KEYS[0], (6, 4), dtype)
    assert w.shape == (6, 4)
    assert w.dtype == dtype


@pytest.mark.parametrize("name", TUNED)
def test_what_follows_from_the_activation_has_no_scale_of_its_own(name):
    for use in (lambda init: init.scale(8, 8), lambda init: init(KEYS[0], (8, 8))):
        with pytest.raises(UnusableInput, match="follows from the activation"):
            use(initializer(name))
    assert initializer(f"0.5*{name}").tuned and not initializer("orthogonal").tuned


@pytest.mark.parametrize(
    "spec",
    [
        None,
        0.1,
        [1, 2],
        (1, 2, 3),
        ("a", "b"),
        (1.0, float("nan")),
        "sparse_1",
        "sparse_-0.1",
        "normal(inf)",
        "he_normal(mode=fan)",
    ],
)
def test_what_is_not_an_initialiser_is_refused(spec):
    with pytest.raises(UnusableInput):
        initializer(spec)


@pytest.mark.parametrize("shape", [(64, 64), (80, 16), (3, 3)])
def test_the_polar_factor_is_that_of_scipy(shape):
    a = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    u = np.asarray(polar_factor(jnp.asarray(a)))
    np.testing.assert_allclose(u.T @ u, np.eye(shape[1]), atol=3e-6)
    np.testing.assert_allclose(u, scipy.linalg.polar(a.astype(float))[0], atol=2e-4)
    # a direction that is nearly lost still comes back
    a[:, 0] = a[:, 1] + 1e-5 * a[:, 0]
    u = np.asarray(polar_factor(jnp.asarray(a)))
    np.testing.assert_allclose(u.T @ u, np.eye(shape[1]), atol=3e-6)
