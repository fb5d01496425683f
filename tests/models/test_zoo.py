"""Published models: every product is a named site, and outputs are the model's own.

Of deep ones each kind of block once; `tests/benchmarks/coverage.py` counts the sites of all."""

import functools

import jax
import numpy as np
import pytest
import sameness
import zoo

import propagate as pp
from propagate.models.pure_function import pure
from propagate.tracing.probe import Options, probe

pytestmark = pytest.mark.lenient  # frameworks promote implicitly

KEY = jax.random.key(7)
ATTENTION = {"linen transformer": 2 * 4, "keras hub transformer": 2}  # without a parameter
FUSED = ("equinox MLP", "flowjax flow")
LIKE_LINEN = "keras hub transformer"  # whose gradient is of linen's arithmetic
LARGE = (
    "haiku ResNet50",
    "haiku MobileNetV1",
    "keras ResNet50V2",
    "keras EfficientNetV2B0",
    "keras ConvNeXtTiny",
)


@functools.cache
def built(name: str) -> tuple:
    """Build a model once for all tests; none of them changes it."""
    return zoo.SHORT[name]()


def products(jaxpr) -> int:
    """How many matrix products and convolutions a program makes; its scans have fixed lengths."""
    count = 0
    for eqn in jaxpr.eqns:
        inside = sum(
            products(getattr(j, "jaxpr", j))
            for value in eqn.params.values()
            for j in (value if isinstance(value, tuple) else (value,))
            if hasattr(getattr(j, "jaxpr", j), "eqns")
        )
        own = eqn.primitive.name in ("dot_general", "conv_general_dilated")
        count += own + inside * eqn.params.get("length", 1)
    return count


@pytest.mark.parametrize("name", zoo.ZOO)
def test_a_published_model_is_covered(name):
    model, inputs, options = built(name)
    ready = pure(model, *inputs, key=KEY, **options)
    run = lambda params, data: ready.fn(params, *data)  # noqa: E731
    _, names = probe(run, ready.params, ready.inputs, Options(("q",)))
    rows = names.rows()
    made = [site for site, _ in rows if site.kind in ("matmul", "conv")]
    expected = products(jax.make_jaxpr(run)(ready.params, ready.inputs).jaxpr)
    assert len(made) + sum(one.products for one in names.unopened) == expected
    assert sum(site.parameter is None for site in made) == ATTENTION.get(name, 0)
    assert len(set(names.names(rows))) == len(rows)


@pytest.mark.parametrize("name", [name for name in zoo.ZOO if name not in LARGE])
def test_outputs_are_the_models_own(name):
    model, inputs, options = built(name)
    found = pp.diagnose(model, *inputs, key=KEY, measures=("q",), **options)
    ready = pure(model, *inputs, key=jax.random.split(KEY)[0], **options)
    outputs = jax.tree.leaves(jax.jit(ready.fn)(ready.params, *ready.inputs))
    assert np.isfinite(found.record.log10_backward_q).any()
    for ours, own in zip(jax.tree.leaves(found.outputs), outputs, strict=True):
        np.testing.assert_allclose(ours, own, rtol=1e-4, atol=1e-4 * np.abs(own).max())
    off = found.theory().log10_forward_residual.values[found.record.kind.isin(["matmul", "conv"])]
    assert np.nanmedian(np.abs(off)) < 0.4  # 16 units and 8 inputs wander by as much


@pytest.mark.parametrize("name", [n for n in zoo.ZOO if n not in (*LARGE, LIKE_LINEN)])
def test_values_and_gradients_are_the_models_own(name):
    """Bitwise with products tapped, unless XLA fuses a bias differently; within rounding always.

    By how much that is depends on the processor: 0.9 units on one, 1.5 on another.
    """
    products, every = sameness.compared(*built(name))
    assert products <= (2 if name in FUSED else 0)
    assert every <= 4


def test_a_difference_shows():
    own = {"w": np.float32([1, 2]), "b": np.float32([0])}
    assert sameness.apart(own, {"w": np.float32([1, 2.5]), "b": np.float32([0])}) == [0, 0.5]
    assert all(sameness.apart(sameness.last_bit(own), own))


def test_a_product_without_a_site_would_be_counted():
    assert (
        products(
            jax.make_jaxpr(lambda w, x: jax.jit(lambda x: x @ w @ w)(x))(np.eye(2), np.eye(2)).jaxpr
        )
        == 2
    )
