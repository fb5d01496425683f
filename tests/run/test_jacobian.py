"""Spectra of Jacobians: the edge against an independent S-transform, samples against theory."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.run import jacobian
from propagate.theory import gauss, jacobian_spectrum
from propagate.types import UnusableInput

EDGES = json.loads((Path(__file__).parents[1] / "theory.json").read_text())["edges"]
KEY = jax.random.key(0)


@pytest.mark.parametrize("row", EDGES, ids=lambda r: str(r["L"]))
def test_upper_edges(row):
    depth = row["L"]
    assert jacobian_spectrum.spectrum("identity", depth, 1.0).edge == pytest.approx(
        row["linear_gauss"], rel=1e-9
    )
    assert jacobian_spectrum.spectrum("relu", depth, 2.0).edge == pytest.approx(
        row["relu_gauss"], rel=1e-9
    )
    orthogonal = jacobian_spectrum.spectrum("relu", depth, 2.0, orthogonal=True).edge
    assert orthogonal <= row["relu_orth"] * (1 + 1e-9)  # at L = 2 its search ended before infinity
    assert orthogonal == pytest.approx(row["relu_orth"], rel=1e-9 if depth > 2 else 2e-5)


def critical_line(q):
    at = gauss.moments("tanh", q)
    return float(1 / at["slope2"][0])


@pytest.mark.parametrize(
    ("depth", "q", "variance"), [(16, 1 / 16, 0.307), (64, 1 / 64, 0.108), (64, 0.57, 21.9)]
)
def test_dynamical_isometry_of_an_orthogonal_tanh(depth, q, variance):
    """Pennington et al. (2018): it takes q ~ 1/L on the critical line."""
    found = jacobian_spectrum.spectrum("tanh", depth, critical_line(q), q=q, orthogonal=True)
    assert found.mean == pytest.approx(1)
    assert found.variance == pytest.approx(variance, rel=5e-3)
    assert found.isometric == (variance < 1)


STACKS = (
    ("identity", "lecun_normal", 1.0),
    ("relu", "he_normal", 2.0),
    ("relu", "orthogonal_1.4142136", 2.0),
)


@pytest.mark.parametrize(("name", "init", "sigma_w2"), STACKS)
def test_samples_have_the_spectrum(name, init, sigma_w2):
    """Width 400, 8 layers; run-to-run noise of a variance is 5 to 10 %, three runs are averaged."""
    net = pp.Network(8, 400, activation=name, init=init)
    theory = jacobian_spectrum.spectrum(name, 8, sigma_w2, orthogonal=init.startswith("orth"))
    squares = [jacobian.of_network(net, jax.random.key(k)) ** 2 for k in range(3)]
    spread = np.mean([s.var() / s.mean() ** 2 for s in squares])
    assert spread == pytest.approx(theory.variance, rel=0.15)
    assert np.mean([s.max() for s in squares]) < 1.1 * theory.edge


def test_an_orthogonal_linear_network_keeps_every_length():
    net = pp.Network(40, 64, activation="identity", init="orthogonal")
    np.testing.assert_allclose(jacobian.of_network(net, KEY), 1, atol=1e-5)
    assert jacobian_spectrum.spectrum("identity", 100, 1.0, orthogonal=True).edge == pytest.approx(
        1
    )


def test_a_range_of_layers_and_the_largest():
    net = pp.Network(6, 48, activation="tanh", init=(1.5, 0.2))
    whole = jacobian.of_network(net, KEY, layers=(2, 5))
    assert whole.shape == (48,)
    few = jacobian.of_network(net, KEY, layers=(2, 5), largest=3)
    np.testing.assert_allclose(few, whole[:3], rtol=1e-4)


def test_a_stack_is_the_one_that_measure_runs():
    """The mean square is the gradient's growth of one unit Gaussian cotangent, in expectation."""
    net = pp.Network(3, 256, activation="tanh", init=(1.5, 0.2))
    squares = jacobian.of_network(net, KEY) ** 2
    record = pp.measure(net, KEY, seeds=1, batch=64, measures=("q",))
    assert np.log10(squares.mean()) == pytest.approx(
        record.log10_backward_q.values[0, 0] - record.log10_backward_q.values[0, -1], abs=0.05
    )


def test_any_function():
    matrix = jax.random.normal(KEY, (7, 5))
    found = jacobian.singular_values(lambda x: (matrix @ x.ravel()).reshape(7, 1), jnp.ones((1, 5)))
    np.testing.assert_allclose(found, np.linalg.svd(matrix, compute_uv=False), rtol=1e-5)


def test_an_unbounded_slope_has_no_edge():
    assert math.isinf(jacobian_spectrum.spectrum("squared_relu", 2, 1.0).edge)
    assert math.isfinite(jacobian_spectrum.spectrum("gelu", 2, 1.0).edge)
    assert math.isinf(jacobian_spectrum.spectrum("relu", 2000, 4.0).mean)


def fuss_catalan(depth):
    """Penson & Zyczkowski (2011): places and density of the squares of L Gaussian matrices."""
    at = np.linspace(1e-5, 1 - 1e-5, 20001) * math.pi / (depth + 1)
    wide, narrow = np.sin((depth + 1) * at), np.sin(depth * at)
    place = wide ** (depth + 1) / (np.sin(at) * narrow**depth)
    return place, np.sin(at) ** 2 * narrow ** (depth - 1) / (math.pi * wide**depth)


