"""Training or inference: chosen by signature or field, alike in every framework, and said."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx
from nnx_net import NNXNet

import propagate as pp
from propagate.models import modes
from propagate.models.pure_function import pure

pytestmark = pytest.mark.lenient  # frameworks promote implicitly

KEY = jax.random.key(0)
X = 3 + jax.random.normal(jax.random.key(1), (32, 4))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train: bool = False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dropout(0.5, deterministic=not train)(x)


class LinenField(nn.Module):
    deterministic: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=self.deterministic)(nn.Dense(4)(x))


class NNXWithRngs(nnx.Module):
    def __init__(self):
        self.dense, self.dropout = nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.Dropout(0.5)

    def __call__(self, x, rngs=None):
        return self.dropout(self.dense(x), rngs=rngs)


class EquinoxNet(eqx.Module):
    dense: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self):
        self.dense, self.dropout = eqx.nn.Linear(4, 3, key=KEY), eqx.nn.Dropout(0.5)

    def __call__(self, x, key):
        return self.dropout(self.dense(x), key=key)


def haiku_net(x, is_training):
    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), is_training)
    return hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x


def keras_net():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    noisy = [layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.5)]
    return keras.Sequential([keras.Input((4,)), *noisy])


def evaluated():
    model = NNXNet()
    model.eval()
    return model


MODELS = {
    "linen": LinenNet,
    "linen field": LinenField,
    "linen layer": lambda: nn.Dropout(0.5),
    "nnx": NNXNet,
    "nnx in eval": evaluated,
    "nnx with rngs": NNXWithRngs,
    "equinox": EquinoxNet,
    "equinox in inference": lambda: eqx.nn.inference_mode(EquinoxNet()),
    "haiku": lambda: hk.transform_with_state(haiku_net),
    "keras": keras_net,
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_training_is_the_default_and_inference_can_be_chosen(build):
    """A dropout of one half leaves no zero among 96 numbers with probability 1e-29."""
    for training, zeros, mode in ((None, True, "training"), (False, False, "inference")):
        made = pure(build(), X, key=KEY, training=training)
        assert made.mode == mode
        assert jnp.any(made.fn(made.params, *made.inputs) == 0) == zeros


@pytest.mark.parametrize("name", ["linen", "nnx", "equinox", "haiku", "keras"])
def test_dropout_follows_the_key(name):
    one, same, other = (pure(MODELS[name](), X, key=jax.random.key(k)) for k in (0, 0, 5))
    a, b, c = (made.fn(made.params, *made.inputs) == 0 for made in (one, same, other))
    assert (a == b).all() and not (a == c).all()


@pytest.mark.parametrize("name", ["linen", "nnx", "keras"])
def test_batch_norm_uses_the_batch_and_inference_its_averages(name):
    """Inputs of mean 3: with averages of a new model outputs have an rms far from 1."""
    rms = []
    for training in (True, False):
        made = pure(MODELS[name](), X, key=KEY, training=training)
        rms.append(float(jnp.sqrt(jnp.mean(made.fn(made.params, *made.inputs) ** 2))))
    assert rms[0] == pytest.approx(2**0.5, rel=0.35)  # 1, of which dropout keeps half and doubles
    assert rms[1] > 1.5 * rms[0]


def test_the_model_itself_stays_in_its_mode():
    model = evaluated()
    pure(model, X, key=KEY)
    assert model.dropout.deterministic and model.norm.use_running_average


def test_a_switch_of_the_users_own_decides():
    for options in ({"kwargs": {"train": False}}, {"kwargs": {"train": False}, "training": True}):
        assert pure(LinenNet(), X, key=KEY, **options).mode == "inference"
    assert pure(hk.transform_with_state(haiku_net), X, True, key=KEY, training=False).mode == (
        "training"
    )
    assert pure(LinenField(deterministic=False), X, key=KEY).mode == "training"
    assert pure(keras_net(), X, key=KEY, kwargs={"training": False}).mode == "inference"


def test_a_layer_that_is_frozen_beside_others_that_are_not_stays_so():
    model = NNXNet()
    model.norm.use_running_average = True
    made = pure(model, X, key=KEY)
    assert made.mode == "training"
    assert jnp.sqrt(jnp.mean(made.fn(made.params, X) ** 2)) > 2


def test_functions_have_switches_too_and_others_have_none():
    def net(params, x, train=False):
        return x @ params if train else x

    assert pure(net, X.T, X, key=KEY).mode == "training"
    assert pure(net, X.T, X, key=KEY, training=False).mode == "inference"
    for model in (eqx.nn.MLP(4, 4, 4, 1, key=KEY), nn.Dense(3), nnx.Linear(4, 3, rngs=nnx.Rngs(0))):
        assert pure(model, X, key=KEY).mode == ""
    assert modes.by_arguments(print, (), {}, None) == ({}, None)


@pytest.mark.parametrize("name", ["linen", "nnx", "equinox", "haiku", "keras"])
def test_every_output_says_the_mode(name):
    for training, words in ((None, "training mode"), (False, "inference mode")):
        found = pp.diagnose(MODELS[name](), X, key=KEY, training=training)
        assert found.record.attrs["mode"] == words.split()[0]
        assert words in str(found).splitlines()[0]
        title = str(found.table()).splitlines()[:2]  # as wide as the table, which may be narrow
        assert words in " ".join(title)
        assert words in found._repr_html_()


def test_a_model_without_a_mode_says_nothing():
    found = pp.diagnose(lambda w, x: jnp.tanh(x @ w), jnp.eye(4), X, key=KEY)
    assert "mode" not in found.record.attrs and "mode" not in str(found)
    assert str(found.table()).splitlines()[0] == "rms at each site of <lambda>"


def test_an_equinox_module_for_one_example_is_mapped_and_it_is_said():
    model = eqx.nn.MLP(4, 3, 8, 2, key=KEY)
    found, told = pp.diagnose(model, X, key=KEY), pp.diagnose(model, X, key=KEY, vmap=True)
    np.testing.assert_array_equal(found.record.log10_forward_q, told.record.log10_forward_q)
    assert str(found).splitlines()[0] == "MLP, mapped over the batch as with vmap=True:"
    assert "mapped" not in str(told)


def test_a_batch_as_long_as_an_example_is_mapped_all_the_same():
    square = X[:4]
    made = pure(eqx.nn.Linear(4, 4, key=KEY), square, key=KEY)
    assert made.mapped
    expected = jax.vmap(eqx.nn.Linear(4, 4, key=KEY))(square)
    np.testing.assert_allclose(made.fn(made.params, square), expected, rtol=1e-5)


def test_an_equinox_module_that_takes_its_input_whole_is_left_alone():
    class OverTokens(eqx.Module):
        dense: eqx.nn.Linear

        def __call__(self, tokens):
            return jax.nn.softmax(jax.vmap(self.dense)(tokens), axis=0)

    assert not pure(OverTokens(eqx.nn.Linear(4, 4, key=KEY)), X, key=KEY).mapped


@pytest.mark.parametrize("transform", [hk.transform, hk.transform_with_state])
def test_haiku_without_a_key_for_apply(transform):
    bare = hk.without_apply_rng(transform(lambda x: hk.Linear(3)(x)))
    with_key = transform(lambda x: hk.Linear(3)(x))
    one, other = (pp.diagnose(model, X, key=KEY).record for model in (bare, with_key))
    np.testing.assert_array_equal(one.log10_forward_q, other.log10_forward_q)


def test_a_model_may_print(capfd):
    def quiet(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return x

    def loud(params, x):
        jax.debug.print("mean {}", x.mean())

        def body(x, w):
            jax.debug.callback(lambda _: None, x)
            return jnp.tanh(x @ w), None

        for w in params:
            x = jax.checkpoint(lambda x, w=w: body(x, w)[0])(x)
        jax.debug.print("done")
        return x

    params = [jnp.eye(4) / 2] * 3
    one, other = (pp.diagnose(model, params, X, key=KEY) for model in (loud, quiet))
    np.testing.assert_array_equal(one.record.log10_forward_q, other.record.log10_forward_q)
    np.testing.assert_allclose(one.theory().log10_forward_q, other.theory().log10_forward_q)
    _, trace = jax.jit(pp.value_and_grad(lambda w, x: jnp.sum(loud(w, x))))(params, X)
    assert trace.record().sizes["site"] == one.record.sizes["site"]
    jax.effects_barrier()
    assert "mean " in capfd.readouterr().out
