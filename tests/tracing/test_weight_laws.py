"""Which law a parameter resembles: every law that is looked for, from draws of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from propagate.initializers import INITIALIZERS
from propagate.tracing.trees import ParameterTable
from propagate.tracing.weight_laws import FRAMEWORK_DEFAULTS, MOMENTS, table

FANS = (64, 256)


def variables(params, fans, stacked=0):
    parameters = ParameterTable.of(params, [stacked] * len(params))
    weights = jax.device_get(parameters.sums(params, MOMENTS))
    return table(parameters, weights, None, fans)


@pytest.mark.parametrize(
    "name", ["he_normal", "he_uniform", "lecun_normal", "glorot_uniform", *FRAMEWORK_DEFAULTS]
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
