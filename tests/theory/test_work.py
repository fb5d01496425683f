"""What a prediction may cost: counts of evaluations and compilations, which no machine changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.theory import derivatives, gauss

MOST_POINTS = {"relu": 50_000, "tanh": 150_000, "own": 170_000}  # a layer; 1.3 times the need


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


@pytest.mark.parametrize(
    ("name", "init"), [("relu", "he_normal"), ("tanh", "lecun_normal"), ("own", "lecun_normal")]
)
def test_a_layer_of_a_prediction_is_few_evaluations(name, init, blocks):
    depth = 30
    pp.predict(pp.Network(depth, 256, activation=own if name == "own" else name, init=init))
    assert blocks
    assert sum(blocks) < MOST_POINTS[name] * depth


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
    """In polar coordinates, with few points in a panel, and with the most."""
    f = lambda a, b: np.stack([(a.phi * b.phi) ** 2, a.slope * b.slope])  # noqa: E731
    for name in ("relu", "leaky_relu_0.2", "tanh", "hard_tanh", "relu6", "gelu", "selu"):
        phi = pp.Network(1, 4, activation=name).activation
        for q, epsilon in ((0.3, 0.01), (1.0, 1.0), (7.0, 1.7)):
            found = gauss.average_pair(phi, f, q, epsilon)
            exact = gauss.average_pair(phi, f, q, epsilon, order=40)
            assert found == pytest.approx(exact, rel=1e-9, abs=1e-11), (name, q, epsilon)
