"""Formulas of h: what they compute, and that nothing else is run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.activations import activation
from propagate.formulas import FUNCTIONS, LONGEST, formula

H = np.linspace(-4, 4, 33).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h * sigmoid(1.7*h)", lambda h: h / (1 + np.exp(-1.7 * h))),
        ("1/(1 + exp(-h))", lambda h: 1 / (1 + np.exp(-h))),
        ("where(h > 0, h, 0.1*h)", lambda h: np.where(h > 0, h, 0.1 * h)),
        ("h^3 - h**2/2", lambda h: h**3 - h**2 / 2),
        ("maximum(h, 0)", lambda h: np.maximum(h, 0)),
        ("sin(pi*h) + 0", lambda h: np.sin(np.pi * h)),
        ("h*0 + 1", lambda h: np.ones_like(h)),
        ("-abs(h) + +h", lambda h: -np.abs(h) + h),
    ],
)
def test_a_formula_is_its_function(text, expected):
    np.testing.assert_allclose(formula(text)(jnp.asarray(H)), expected(H), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_it_keeps_shape_and_dtype_and_has_a_derivative(dtype):
    phi = formula("where(h > 0, 1, 0.5) * h**2")
    h = jnp.asarray([[-2.0], [3.0]], dtype)
    assert phi(h).shape == h.shape and phi(h).dtype == h.dtype
    slope = jax.jvp(phi, (h,), (jnp.ones_like(h),))[1]
    np.testing.assert_allclose(np.asarray(slope, np.float32), [[-2.0], [6.0]])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_can_be_called(name):
    arguments = {"clip": "h, -1, 1", "maximum": "h, 0", "minimum": "h, 0", "where": "h > 0, h, 0"}
    value = formula(f"{name}({arguments.get(name, 'h')})")(jnp.float32(0.5))
    assert value.shape == () and bool(jnp.isfinite(value))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true') * h",
        "h.__class__",
        "h.at[0].set(1)",
        "(lambda: h)()",
        "[h for h in (1,)]",
        "h if h > 0 else 0",
        "h or 1",
        "h[0]",
        "f'{h}'",
        "(h := 2)",
        "jnp.tanh(h)",
        "eval(h)",
        "getattr(h, 0)",
        "tanh(x=h)",
        "tanh(*h)",
        "h * True",
        "h * 'a'",
        "h * 1j",
        "x + h",
        "h @ h",
        "h < 1 < 2",
        "tanh(h",
        "h; h",
        "",
        "-" * 60 + "h",
        "(" * 500 + "h" + ")" * 500,
        "h" + " + h" * LONGEST,
    ],
)
def test_whatever_else_is_in_it_is_refused(text):
    with pytest.raises(pp.UnusableInput, match=r"^a formula"):
        formula(text)


@pytest.mark.parametrize("text", ["9**9**9**9 * h", "1/0 + h", "(-1)**0.5 * h", "sin(h, h)"])
def test_what_has_no_value_is_refused(text):
    with pytest.raises(pp.UnusableInput, match="cannot be computed"):
        formula(text)


def test_a_condition_is_no_number():
    with pytest.raises(pp.UnusableInput, match="gives bool"):
        formula("h > 0")


def test_a_formula_is_an_activation_wherever_one_is_named():
    """ReLU, spelled out: theory and measurement are ReLU's."""
    spelled, named = (
        pp.Network(depth=4, width=16, activation=phi) for phi in ("where(h > 0, h, 0)", "relu")
    )
    assert spelled.activation.name == "where(h > 0, h, 0)"
    assert activation("h*2") == activation("h * 2")
    theory = [pp.predict(net).log10_forward_q.values for net in (spelled, named)]
    np.testing.assert_allclose(*theory, atol=0.1)  # of ReLU the 1/n shift is exact
    key, options = jax.random.key(0), {"batch": 4, "seeds": 1, "measures": ("q",)}
    measured = [pp.measure(net, key, **options).log10_forward_q for net in (spelled, named)]
    np.testing.assert_allclose(*measured, atol=1e-5)


def test_a_misspelled_name_is_still_a_name():
    with pytest.raises(pp.UnusableInput, match="did you mean 'relu'"):
        activation("rellu")
