"""`pp.value_and_grad` of a module: values, gradients and state as the framework's own has them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from nnx_net import NNXNet

import propagate as pp

pytestmark = pytest.mark.lenient

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (8, 4))


class EquinoxNet(eqx.Module):
    mlp: eqx.nn.MLP
    steps: jax.Array

    def __call__(self, x):
        return self.mlp(x) * self.steps


def equinox_net():
    return EquinoxNet(eqx.nn.MLP(4, 3, 8, 2, key=KEY), jnp.array(3))


def nnx_loss(model, x):
    return jnp.mean(model(x) ** 2)


def equinox_loss(model, x):
    return jnp.mean(jax.vmap(model)(x) ** 2)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_nnx_module_has_the_gradients_and_the_state_of_nnx():
    own, ours = NNXNet(), NNXNet()
    expected, grads = nnx.value_and_grad(nnx_loss)(own, X)
    (value, found), trace = pp.value_and_grad(nnx_loss)(ours, X)
    assert isinstance(found, nnx.State)
    same(found, grads)
    same(nnx.state(ours), nnx.state(own))  # running averages, counts of random streams
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert "dense.kernel" in trace.record()["weight"].values


def test_an_nnx_module_trains_within_nnx_jit():
    model = NNXNet()

    @nnx.jit
    def step(model, x):
        (value, grads), trace = pp.value_and_grad(nnx_loss, measures=("q",))(model, x)
        params = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))
        return value, trace

    counts = []
    for _ in range(2):
        _, trace = step(model, X)
        counts.append(int(model.dropout.rngs.count[...]))
    assert counts[1] == counts[0] + 1  # dropout draws anew
    assert trace.record().sizes["site"] > 1


@pytest.mark.parametrize("jit", [lambda fun: fun, eqx.filter_jit])
def test_an_equinox_module_has_the_gradients_of_equinox(jit):
    model = equinox_net()
    expected, grads = eqx.filter_value_and_grad(equinox_loss)(model, X)
    (value, found), trace = jit(pp.value_and_grad(equinox_loss))(model, X)
    assert isinstance(found, EquinoxNet) and found.steps is None
    same(found, grads)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert "mlp.layers.0.weight" in trace.record()["weight"].values


def test_what_a_loss_returns_besides_and_modules_within_a_tree():
    model = {"net": equinox_net(), "scale": jnp.ones(())}

    def loss(model, x):
        out = jax.vmap(model["net"])(x) * model["scale"]
        return jnp.mean(out**2), {"outputs": out}

    ((_, aux), grads), _ = pp.value_and_grad(loss, has_aux=True)(model, X)
    assert aux["outputs"].shape == (8, 3)
    same(grads, eqx.filter_grad(loss, has_aux=True)(model, X)[0])


def test_a_module_without_arrays_of_its_own_is_refused_with_the_remedy():
    """Linen's, bound or not: JAX cannot differentiate by it."""
    module = linen.Dense(3)
    bound = module.bind(module.init(KEY, X))
    for model in (module, bound, {"net": bound}):
        with pytest.raises(
            pp.UnusableInput, match=r"got Dense: pass the parameters, .* model.apply"
        ):
            pp.value_and_grad(nnx_loss)(model, X)
    value = lambda params, x: nnx_loss(bound.unbind()[0].bind(params), x)  # noqa: E731
    (found, _), _ = pp.value_and_grad(value)(bound.variables, X)
    np.testing.assert_allclose(found, nnx_loss(bound, X), rtol=1e-6)


def test_a_trace_says_what_is_wrong_and_gives_numbers_to_a_logger():
    weights = [0.2 * jax.random.normal(k, (16, 16)) for k in jax.random.split(KEY, 9)]
    x = jax.random.normal(KEY, (32, 16))

    def loss(weights, x):
        for w in weights:
            x = jnp.tanh(x @ w)
        return jnp.sum(x)

    _, trace = jax.jit(pp.value_and_grad(loss))([w / 2 for w in weights], x)
    assert "vanishing" in str(trace.findings())
    found = trace.scalars("train")
    q = float(trace.record()["log10_forward_q"][0])
    assert found["train/0/forward_rms"] == pytest.approx(10 ** (q / 2))
