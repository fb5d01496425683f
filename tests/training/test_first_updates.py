"""The change of a signal is that of two evaluations, in a scan and behind a conditional too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from propagate.training import first_updates, optimizers
from propagate.types import UnusableInput

N, B, RATE = 8, 5, 0.1
KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    "stack": jax.random.normal(KEYS[0], (3, N, N)) / N**0.5,
    "out": jax.random.normal(KEYS[1], (N, 1)) / N,
}
BATCH = jax.random.normal(KEYS[2], (B, N)), jax.random.normal(KEYS[3], (B, 1))


def signals(params, batch):
    """Return every product of the model and its loss."""
    h, products = batch[0], []
    for w in params["stack"]:
        products.append(h @ w)
        h = jnp.tanh(products[-1])
    products.append(jnp.where(batch[0].sum() < 1e9, 1, 0) * (h @ params["out"]))
    return products, jnp.mean((products[-1] - batch[1]) ** 2)


def loss(params, batch):
    """The same, as a scan and a conditional."""
    h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), batch[0], params["stack"])
    head = lambda h: h @ params["out"]  # noqa: E731
    blank = lambda h: jnp.sin(h)[:, :1]  # noqa: E731
    out = jax.lax.cond(batch[0].sum() < 1e9, head, blank, h)
    return jnp.mean((out - batch[1]) ** 2)


def log10_q(x):
    with np.errstate(divide="ignore"):
        return np.log10(np.mean(np.square(np.asarray(x, np.float64))))


def test_changes_and_updates_are_those_of_two_evaluations():
    model = first_updates.traced(loss, PARAMS, BATCH, N, None)
    pair = optimizers.pair("sgd")
    found = first_updates.follow(
        model.step(pair, [RATE, RATE]), pair, steps=1, start=PARAMS, batch=BATCH
    )
    grads = jax.grad(lambda p: signals(p, BATCH)[1])(PARAMS)
    after = jax.tree.map(lambda w, g: w - RATE * g, PARAMS, grads)
    before, moved = signals(PARAMS, BATCH)[0], signals(after, BATCH)[0]
    expected = [log10_q(b - a) for a, b in zip(before, moved, strict=True)]
    products = found.isel(site=found.kind.values == "matmul")
    assert products.parameter.values.tolist() == [*(f"stack[{k}]" for k in range(3)), "out"]
    np.testing.assert_allclose(products.log10_change_q[1], expected, atol=1e-4)
    assert (products.log10_change_q[0] == -np.inf).all()  # nothing has moved yet, exactly
    updates = [log10_q(RATE * g) for g in (grads["out"], *grads["stack"])]
    np.testing.assert_allclose(found.log10_update_q[0], updates, atol=1e-4)
    untaken = found.isel(site=found.label.values == "sin")
    assert untaken.sizes["site"] == 1 and np.isnan(untaken.log10_change_q).all()


def test_parameters_that_cannot_be_updated_are_refused():
    with pytest.raises(UnusableInput, match="floating-point arrays"):
        first_updates.traced(loss, PARAMS | {"n": jnp.ones((), jnp.int32)}, BATCH, N, None)
    with pytest.raises(UnusableInput, match="one number"):
        first_updates.traced(lambda p, b: b[0] @ p["out"], PARAMS, BATCH, N, None)
