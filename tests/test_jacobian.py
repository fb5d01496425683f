"""Spectra of Jacobians: the edge against an independent S-transform, samples against theory."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate import gauss, jacobian
from propagate.types import UnusableInput

EDGES = json.loads((Path(__file__).parent / "theory.json").read_text())["edges"]
KEY = jax.random.key(0)


@pytest.mark.parametrize("row", EDGES, ids=lambda r: str(r["L"]))
def test_upper_edges(row):
    depth = row["L"]
    assert jacobian.spectrum("identity", depth, 1.0).edge == pytest.approx(
        row["linear_gauss"], rel=1e-9
    )
    assert jacobian.spectrum("relu", depth, 2.0).edge == pytest.approx(row["relu_gauss"], rel=1e-9)
    orthogonal = jacobian.spectrum("relu", depth, 2.0, orthogonal=True).edge
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
    found = jacobian.spectrum("tanh", depth, critical_line(q), q=q, orthogonal=True)
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
    theory = jacobian.spectrum(name, 8, sigma_w2, orthogonal=init.startswith("orth"))
    squares = [jacobian.of_network(net, jax.random.key(k)) ** 2 for k in range(3)]
    spread = np.mean([s.var() / s.mean() ** 2 for s in squares])
    assert spread == pytest.approx(theory.variance, rel=0.15)
    assert np.mean([s.max() for s in squares]) < 1.1 * theory.edge


def test_an_orthogonal_linear_network_keeps_every_length():
    net = pp.Network(100, 64, activation="identity", init="orthogonal")
    np.testing.assert_allclose(jacobian.of_network(net, KEY), 1, atol=1e-5)
    assert jacobian.spectrum("identity", 100, 1.0, orthogonal=True).edge == pytest.approx(1)


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
    record = pp.measure(net, KEY, batch=64, measures=("q",))
    assert np.log10(squares.mean()) == pytest.approx(
        record.log10_backward_q.values[0, 0] - record.log10_backward_q.values[0, -1], abs=0.05
    )


def test_any_function():
    matrix = jax.random.normal(KEY, (7, 5))
    found = jacobian.singular_values(lambda x: (matrix @ x.ravel()).reshape(7, 1), jnp.ones((1, 5)))
    np.testing.assert_allclose(found, np.linalg.svd(matrix, compute_uv=False), rtol=1e-5)


def test_an_unbounded_slope_has_no_edge():
    assert math.isinf(jacobian.spectrum("squared_relu", 2, 1.0).edge)
    assert math.isfinite(jacobian.spectrum("gelu", 2, 1.0).edge)
    assert math.isinf(jacobian.spectrum("relu", 2000, 4.0).mean)


@pytest.mark.parametrize("call", [
    lambda: jacobian.spectrum("relu", 0, 1.0),
    lambda: jacobian.spectrum("relu", 2, -1.0),
    lambda: jacobian.singular_values(lambda x: x, jnp.ones(5000)),
    lambda: jacobian.singular_values(lambda x: x, jnp.ones(5), largest=5),
    lambda: jacobian.of_network(pp.Network(3, 8), KEY, layers=(2, 2)),
    lambda: jacobian.of_network(pp.Network(3, 8, init="lsuv"), KEY),
])  # fmt: skip
def test_bad_input(call):
    with pytest.raises(UnusableInput):
        call()
