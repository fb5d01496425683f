"""Batch normalisation against published closed forms, and against sampled batches."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.activations import activation
from propagate.theory import batch_norm, gauss
from propagate.types import UnusableInput

# Yang et al. (2019), arXiv:1902.08129, Theorem 8, evaluated by hand
RELU = {4: 3.084060948087733, 8: 1.78818998, 32: 1.52195283, 64: 1.4930629378035987} | {
    256: 1.4732342630957864,
    1024: 1.4685009919733325,
    math.inf: math.pi / (math.pi - 1),
}
# E phi'^2/Var phi, by 30-digit quadrature independent of this package
LARGE = {"tanh": 1.17780723, "gelu": 1.31884497, "silu": 1.21208111, "selu": 1.07157499}


def arc_cosine(c):
    return (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi


@pytest.mark.parametrize("batch", RELU)
def test_a_relu(batch):
    found = pp.batch_norm_rate("relu", batch)
    assert found.value == pytest.approx(RELU[batch], rel=1e-8)
    at, _ = batch_norm.moments(activation("relu"), batch)
    cosine = -1 / (batch - 1)
    assert at.second == pytest.approx(0.5, rel=1e-12)
    assert 1 - at.apart / at.second == pytest.approx(arc_cosine(cosine), rel=1e-10)
    if batch < math.inf:
        closed = (math.pi - math.acos(cosine)) / math.pi + batch - 1
        closed = closed / (batch - 3) / (1 - arc_cosine(cosine)) - 1 / (batch - 3)
        assert abs(found.value - closed) < 1e-10


@pytest.mark.parametrize("batch", [4, 5, 8, 33, 1000])
def test_no_activation(batch):
    exact = (batch - 2) / (batch - 3)
    assert pp.batch_norm_rate("identity", batch).value == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("name", LARGE)
def test_large_batches(name):
    assert pp.batch_norm_rate(name).value == pytest.approx(LARGE[name], rel=1e-8)
    near = pp.batch_norm_rate(name, 10**5).value
    assert near == pytest.approx(LARGE[name], rel=1e-4)


@pytest.mark.parametrize(("name", "batch"), [("tanh", 4), ("hard_tanh", 5), ("gelu", 9)])
def test_the_rate_is_that_of_sampled_jacobians(name, batch):
    """Of 100 000 batches, each with its Jacobian in full; 5 standard errors: 6e-7 per number.

    The length of the Gaussian batch, independent of its direction, is averaged exactly:
    E B/|Gh|^2 = B/(B - 3), which at B = 4 no sample settles.
    """
    rng = np.random.default_rng(0)
    h = rng.normal(size=(100_000, batch))
    u = h - h.mean(axis=1, keepdims=True)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    at = gauss.evaluate(activation(name), math.sqrt(batch) * u)
    centre = np.eye(batch) - 1 / batch
    turned = at.slope[:, :, None] * (centre - u[:, :, None] * u[:, None, :])  # phi' dBN/dh
    grown = np.einsum("sik,ij,sjk->s", turned, centre, turned, optimize=True)
    apart = (at.phi**2).sum(axis=1) / batch
    apart -= (at.phi.sum(axis=1) ** 2 - (at.phi**2).sum(axis=1)) / (batch * (batch - 1))
    expected = pp.batch_norm_rate(name, batch).value
    ratio = batch / (batch - 1) / (batch - 3) * grown - expected * apart  # of mean zero
    assert abs(ratio.mean()) < 5 * ratio.std() / math.sqrt(len(ratio))
    wrong = ratio - 0.02 * expected * apart  # a rate that is two per cent off is told
    assert abs(wrong.mean()) > 5 * wrong.std() / math.sqrt(len(wrong))


def test_the_error_is_at_least_the_error():
    """sin kh at k >> 1, where the phases of two values know nothing of each other: 14 k^2/13."""
    found = pp.batch_norm_rate(lambda h: jnp.sin(300 * h), 16)
    assert abs(found.value - 14 / 13 * 300**2) <= found.error
    assert found.error > 1e-3 * found.value  # too rough to be known, and said to be


@pytest.mark.parametrize("batch", [3, 0, 8.0, -math.inf, math.nan, "8"])
def test_sizes_are_checked(batch):
    with pytest.raises(UnusableInput, match="batch must be a whole number of at least 4"):
        pp.batch_norm_rate("relu", batch)


def test_nothing_to_normalise():
    with pytest.raises(UnusableInput, match="apart"):
        pp.batch_norm_rate(lambda h: 0 * h, 8)
