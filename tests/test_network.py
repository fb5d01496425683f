"""A network is checked when it is made, and equal descriptions are equal networks."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from propagate.network import Network
from propagate.types import UnusableInput

SPECS = [
    {},
    {"activation": "leaky_relu_0.2"},
    {"init": (1.5, 0.1)},
    {"init": "sparse_0.5"},
    {"init": "0.5*he_normal", "activation": "tanh"},
    {"activation": jnp.cos, "init": jax.nn.initializers.he_normal()},
    {"depth": 3, "width": 8, "input_size": 5, "output_size": 2, "dtype": jnp.bfloat16},
]
PLAIN = [spec for spec in SPECS if not callable(spec.get("activation"))]


@pytest.mark.parametrize("name", ["depth", "width", "input_size", "output_size"])
@pytest.mark.parametrize("value", [0, -1, True, False, 2.0, "3", float("nan"), [3]])
def test_sizes_must_be_whole_numbers_of_at_least_one(name, value):
    with pytest.raises(UnusableInput, match=f"{name} must be a whole number of at least 1, got"):
        Network(**{name: value})


@pytest.mark.parametrize("name", ["depth", "width"])
def test_depth_and_width_are_required(name):
    with pytest.raises(UnusableInput, match=name):
        Network(**{name: None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("family", "mpl"),
        ("family", None),
        ("precision", "low"),
        ("precision", None),
        ("dtype", "int32"),
        ("dtype", "complex64"),
        ("dtype", "float33"),
        ("dtype", bool),
        ("activation", 3),
        ("activation", "rellu"),
        ("init", None),
        ("init", "he_norml"),
        ("activate_input", "yes"),
    ],
)
def test_other_values_out_of_their_range_are_refused(name, value):
    with pytest.raises(UnusableInput):
        Network(**{name: value})


def test_float64_needs_x64():
    assert not jax.config.jax_enable_x64
    with pytest.raises(UnusableInput, match="jax_enable_x64"):
        Network(dtype="float64")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", jnp.float32, jnp.dtype("float32")])
def test_dtypes_are_kept_by_name(dtype):
    assert Network(dtype=dtype).dtype == jnp.dtype(dtype).name


@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_equal_descriptions_are_equal_and_hash_alike(spec):
    one, other = Network(**spec), Network(**spec)
    assert one == other
    assert hash(one) == hash(other)
    assert dataclasses.replace(one) == one


def test_spellings_of_one_law_make_equal_networks():
    assert Network(init="kaiming_normal") == Network(init="he_normal") == Network()
    assert Network(activation="leaky_relu(0.2)") == Network(activation="leaky_relu_0.2")


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 49},
        {"width": 255},
        {"activation": "tanh"},
        {"init": "he_uniform"},
        {"init": "0.99*he_normal"},
        {"dtype": "bfloat16"},
        {"precision": "high"},
        {"activate_input": False},
    ],
    ids=str,
)
def test_any_change_makes_another_network(change):
    assert Network(**change) != Network()


def test_a_network_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Network().depth = 3


@pytest.mark.parametrize(
    ("sizes", "shapes"),
    [
        ({"depth": 1}, [(8, 8)]),
        ({"depth": 3}, [(8, 8)] * 3),
        ({"depth": 3, "input_size": 5}, [(5, 8), (8, 8), (8, 8)]),
        ({"depth": 3, "output_size": 2}, [(8, 8), (8, 8), (8, 2)]),
        ({"depth": 2, "input_size": 5, "output_size": 2}, [(5, 8), (8, 2)]),
        ({"depth": 1, "input_size": 5, "output_size": 2}, [(5, 2)]),
    ],
    ids=str,
)
def test_shapes_go_from_the_input_to_the_output(sizes, shapes):
    assert Network(width=8, **sizes).shapes == tuple(shapes)


def test_the_description_is_plain():
    net = Network(depth=3, width=8, activation="leaky_relu_0.2", init=(1.5, 0.1), input_size=5)
    assert net.describe() == {
        "depth": 3,
        "width": 8,
        "family": "mlp",
        "activation": "leaky_relu_0.2",
        "init": "sigma(1.5,0.1)",
        "input_size": 5,
        "dtype": "float32",
        "precision": "highest",
    }


@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_the_description_holds_strings_and_whole_numbers(spec):
    assert {type(value) for value in Network(**spec).describe().values()} <= {str, int, bool}


@pytest.mark.parametrize("spec", PLAIN, ids=range(len(PLAIN)))
def test_a_network_can_be_made_again_from_its_description(spec):
    net = Network(**spec)
    assert Network(**net.describe()) == net


@pytest.mark.parametrize(("depth", "size"), [(10**9, "200 GB"), (10**30, "10^23 GB")])
def test_so_many_layers_that_they_fill_the_memory_are_refused_at_once(depth, size):
    message = rf"at most 5000000, got {depth}: .* about {re.escape(size)}"
    with pytest.raises(UnusableInput, match=message):
        Network(depth=depth, width=16)
