"""What a prediction may cost: counts of evaluations and compilations, which no machine changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.activations import Activation
from propagate.theory import derivatives, gauss
from propagate.theory.quadrature import FEWER, FINEST, KINKED, SMOOTH, octaves

MOST_POINTS = {"tanh": 25_000, "selu": 48_000, "own": 17_000}  # a layer; 1.3 times the need


def own(h):
    return jnp.sin(h) + 0.5 * h * jax.nn.sigmoid(h)


@pytest.fixture
def blocks(monkeypatch):
    """Return a list that grows with every block of points that an activation is evaluated at."""
    seen, compiled = [], derivatives._compiled

    def counted(fn):
        def evaluated(block):
            seen.append(block.size)
            return compiled(fn)(block)

        return evaluated

    monkeypatch.setattr(derivatives, "_compiled", counted)
    for cached in (gauss._enough, compiled):
        cached.cache_clear()
    return seen


@pytest.mark.parametrize("name", MOST_POINTS)
def test_a_layer_of_a_prediction_is_few_evaluations(name, blocks):
    depth, phi = 30, own if name == "own" else name
    pp.predict(pp.Network(depth, 256, activation=phi, init="lecun_normal"))
    assert blocks
    assert sum(blocks) < MOST_POINTS[name] * depth


def test_a_homogeneous_activation_is_evaluated_once(blocks):
    """Its two slopes are all there is to know."""
    derivatives._both_slopes.cache_clear()
    pp.predict(pp.Network(30, 256, activation="leaky_relu_0.3"))
    assert len(blocks) == 1


def test_points_of_any_number_are_one_compilation(blocks):
    """An activation is traced once for phi and phi', and once for its kinks, at any depth."""
    traced = []

    def counting(h):
        traced.append(h.shape)
        return own(h)

    net = pp.Network(12, 64, activation=counting, init="lecun_normal")
    traced.clear()
    pp.predict(net, batch=8, correlation=0.3)
    assert len(traced) <= 3, traced
    assert len(set(traced)) == 2, traced


def test_a_known_activation_is_not_searched_for_kinks(monkeypatch):
    def searched(phi):
        raise AssertionError(phi.name)

    monkeypatch.setattr(derivatives, "_found", searched)
    for name in pp.ACTIVATIONS:
        assert gauss.kinks(pp.Network(1, 4, activation=name).activation) is not None
    with pytest.raises(AssertionError, match="own"):
        gauss.kinks(pp.Network(1, 4, activation=own).activation)


def test_each_rule_for_two_arguments_agrees_with_the_finest():
    """In polar coordinates, by equal steps, by few panels, few points in a panel, and the most."""
    f = lambda a, b: np.stack([(a.phi * b.phi) ** 2, a.slope * b.slope])  # noqa: E731
    rules = set()
    for name in (*pp.ACTIVATIONS, "leaky_relu_0.2", own):
        phi = pp.Network(1, 4, activation=name).activation
        for q, epsilon in ((0.3, 0.01), (1.0, 1.0), (7.0, 1.7), (30.0, 0.6)):
            found = gauss.average_pair(phi, f, q, epsilon)
            exact = gauss.average_pair(phi, f, q, epsilon, order=40)
            assert found == pytest.approx(exact, rel=1e-11, abs=1e-13), (name, q, epsilon)
            rules.add(gauss._enough(phi, octaves(q), octaves(epsilon), 0.0))
    assert rules & {*SMOOTH[:3]} and rules & {*KINKED[:3]} and rules & {*FEWER, FINEST}


@pytest.mark.parametrize("name", [*pp.ACTIVATIONS, own])
def test_one_argument_is_right_to_the_last_digits(name):
    """Whatever rule was chosen, of the q of an octave; the finest has twice the points."""
    phi = pp.Network(1, 4, activation=name).activation
    square = lambda z, at: at.phi**2  # noqa: E731
    q = np.geomspace(1e-3, 1e2, 11)
    found = [float(gauss.moments(phi, one)["second"][0]) for one in q]
    np.testing.assert_allclose(found, gauss.average(phi, square, q, 40), rtol=2e-14)


def test_a_kink_that_was_not_found_is_not_passed_over():
    """Equal steps are refused where they do not give what the finest rule does."""
    bent = Activation("bent", lambda h: jnp.tanh(h) + 1e-3 * jnp.maximum(h - 0.7, 0.0) ** 5)
    assert gauss.kinks(bent) == ()
    assert gauss._enough(bent, 0, 0, 0.0) not in SMOOTH[:3]
