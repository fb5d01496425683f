"""Gaussian expectations against independent quadrature, closed forms, and their own error bound."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from propagate.activations import ACTIVATIONS, Activation, activation
from propagate.theory import gauss
from propagate.types import UnusableInput

TABLE = json.loads((Path(__file__).parents[1] / "theory.json").read_text())["unit_gaussian"]
OWN = {"gaussian": lambda h: jnp.exp(-h * h)}
NAMES = {"E_phi": "mean", "E_phi2": "second", "Var_phi": "variance"} | {
    "E_dphi2": "slope2",
    "E_dphi4": "slope4",
}


@pytest.mark.parametrize("name", TABLE)
def test_moments_of_a_unit_gaussian(name):
    found = gauss.moments(OWN.get(name, name))
    for theirs, ours in NAMES.items():
        assert found[ours][0] == pytest.approx(TABLE[name][theirs], abs=1e-12), ours


def test_closed_forms():
    square = lambda z, at: at.phi**2  # noqa: E731
    erf = gauss.expect("erf", square).value
    assert erf == pytest.approx(2 / math.pi * math.asin(2 / 3), abs=1e-14)
    assert gauss.expect("sin", square).value == pytest.approx((1 - math.exp(-2)) / 2, abs=1e-14)
    gelu = 1 / 3 + 1 / (2 * math.pi * math.sqrt(3))
    assert gauss.expect("gelu", square).value == pytest.approx(gelu, abs=1e-14)


@pytest.mark.parametrize("q", [1e-30, 1e-6, 0.3, 50.0, 1e6, 1e10])
def test_every_scale_of_h(q):
    """Erf has a closed form at every q; the hard tanh is flat but for |h| < 1."""
    erf = gauss.expect("erf", lambda z, at: at.phi**2, q).value
    assert erf == pytest.approx(2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-11)
    inside = math.erf(1 / math.sqrt(2 * q))
    assert gauss.expect("hard_tanh", lambda z, at: at.slope**2, q).value == pytest.approx(
        inside, rel=1e-11
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_kinks_are_found(name):
    phi = activation(name)
    found = gauss.kinks(Activation("own", phi.fn))
    np.testing.assert_allclose(found, phi.kinks, atol=1e-8)


def test_kinks_of_a_function_of_your_own():
    bent = lambda h: jnp.where(h < -1.7, 0.3 * h, jnp.where(h < 2.25, h**2, 7 * h))  # noqa: E731
    np.testing.assert_allclose(gauss.kinks(activation(bent)), (-1.7, 2.25), atol=1e-8)
    assert gauss.kinks(activation(lambda h: jnp.sin(3 * h) * h)) == ()


@given(st.floats(0.01, 100), st.floats(-0.999, 0.999))
def test_two_arguments_of_a_relu(q, c):
    """Cho & Saul (2009): the arc-cosine kernel."""
    found = gauss.average_pair(activation("relu"), lambda a, b: a.phi * b.phi, q, 1 - c)
    expected = q / (2 * math.pi) * (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c)
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("apart", [1e-14, 1e-8, 1e-3, 1.0, 1.9999, 2.0])
def test_two_arguments_of_an_erf(apart):
    """E (phi - phi')^2 as 1 - c goes to nothing: no digit is lost to a difference."""
    erf, q = activation("erf"), 0.8
    found = gauss.average_pair(erf, lambda a, b: (a.phi - b.phi) ** 2, q, apart) / 2
    t, c = 2 * q / (1 + 2 * q), 1 - apart
    exact = 2 / math.pi * (math.asin(t) - math.asin(c * t))
    if apart < 1e-3:  # to first order, where the difference of the closed forms has no digits
        exact = 2 / math.pi * t * apart / math.sqrt(1 - t * t)
    assert found == pytest.approx(exact, rel=1e-8)


def test_the_error_is_at_least_the_error():
    wild = lambda h: jnp.sin(40 * h)  # noqa: E731
    got = gauss.expect(wild, lambda z, at: at.phi**2)
    exact = (1 - math.exp(-2 * 40**2)) / 2
    assert abs(got.value - exact) <= got.error
    assert gauss.expect("tanh", lambda z, at: at.phi**2).error < 1e-12


def test_float64_whatever_the_flags():
    assert not jax.config.jax_enable_x64
    assert gauss.evaluate(activation("tanh"), np.array([0.1])).phi[0] == pytest.approx(
        math.tanh(0.1), abs=1e-16
    )
    assert jnp.ones(1).dtype == jnp.float32


@pytest.mark.parametrize("q", [-1.0, math.nan, math.inf])
def test_no_second_moment(q):
    with pytest.raises(UnusableInput, match="second moment"):
        gauss.expect("relu", lambda z, at: at.phi, q)


def test_an_activation_without_an_expectation():
    with pytest.raises(UnusableInput, match="not finite"):
        gauss.expect(lambda h: jnp.log(h), lambda z, at: at.phi)
