"""Checks of arguments: what they let through, and what they say of the rest."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from propagate import checks
from propagate.types import UnusableInput

KEY = jax.random.key(3)


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(3), np.asarray(jax.random.PRNGKey(3))])
def test_a_key_of_either_form_is_the_same_key(key):
    found = checks.random_key(key)
    assert jnp.issubdtype(found.dtype, jax.dtypes.prng_key)
    assert jax.random.uniform(found) == jax.random.uniform(KEY)


def test_a_key_may_be_traced():
    draw = lambda key: jax.random.uniform(checks.random_key(key))  # noqa: E731
    assert jax.jit(draw)(KEY) == draw(KEY)


@pytest.mark.parametrize(
    "value",
    [
        *(None, 0, jnp.zeros(2), jnp.arange(2)),
        *(jnp.arange(3, dtype=jnp.uint32), jnp.zeros((4, 2), jnp.uint32)),
        jax.random.split(KEY),
    ],
    ids=["none", "seed", "floats", "ints", "three", "pairs", "keys"],
)
def test_what_is_not_one_key_is_refused_in_one_way(value):
    with pytest.raises(UnusableInput, match=r"key must be one random key.*key=jax.random.key\(0\)"):
        checks.random_key(value)


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3)])
def test_a_whole_number_may_be_spelled_as_a_float(value):
    found = checks.whole_number("kernel", value)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [2.5, 0, -1, math.inf, math.nan, True, "3", None])
def test_what_is_not_a_whole_number_is_refused(value):
    with pytest.raises(UnusableInput, match="kernel must be a whole number of at least 1"):
        checks.whole_number("kernel", value)


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, True, "0.1", None])
def test_a_tolerance_is_in_decades_per_layer_from_zero_on(value):
    checks.check_tolerance("tolerance", 0)
    with pytest.raises(UnusableInput, match="tolerance must be decades per layer"):
        checks.check_tolerance("tolerance", value)
