"""Losses by name: the same numbers as optax, and labels that do not fit are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import propagate as pp
from propagate.models import losses
from propagate.types import UnusableInput

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (8, 4))
CLASSES = np.arange(8) % 4
LINEAR = (lambda w, x: x @ w), jnp.eye(4), X


def test_cross_entropy_is_that_of_optax():
    expected = optax.softmax_cross_entropy_with_integer_labels(X, jnp.asarray(CLASSES)).mean()
    np.testing.assert_allclose(losses.cross_entropy(X, CLASSES), expected, rtol=1e-6)
    tokens = X.reshape(2, 4, 4)
    np.testing.assert_allclose(
        losses.cross_entropy(tokens, CLASSES.reshape(2, 4)), expected, rtol=1e-6
    )


def test_mse_is_a_mean_over_batch_and_outputs():
    np.testing.assert_allclose(losses.mse(X, jnp.zeros((8, 4))), jnp.mean(X**2), rtol=1e-6)
    assert losses.mse(jnp.ones((8, 1)), np.zeros(8)) == 1


@pytest.mark.parametrize(("name", "labels"), [("cross_entropy", CLASSES), ("mse", X + 1)])
def test_a_name_is_its_function(name, labels):
    found = pp.diagnose(*LINEAR, key=KEY, loss=name, labels=labels)
    told = pp.diagnose(*LINEAR, key=KEY, loss=getattr(losses, name), labels=labels)
    one, other = found.record.log10_backward_q, told.record.log10_backward_q
    assert np.isfinite(one[0])
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": CLASSES}, "labels have no effect without a loss"),
        ({"loss": "mse"}, "loss 'mse' needs labels"),
        ({"loss": "entropy", "labels": CLASSES}, "loss must be 'mse' or 'cross_entropy', or"),
        ({"loss": "cross_entropy", "labels": CLASSES + 1}, "from 0 to 3, as the model has 4"),
        ({"loss": "cross_entropy", "labels": np.zeros((8, 4))}, r"labels of shape \(8,\), whole"),
        ({"loss": "cross_entropy", "labels": np.zeros(8)}, "got float32"),
        ({"loss": "mse", "labels": np.zeros(8)}, r"the outputs' shape \(8, 4\), got \(8,\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UnusableInput, match=message):
        pp.diagnose(*LINEAR, key=KEY, **options)


def test_several_outputs_have_no_loss_by_name():
    with pytest.raises(UnusableInput, match="mse needs a model with one output"):
        pp.diagnose(lambda w, x: (x @ w, x), jnp.eye(4), X, key=KEY, loss="mse", labels=X)
