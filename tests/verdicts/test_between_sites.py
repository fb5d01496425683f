"""What lies between two sites is named: a factor, a sum, a norm; the healthy twins are silent."""

import jax
import jax.numpy as jnp
import pytest

import propagate as pp
from propagate.verdicts.findings import Findings

K = jax.random.key
HE = jax.nn.initializers.he_normal()
WIDTH = 32
WEIGHTS = [HE(k, (WIDTH, WIDTH)) for k in jax.random.split(K(1), 8)]
X = jax.random.normal(K(2), (64, WIDTH))


def stack(at_five):
    def model(weights, x):
        for k, w in enumerate(weights):
            x = jax.nn.relu(x @ w)
            x = at_five(x) if k == 4 else x
        return x

    return model


def forward(model, weights=WEIGHTS, x=X, **options):
    found = pp.diagnose(model, weights, x, key=K(0), **options).findings.faults
    return [f for f in found if f.direction == "forward"]


BETWEEN = {
    "times 30": (lambda x: 30 * x, "between 4 and 5, across a factor of 30 and matmul"),
    "over 0.02": (lambda x: x / 0.02, "between 4 and 5, across a factor of 50 and matmul"),
    "over a norm": (
        lambda x: x / (0.01 * jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True))),
        "between 3 and 4, across matmul and the norm behind it",
    ),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_multiplies_a_signal_without_a_site_is_named(name):
    between, words = BETWEEN[name]
    (finding,) = forward(stack(between))
    assert words in finding.reason
    assert not forward(stack(lambda x: 1.0 * x))


def test_a_sum_over_positions_is_named_and_the_first_loss_does_not_contradict_it():
    """2,048 positions are summed: a mean is fine, and one remedy is told, not two."""
    weights = [HE(K(1), (8, 32)), HE(K(2), (32, 32)), HE(K(3), (32, 10))]
    x = jax.random.normal(K(4), (8, 2048, 8))
    own = {"weights": weights, "x": x, "loss": "cross_entropy", "labels": jnp.arange(8)}

    def pooled(pool):
        def model(p, x):
            h = jax.nn.relu(jax.nn.relu(x @ p[0]) @ p[1])
            return pool(h, axis=1) @ p[2]

        return model

    found = forward(pooled(jnp.sum), **own)
    grown, *rest = [f.reason for f in found]
    assert "across reduce_sum and matmul (a mean in place of the sum?)" in grown
    assert all("What makes the signal at 2 too large comes first" in reason for reason in rest)
    assert len(rest) == 1 and "first loss" in rest[0]
    assert not forward(pooled(jnp.mean), **own)


def test_one_site_is_counted_as_one():
    assert Findings().conclusion(1) == "healthy: no findings at 1 site"
    found = pp.diagnose(lambda w, x: x @ w, WEIGHTS[0], X, key=K(0))
    assert found.conclusion.endswith("at 1 site")
