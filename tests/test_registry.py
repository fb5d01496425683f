"""Spellings: numbers survive them, mistakes are named, and no text does anything worse."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from propagate import registry
from propagate.activations import ACTIVATIONS, activation
from propagate.initializers import INITIALIZERS, initializer, normal
from propagate.types import UnusableInput

numbers = st.floats(1e-30, 1e30) | st.integers(1, 10**6)
names = st.sampled_from([*INITIALIZERS, *ACTIVATIONS])
arguments = st.text("0123456789.e+-,= abcdefgilmnopstw()_", max_size=20)
spelled = st.builds("{}{}{}".format, names, st.sampled_from(["(", "_", " ", "*"]), arguments)


@given(numbers)
@example(1e-05)
@example(100000.0)
@example(1e16)
def test_a_number_after_the_name_is_read_exactly(value):
    assert initializer(f"normal_{value!r}").scale.gain == value
    assert activation(f"leaky_relu_{value!r}") == activation(f"leaky_relu({value!r})")


@given(numbers)
@example(1e-05)
@example(1e6)
@example(0.123456789)
def test_the_name_of_an_initialiser_spells_it_exactly(value):
    init = normal(value)
    assert initializer(init.name) == init
    phi = activation(f"leaky_relu({value!r})")
    assert activation(phi.name) == phi


@given(numbers, st.floats(-1e3, 1e3))
@example(1.2345678, 0.1)
def test_the_name_of_a_pair_spells_it_exactly(sigma_w, sigma_b):
    init = initializer((sigma_w, sigma_b))
    assert initializer(init.name) == init


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  He_Normal ", "he_normal"),
        ("he_normal()", "he_normal"),
        ("he_normal_0", "he_normal"),
        ("he_normal(0.2)", "he_normal_0.2"),
        ("he_normal(slope=0.2)", "he_normal_0.2"),
        ("he_normal(slope = 0.2, mode = fan_out)", "he_normal(0.2,mode=fan_out)"),
        ("orthogonal_1", "orthogonal"),
        ("normal_2e-2", "normal(0.02)"),
        ("sigma_1.5", "sigma(1.5,0)"),
    ],
)
def test_spellings_of_the_same_initialiser(text, same):
    assert initializer(text) == initializer(same)


@pytest.mark.parametrize(
    ("parse", "text", "nearest"),
    [
        (initializer, "he_norml", "he_normal"),
        (initializer, "xavier_unifrom", "xavier_uniform"),
        (initializer, "ortogonal(2)", "orthogonal"),
        (activation, "rellu", "relu"),
        (activation, "leaky_rellu_0.1", "leaky_relu"),
        (activation, "swilu", "silu"),
    ],
)
def test_a_wrong_name_gets_the_nearest_and_the_list(parse, text, nearest):
    with pytest.raises(UnusableInput, match=f"did you mean '{nearest}'") as caught:
        parse(text)
    for name in INITIALIZERS if parse is initializer else ACTIVATIONS:
        assert name in str(caught.value)


def test_a_name_like_no_other_gets_the_list_alone():
    with pytest.raises(UnusableInput, match="The names are identity, sigmoid") as caught:
        activation("zzzzzz")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (initializer, "he_normal(0.1,fan_in,3)"),
        (initializer, "he_normal(gain=2)"),
        (initializer, "torch_2"),
        (initializer, "keras(1)"),
        (initializer, "zeros(1)"),
        (activation, "relu_2"),
        (activation, "tanh(1)"),
        (activation, "leaky_relu(0.1,0.2)"),
        (activation, "leaky_relu(0.1,slope=0.2)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(parse, text):
    with pytest.raises(UnusableInput, match=r"takes .*got '"):
        parse(text)


@given(st.text(max_size=30) | spelled)
@example("")
@example("normal(")
@example("normal_1.2.3")
@example("normal(std=)")
@example("he_normal(slope=abc)")
@example("he_normal_1e200")
@example("sparse(foo)")
@example("sigma(a,b)")
@example("lsuv(x)")
@example("leaky_relu(abc)")
@example("0.5*")
@example("*" * 10)
def test_no_text_raises_anything_but_unusable_input(text):
    for parse in (initializer, activation):
        with contextlib.suppress(UnusableInput):
            parse(text)


def test_defaults_are_left_out_of_a_spelling():
    defaults = {"slope": 0.0, "mode": "fan_in"}
    spell = registry.spell
    assert spell("he", defaults, {"slope": 0.0, "mode": "fan_in"}) == "he"
    assert spell("he", defaults, {"slope": 0.5, "mode": "fan_in"}) == "he_0.5"
    assert spell("he", defaults, {"slope": 0.0, "mode": "fan_out"}) == "he(mode=fan_out)"
    assert spell("he", defaults, {"slope": 0.5, "mode": "fan_out"}) == "he(slope=0.5,mode=fan_out)"
