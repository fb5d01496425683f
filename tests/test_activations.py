"""One contract for every named activation, against independent formulas in float64."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit, log_expit, ndtr

from propagate.activations import ACTIVATIONS, Activation, activation
from propagate.types import UnusableInput

FORMULAS = {
    "identity": lambda h: h,
    "sigmoid": expit,
    "tanh": np.tanh,
    "relu": lambda h: np.maximum(h, 0),
    "leaky_relu": lambda h: np.maximum(h, 0.01 * h),
    "leaky_relu_0.2": lambda h: np.maximum(h, 0.2 * h),
    "leaky_relu_2": lambda h: np.minimum(h, 2 * h),
    "elu": lambda h: np.where(h > 0, h, np.expm1(h)),
    "selu": lambda h: 1.0507009873554805 * np.where(h > 0, h, 1.6732632423543772 * np.expm1(h)),
    "celu": lambda h: np.maximum(h, 0) + np.minimum(np.expm1(h), 0),
    "gelu": lambda h: h * ndtr(h),
    "gelu_tanh": lambda h: h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3))),
    "silu": lambda h: h * expit(h),
    "mish": lambda h: h * np.tanh(np.log1p(np.exp(h))),
    "softplus": lambda h: np.log1p(np.exp(h)),
    "softsign": lambda h: h / (1 + np.abs(h)),
    "hard_tanh": lambda h: np.clip(h, -1, 1),
    "relu6": lambda h: np.clip(h, 0, 6),
    "hard_swish": lambda h: h * np.clip(h + 3, 0, 6) / 6,
    "squared_relu": lambda h: np.maximum(h, 0) ** 2,
    "sin": np.sin,
    "erf": erf,
    "log_sigmoid": log_expit,
}
UNBOUNDED = {"squared_relu"}  # phi' = 2h has no largest value, so `slope` cannot be one
KINKED = [name for name in FORMULAS if activation(name).kinks]
GRID = np.linspace(-8, 8, 16001).astype(np.float32)  # in steps of 0.001, through every kink

each = pytest.mark.parametrize("name", FORMULAS)


def slope_at(name: str, h) -> np.ndarray:
    return np.asarray(activation(name).with_slope(jnp.asarray(h, jnp.float32))[1], np.float64)


def away_from_kinks(name: str, distance: float = 0.005) -> np.ndarray:
    apart = [np.abs(GRID - kink) > distance for kink in activation(name).kinks]
    return GRID[np.all(apart, axis=0)] if apart else GRID


def test_every_entry_has_a_formula_here():
    assert set(ACTIVATIONS) == {name for name in FORMULAS if not name.startswith("leaky_relu_")}


@each
def test_the_name_spells_the_activation(name):
    phi = activation(name)
    assert phi.name == name
    assert activation(phi.name) == phi
    assert hash(activation(phi.name)) == hash(phi)
    assert phi.formula


@each
def test_values_follow_the_formula(name):
    expected = FORMULAS[name](GRID.astype(np.float64))
    np.testing.assert_allclose(activation(name)(jnp.asarray(GRID)), expected, rtol=3e-6, atol=3e-6)


@each
def test_the_slope_is_the_derivative_of_the_formula(name):
    h, step = away_from_kinks(name).astype(np.float64), 1e-4
    expected = (FORMULAS[name](h + step) - FORMULAS[name](h - step)) / (2 * step)
    np.testing.assert_allclose(slope_at(name, h), expected, rtol=1e-5, atol=1e-5)


@each
def test_value_and_slope_keep_shape_and_dtype(name):
    h = jnp.ones((2, 3), jnp.bfloat16)
    x, slope = activation(name).with_slope(h)
    assert x.shape == slope.shape == h.shape
    assert x.dtype == slope.dtype == h.dtype


@pytest.mark.parametrize("name", [name for name in FORMULAS if name not in UNBOUNDED])
def test_the_slope_field_is_the_largest_slope(name):
    largest = np.abs(slope_at(name, away_from_kinks(name, 0.0005))).max()
    assert largest * (1 - 1e-6) <= activation(name).slope <= largest * 1.01


@each
def test_homogeneous_means_that_a_factor_passes_through(name):
    phi, h = activation(name), jnp.asarray(GRID)
    through = all(
        np.allclose(phi(factor * h), factor * phi(h), rtol=1e-5, atol=1e-5)
        for factor in (0.25, 3.0, 100.0)
    )
    assert phi.homogeneous == through


@pytest.mark.parametrize("name", KINKED)
def test_a_derivative_jumps_at_every_kink(name):
    step = 0.01
    for kink in activation(name).kinks:
        left, right = (slope_at(name, kink + side * np.array([1, 2]) * step) for side in (-1, 1))
        first = abs(right[0] - left[0])
        second = abs((right[1] - right[0]) - (left[0] - left[1])) / step
        assert max(first, second) > 0.1


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hard_tanh", "relu6", "hard_swish"])
def test_the_slope_itself_jumps_at_the_kinks_of_piecewise_functions(name):
    for kink in activation(name).kinks:
        left, right = slope_at(name, [kink - 1e-3, kink + 1e-3])
        assert abs(right - left) > 0.4


@each
def test_the_slope_jumps_nowhere_else(name):
    slope = slope_at(name, GRID)
    gap = np.abs(np.diff(slope))
    near = [np.abs(GRID[1:] - kink) < 0.005 for kink in activation(name).kinks]
    assert gap[~np.any(near, axis=0) if near else slice(None)].max() < 0.01


def test_a_function_is_taken_as_it_is():
    phi = activation(jnp.cos)
    assert phi.name == "cos"
    assert phi.fn is jnp.cos
    assert activation(phi) is phi


def test_an_activation_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        activation("relu").slope = 2.0


@pytest.mark.parametrize("spec", [None, 3, ["relu"], ("relu", "tanh")])
def test_what_is_not_a_function_is_refused(spec):
    with pytest.raises(UnusableInput, match="name, an Activation or a function"):
        activation(spec)


@pytest.mark.parametrize("value", ["nan", "inf", "abc", ""])
def test_the_slope_of_a_leaky_relu_must_be_a_finite_number(value):
    with pytest.raises(UnusableInput):
        activation(f"leaky_relu(slope={value})")


def test_an_activation_of_ones_own_needs_no_more_than_a_name_and_a_function():
    phi = Activation("double", lambda h: 2 * h)
    x, slope = phi.with_slope(jnp.arange(3.0))
    np.testing.assert_array_equal(x, [0, 2, 4])
    np.testing.assert_array_equal(slope, [2, 2, 2])
