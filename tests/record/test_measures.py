"""Each statistic against numpy in float64, at scales where float32 squares do not exist."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.record import scaled, statistics
from propagate.record.measures import MEASURES, select
from propagate.record.statistics import HISTOGRAM_EDGES, SATURATED_SLOPE
from propagate.types import UnusableInput

MEASURE = {m.name: m for m in MEASURES}
DECADES = ("q", "variance", "max")
RATIOS = ("mean", "correlation", "zero_fraction", "dead_fraction", "symmetric_fraction")


def cosine(y: np.ndarray) -> float:
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    return (unit @ unit.T)[~np.eye(len(y), dtype=bool)].mean()


ORACLES = {
    "q": lambda y: np.log10(np.mean(y**2)),
    "variance": lambda y: np.log10(np.mean(np.var(y, axis=0))),
    "max": lambda y: np.log10(np.abs(y).max()),
    "mean": lambda y: y.mean() / np.sqrt(np.mean(y**2)),
    "correlation": cosine,
    "zero_fraction": lambda y: np.mean(y == 0),
    "dead_fraction": lambda y: np.mean((y == 0).all(axis=0)),
    "symmetric_fraction": lambda y: (
        np.mean(np.abs(y - y.mean(1, keepdims=True)).max(0) <= 1e-5 * np.abs(y).max())
        if y.shape[1] > 1  # one unit has none to be compared with
        else np.nan
    ),
    "saturated_fraction": lambda y: np.mean(np.abs(y) < 0.05 * np.abs(y).max()),
}


@functools.cache
def observe(name: str):
    return jax.jit(lambda x: scaled.observe(scaled.rescale(x), (MEASURE[name],)))


def measured(name: str, *layers: np.ndarray) -> np.ndarray:
    """The number that a record would carry, for each of the arrays (configurations)."""
    seen = observe(name)(np.stack(layers))
    return scaled.decades(MEASURE[name], np.asarray(seen[name]), np.asarray(seen["exponent"]))


def normal(seed: int, shape: tuple[int, int] = (6, 10), loc: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(loc, size=shape).astype(np.float32)


shapes = st.sampled_from([(2, 1), (2, 7), (5, 3), (16, 40)])
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("name", [*DECADES, "mean", "correlation"])
@settings(max_examples=25)
@given(shape=shapes, seed=seeds, scale=st.floats(-34, 36), loc=st.sampled_from([0.0, 3.0]))
def test_statistics_agree_with_float64_at_any_scale(name, shape, seed, scale, loc):
    y = (normal(seed, shape, loc) * 10.0**scale).astype(np.float32)
    expected = ORACLES[name](y.astype(np.float64))
    np.testing.assert_allclose(measured(name, y)[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", DECADES)
@settings(max_examples=25)
@given(seed=seeds)
def test_scale_like_statistics_survive_the_whole_range_in_one_array(name, seed):
    rng = np.random.default_rng(seed)
    y = (rng.choice([-1, 1], (4, 6)) * 10 ** rng.uniform(-35, 37, (4, 6))).astype(np.float32)
    expected = ORACLES[name](y.astype(np.float64))
    np.testing.assert_allclose(measured(name, y)[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-35, 1e30])
def test_without_rescaling_these_numbers_are_lost(scale):
    bare = float(statistics.q(jnp.asarray(normal(0) * np.float32(scale))))
    assert bare in (0.0, np.inf)
    assert np.isfinite(measured("q", normal(0) * np.float32(scale))).all()


def test_configurations_are_rescaled_apart():
    layers = [normal(0) * np.float32(scale) for scale in (1e-30, 1.0, 1e30)]
    np.testing.assert_allclose(np.diff(measured("q", *layers)), 60, atol=1e-4)


@pytest.mark.parametrize("name", RATIOS)
@settings(max_examples=25)
@given(shape=shapes, seed=seeds)
def test_shares_and_cosines_agree_with_numpy_where_units_are_off(name, shape, seed):
    y = np.maximum(normal(seed, shape), 0)
    y[:, seed % shape[1]] = 0
    y[:, 0] += 0.1  # so that no input is zero everywhere
    expected = ORACLES[name](y.astype(np.float64))
    np.testing.assert_allclose(measured(name, y)[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", DECADES)
def test_zeros_are_minus_infinity(name):
    assert measured(name, np.zeros((3, 4), np.float32))[0] == -np.inf


def test_a_constant_batch_has_no_variance():
    y = np.tile(np.float32([1.5, -2.0, 0.25, 1e-20]), (8, 1))
    assert measured("variance", y)[0] == -np.inf
    assert np.isfinite(measured("q", y)[0])


def test_the_mean_is_relative_to_the_rms():
    assert measured("mean", np.full((3, 4), -1e20, np.float32))[0] == pytest.approx(-1, rel=1e-6)
    assert measured("mean", np.float32([[1e-20, -1e-20]]))[0] == 0
    assert measured("mean", np.zeros((3, 4), np.float32))[0] == 0


def test_identical_inputs_have_correlation_one():
    y = np.tile(normal(0, (1, 50)), (7, 1))
    assert measured("correlation", y)[0] == pytest.approx(1, abs=1e-6)


def test_opposite_inputs_have_correlation_minus_one():
    y = normal(0, (1, 50))
    assert measured("correlation", np.concatenate([y, -y]))[0] == pytest.approx(-1, abs=1e-6)


def test_orthogonal_inputs_have_correlation_zero():
    assert measured("correlation", np.eye(6, 9, dtype=np.float32))[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("ratio", [1e-10, 1e-25, 1e-36])
def test_correlation_does_not_depend_on_the_lengths(ratio):
    y = np.tile(normal(0, (1, 50)), (2, 1)) * np.float32([[1], [ratio]])
    assert measured("correlation", y)[0] == pytest.approx(1, abs=1e-6)


def test_one_input_has_no_correlation():
    assert np.isnan(measured("correlation", normal(0, (1, 5)))[0])


def test_inputs_with_a_zero_signal_are_left_out_of_the_correlation():
    y = np.concatenate([np.tile(normal(0, (1, 5)), (3, 1)), np.zeros((2, 5), np.float32)])
    assert measured("correlation", y)[0] == pytest.approx(1, abs=1e-6)
    assert np.isnan(measured("correlation", y[2:])[0])


def test_equal_units_are_symmetric_and_random_ones_are_not():
    equal = np.tile(normal(0, (6, 1)), (1, 30))
    assert measured("symmetric_fraction", equal)[0] == 1
    assert measured("symmetric_fraction", normal(0, (6, 30)))[0] == 0


def test_zero_and_dead_fractions():
    y = normal(0, (4, 10))
    assert measured("zero_fraction", y)[0] == measured("dead_fraction", y)[0] == 0
    y[:, :3] = 0
    y[0, 3] = 0
    assert measured("zero_fraction", y)[0] == pytest.approx(13 / 40)
    assert measured("dead_fraction", y)[0] == pytest.approx(3 / 10)


def test_small_slopes_are_saturated():
    slope = np.float32([[1, 0, -1, SATURATED_SLOPE / 2], [-SATURATED_SLOPE / 2, 0.5, 0.06, -0.06]])
    assert float(statistics.saturated_fraction(jnp.asarray(slope))) == pytest.approx(3 / 8)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_histogram_agrees_with_numpy(scale):
    y = (normal(0, (30, 40)) ** 3 * np.float32(scale)).astype(np.float32)
    found = measured("histogram", y)[0]
    rms = y / np.sqrt(np.mean(y.astype(np.float64) ** 2))
    edges = np.asarray(HISTOGRAM_EDGES)
    expected, _ = np.histogram(rms.clip(edges[0], edges[-1]), edges)
    assert found.shape == (MEASURE["histogram"].bins,)
    assert expected[0] + expected[-1] > 0
    np.testing.assert_allclose(found, expected / y.size, atol=1.01 / y.size)


@pytest.mark.parametrize("y", [normal(0), normal(0) * 0, normal(0) * 0 + 1, normal(0, (1, 1))])
def test_the_histogram_sums_to_one(y):
    found = measured("histogram", y)[0]
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert (found >= 0).all()


@settings(max_examples=25)
@given(seed=seeds, scale=st.floats(-30, 37))
def test_rescaling_is_exact(seed, scale):
    x = jnp.asarray((normal(seed)[None] * 10.0**scale).astype(np.float32))
    y, exponent = scaled.rescale(x)
    assert 1 <= float(jnp.abs(y).max()) < 2
    back = np.ldexp(np.asarray(y, np.float64), np.asarray(exponent)[:, None, None])
    np.testing.assert_array_equal(back, np.asarray(x, np.float64))


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_zero_and_non_finite_arrays_keep_their_values(value):
    x = jnp.full((1, 2, 3), value, jnp.float32)
    y, exponent = scaled.rescale(x)
    np.testing.assert_array_equal(y, x)
    assert int(exponent[0]) == 0


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("name", ["q", "variance", "max"])
def test_non_finite_values_are_not_hidden(name, value):
    y = normal(0)
    y[1, 1] = value
    assert not np.isfinite(measured(name, y)[0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_statistics_of_short_floats_are_float32(dtype):
    given = scaled.rescale(jnp.asarray(normal(0)[None], dtype))
    seen = scaled.observe(given, MEASURES)
    assert {a.dtype for name, a in seen.items() if name != "exponent"} == {jnp.dtype("float32")}


def selected(endings) -> set[str]:
    return {m.variable(place) for place, taken in select(endings) for m in taken}


EVERY = {m.variable(place) for m in MEASURES for place in m.places}
HISTOGRAMS = {"forward_histogram", "activation_histogram", "backward_histogram"}


@pytest.mark.parametrize(
    ("endings", "variables"),
    [
        (None, EVERY - HISTOGRAMS),
        ("histogram", HISTOGRAMS),
        ("q", {"log10_forward_q", "log10_activation_q", "log10_backward_q"}),
        ("weight_gradient_q", {"log10_weight_gradient_q"}),
        ("forward_q", {"log10_forward_q"}),
        ("log10_forward_q", {"log10_forward_q"}),
        (("forward_max", "dead_fraction"), {"log10_forward_max", "activation_dead_fraction"}),
        (["correlation"], {"forward_correlation", "backward_correlation"}),
        (["forward_histogram"], {"forward_histogram"}),
    ],
    ids=range(9),
)
def test_variables_are_chosen_by_their_endings(endings, variables):
    assert selected(endings) == variables


@pytest.mark.parametrize("endings", [[], "qq", ["q", "median"], "forward", ""], ids=repr)
def test_an_ending_that_no_variable_has_is_refused_with_the_list(endings):
    with pytest.raises(UnusableInput, match=r"measures must be some of .*zero_fraction"):
        select(endings)


def test_every_variable_can_be_named():
    for name in EVERY:
        assert selected([name]) == {name}
