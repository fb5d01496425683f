"""Which law a parameter resembles: every law that is looked for, from draws of it."""

import math
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.initializers import INITIALIZERS
from propagate.tracing.trees import ParameterTable
from propagate.tracing.weight_laws import MOMENTS, Moments, resembles, table

FANS = (64, 256)


def variables(params, fans, stacked=0):
    parameters = ParameterTable.of(params, [stacked] * len(params))
    weights = jax.device_get(parameters.sums(params, MOMENTS))
    return table(parameters, weights, None, fans)


@pytest.mark.parametrize(
    "name", ["he_normal", "he_uniform", "lecun_normal", "glorot_uniform", "torch", "haiku"]
)
def test_a_draw_resembles_its_law(name):
    draw = INITIALIZERS[name]()
    key = jax.random.key(0)
    w = draw.scale(*FANS) * draw.base.sample(key, FANS, jnp.float32)
    made = variables({"w": w}, {"w": FANS})
    assert made["weight"].tolist() == ["w"]
    assert made["weight_law"][1].tolist() == [name]
    expected = math.log10(FANS[0] * np.var(np.asarray(w, np.float64)))
    np.testing.assert_allclose(made["log10_weight_sigma2"][1], [expected], atol=1e-5)


def test_without_fans_or_spread_the_law_is_its_scale():
    params = {"a": jnp.zeros(9), "b": jnp.ones(9), "c": jnp.full(9, -0.25)}
    params["d"] = jax.random.uniform(jax.random.key(0), (4000,), minval=-2, maxval=2)
    made = variables(params, {})
    laws = made["weight_law"][1].tolist()
    assert laws[:3] == ["zeros", "ones", "constant_-0.25"]
    assert laws[3].startswith(("uniform_1.9", "uniform_2"))
    assert np.isnan(made["log10_weight_sigma2"][1]).all()


def test_a_stacked_parameter_has_a_row_for_each_layer():
    w = jnp.stack([k * jnp.ones((2, 3)) for k in (1.0, 2.0)])
    made = variables({"w": w}, {}, stacked=1)
    assert made["weight"].tolist() == ["w[0]", "w[1]"]
    np.testing.assert_allclose(made["log10_weight_q"][1], [0, 2 * math.log10(2)], atol=1e-6)


def test_without_parameters_there_is_no_variable():
    assert list(variables({}, {})) == ["weight"]


def moments(w):
    w = np.asarray(w, np.float64)
    q = np.mean(w**2)
    largest = math.log10(np.abs(w).max())
    return Moments(w.size, math.log10(q), float(w.mean() / q**0.5), largest)


LAWS = [f"{law}_{shape}" for law in ("glorot", "he", "lecun") for shape in ("uniform", "normal")]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(64, 10), (10, 64), (64, 64), (64, 1)])
def test_a_draw_is_called_by_its_name_or_one_of_several(law, shape):
    """Of 200 draws, 95 %; one is missed with probability 0.7 % for each rival law, by design."""
    draw = jax.jit(jax.vmap(lambda key: getattr(jax.nn.initializers, law)()(key, shape)))
    called = [resembles(moments(w), shape) for w in draw(jax.random.split(jax.random.key(3), 200))]
    assert sum(law in name for name in called) >= 190
    if shape == (64, 10):
        assert called.count(law) >= 190


def test_laws_that_are_the_same_are_all_named():
    w = jax.nn.initializers.glorot_uniform()(jax.random.key(0), (64, 64))
    assert resembles(moments(w), (64, 64)) == "ambiguous: lecun_uniform or glorot_uniform"


@pytest.mark.parametrize("factor", [0.9, 1.1, 3.0])
def test_a_scale_of_its_own_is_no_named_law(factor):
    """100 by 400: a scale 10 % off is 28 standard errors off."""
    for law in ("he_normal", "he_uniform"):
        w = factor * getattr(jax.nn.initializers, law)()(jax.random.key(0), (100, 400))
        assert resembles(moments(w), (100, 400)).startswith(
            ("truncated_normal_", "uniform_" if "uniform" in law else "truncated_normal_")
        )


def test_what_has_a_mean_is_told_by_its_mean():
    w = 1 + 0.1 * jax.random.normal(jax.random.key(0), (1000,))
    assert resembles(moments(w)) == f"mean_{float(w.mean()):.3g}_std_{float(w.std()):.3g}"


def laws_of(model, x):
    """Return the law of each weight of a model whose layers stand side by side."""
    record = pp.diagnose(model, x, key=jax.random.key(0), measures=("q",)).record
    return dict(zip(record.weight.values.tolist(), record.weight_law.values.tolist(), strict=True))


X = jax.random.normal(jax.random.key(1), (4, 8, 8, 16))


@pytest.mark.lenient
def test_kernels_of_keras_are_called_by_their_laws():
    import keras
    from keras.layers import Conv2D, Conv2DTranspose, DepthwiseConv2D, SeparableConv2D

    keras.utils.set_random_seed(0)
    he = {"kernel_initializer": "he_normal"}
    separable = SeparableConv2D(32, 3, depth_multiplier=2)
    cases = [
        (Conv2D(32, 3, groups=4), "kernel", "glorot_uniform"),
        (Conv2D(32, 3, groups=4, **he), "kernel", "he_normal"),
        (DepthwiseConv2D(3, depth_multiplier=4), "kernel", "glorot_uniform"),
        (separable, "depthwise_kernel", "glorot_uniform"),
        (separable, "pointwise_kernel", "glorot_uniform"),
        (Conv2DTranspose(8, 3, strides=2, padding="same"), "kernel", "glorot_uniform"),
        (Conv2DTranspose(8, 3, padding="same", **he), "kernel", "he_normal"),
    ]
    inputs = keras.Input((8, 8, 16))
    outputs = [layer(inputs) for layer in dict.fromkeys(layer for layer, *_ in cases)]
    called = laws_of(keras.Model(inputs, outputs), X)
    for layer, name, law in cases:
        assert law in called[f"{layer.name}.{name}"], (layer.name, name, called)


@pytest.mark.lenient
def test_kernels_of_haiku_are_called_by_their_laws():
    import haiku as hk

    cases = [
        (lambda: hk.Conv2D(32, 3, feature_group_count=4), "conv2_d.w", "haiku"),
        (lambda: hk.DepthwiseConv2D(4, 3), "depthwise_conv2_d.w", "haiku"),
        (lambda: hk.Conv2DTranspose(8, 3, stride=2), "conv2_d_transpose.w", "haiku"),
        (
            lambda: hk.Conv2D(32, 3, w_init=hk.initializers.VarianceScaling(2.0)),
            "conv2_d_1.w",
            "he_normal",
        ),
    ]
    called = laws_of(hk.transform(lambda x: [layer()(x) for layer, *_ in cases]), X)
    for _, path, law in cases:
        assert law in called[path], (path, called)