@pytest.mark.parametrize("depth", [1, 2, 16])
def test_the_density_of_gaussian_products(depth):
    place, exact = (values[::-1] for values in fuss_catalan(depth))
    found = jacobian_spectrum.density("identity", depth, 1.0)
    expected = np.interp(found.log10_square, np.log10(place), exact * place * math.log(10), 0, 0)
    inside = found.log10_square > np.log10(place[1])
    off = np.abs(found.per_decade - expected)[inside]
    assert off.max() < 1e-3 * expected.max()


@pytest.mark.parametrize(("name", "orthogonal", "q"), [
    ("relu", False, 1.0), ("relu", True, 1.0), ("tanh", True, 1 / 16), ("gelu", False, 1.0)
])  # fmt: skip
def test_a_density_has_the_moments_of_its_spectrum(name, orthogonal, q):
    sigma_w2 = 1 / float(gauss.moments(name, q)["slope2"][0])
    theory = jacobian_spectrum.spectrum(name, 6, sigma_w2, q=q, orthogonal=orthogonal)
    found = jacobian_spectrum.density(name, 6, sigma_w2, q=q, orthogonal=orthogonal)
    share = found.per_decade
    zeros, mean, second = (
        -np.trapezoid(share * 10 ** (k * found.log10_square), found.log10_square) for k in (0, 1, 2)
    )
    assert zeros == pytest.approx(1 - (0.5 if name == "relu" else 0), abs=5e-3)
    assert (mean, second) == pytest.approx((1, 1 + theory.variance), rel=5e-3)


@pytest.mark.parametrize("call", [
    lambda: jacobian_spectrum.density("squared_relu", 2, 1.0),
    lambda: jacobian_spectrum.density("identity", 2, 1.0, orthogonal=True),
    lambda: jacobian_spectrum.density("relu", 1, 2.0, orthogonal=True),
])  # fmt: skip
def test_what_has_no_density_is_said(call):
    with pytest.raises(UnusableInput, match="density"):
        call()


def test_norms_of_a_product_of_matrices():
    """Against NumPy, exactly; within the stated error if probed; at every scale."""
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=s) for s in ((5, 7), (4, 5), (3, 4))]
    layers = [lambda h, m=m: 1e-15 * jnp.asarray(m, "float32") @ h for m in matrices]
    exact = [0.0]
    for k in (2, 1, 0):
        whole = np.linalg.multi_dot([*matrices[:k:-1], matrices[k]]) if k < 2 else matrices[2]
        exact.insert(0, np.log10(np.sum(whole**2) / whole.shape[1]) - 30 * (3 - k))
    found = jacobian.partial_norms(layers, jnp.ones(7))
    np.testing.assert_allclose(found.log10, exact, atol=1e-5)
    assert not found.error.any()
    probed = jacobian.partial_norms(layers, jnp.ones(7), probes=2000, key=KEY)
    assert (np.abs(probed.log10 - exact) < 5 * probed.error).all()
    assert (probed.error < 0.02).all() and (probed.error > 0.002).all()


def test_norms_of_a_stack_are_the_products_of_chi():
    """Within five standard deviations of a draw's norms; the gradients measured of the same draw,
    with other inputs, are within as many."""
    net = pp.Network(10, 512, activation="tanh", init=(1.5, 0.2))
    found = jacobian.partial_norms(*jacobian.layers_and_input(net, KEY))
    theory = pp.predict(net, batch=1)
    expected = jacobian.expected_norms(net)
    np.testing.assert_allclose(expected, theory.log10_backward_q, atol=0.02)
    record = pp.measure(net, KEY, seeds=1, batch=64, measures=("q",))
    for other in (expected, record.log10_backward_q[0].values):
        off = np.abs(found.log10 - other)
        assert (off < 5 * theory.log10_backward_q_sd.values).all()
    wrong = jacobian.expected_norms(pp.Network(10, 512, activation="tanh", init=(2.2, 0.2)))
    assert (np.abs(found.log10 - wrong) > 5 * theory.log10_backward_q_sd.values)[0]


def test_norms_where_the_output_is_large():
    """2^24 numbers are not formed: 64 probes stand for them, and need a key."""
    double = lambda h: 2 * h  # noqa: E731
    with pytest.raises(UnusableInput, match="key"):
        jacobian.partial_norms([double], jnp.ones(5000))
    found = jacobian.partial_norms([double], jnp.ones(5000), key=KEY)
    assert abs(found.log10[0] - math.log10(4)) < 5 * found.error[0] < 0.02
    dead = jacobian.partial_norms([lambda h: 0 * h], jnp.ones(3))
    assert dead.log10.tolist() == [-math.inf, 0.0]


@pytest.mark.parametrize("call", [
    lambda: jacobian_spectrum.spectrum("relu", 0, 1.0),
    lambda: jacobian_spectrum.spectrum("relu", 2, -1.0),
    lambda: jacobian.singular_values(lambda x: x, jnp.ones(5000)),
    lambda: jacobian.singular_values(lambda x: x, jnp.ones(5), largest=5),
    lambda: jacobian.of_network(pp.Network(3, 8), KEY, layers=(2, 2)),
    lambda: jacobian.of_network(pp.Network(3, 8, init="lsuv"), KEY),
    lambda: jacobian.of_network(pp.Network(2, 5000), KEY),
    lambda: jacobian.partial_norms([], jnp.ones(3)),
    lambda: jacobian.partial_norms([lambda h: h], jnp.ones(3), probes=1, key=KEY),
])  # fmt: skip
def test_bad_input(call):
    with pytest.raises(UnusableInput):
        call()
