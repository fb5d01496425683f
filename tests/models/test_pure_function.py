"""Models as pure functions: each adapter computes what its framework does, and refuses clearly."""

import os
import subprocess
import sys
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

import equinox as eqx
import faults
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

from propagate.models.pure_function import pure
from propagate.tracing.trees import parameter_paths
from propagate.types import UnusableInput

pytestmark = pytest.mark.lenient  # frameworks promote implicitly

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (6, 4))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        self.sow("intermediates", "relu", x)
        boxed = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        return nn.Dense(3, kernel_init=boxed)(x)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.dropout(self.norm(self.layers[0](x))))


class EquinoxNet(eqx.Module):
    layers: list
    steps: jax.Array

    def __init__(self):
        first, second = jax.random.split(KEY)
        norm, dropout = eqx.nn.LayerNorm(4), eqx.nn.Dropout(0.5)
        self.layers = [eqx.nn.Linear(4, 4, key=first), norm, jnp.tanh, dropout]
        self.layers.append(eqx.nn.Linear(4, 3, key=second))
        self.steps = jnp.array(7)

    def __call__(self, x, key):
        for layer in self.layers:
            x = layer(x, key=key) if isinstance(layer, eqx.nn.Dropout) else layer(x)
        return x


def haiku_net(x, is_training):
    x = hk.BatchNorm(True, True, 0.9)(hk.nets.MLP([4, 4], name="mlp")(x), is_training)
    return hk.Linear(3)(hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x)


def keras_net():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    x = keras.layers.Concatenate()([left, right])
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(4, name="first")(x))
    x = keras.layers.Dropout(0.5, seed=0)(x)
    return keras.Model({"left": left, "right": right}, keras.layers.Dense(3, name="last")(x))


class Case(NamedTuple):
    """What `pure` takes, the framework's own outputs for its parameters, and their names."""

    model: object
    inputs: tuple
    options: dict
    direct: object  # params -> outputs
    names: list[str]


def function_case():
    params = {"w": [X.T, X], "act": jnp.tanh, "steps": jnp.array(3)}

    def model(params, x):
        return params["act"](x @ params["w"][0]) @ params["w"][1] * params["steps"]

    return Case(model, (params, X), {}, lambda p: model(params | {"w": p["w"]}, X), ["w.0", "w.1"])


def linen_case():
    model = LinenNet()
    full = nn.unbox(model.init(KEY, X, False))
    names = ["BatchNorm_0.bias", "BatchNorm_0.scale", "Dense_0.bias", "Dense_0.kernel"]
    options = {"variables": full, "kwargs": {"train": False}}
    return Case(
        model,
        (X,),
        options,
        lambda params: model.apply(full | {"params": params}, X, False),
        [*names, "Dense_1.bias", "Dense_1.kernel"],
    )


def nnx_case():
    model, quiet = NNXNet(nnx.Rngs(0)), NNXNet(nnx.Rngs(0))
    quiet.eval()
    names = [f"{layer}.{w}" for layer in ("layers.0", "layers.1") for w in ("bias", "kernel")]
    names += ["norm.bias", "norm.scale"]
    return Case(model, (X,), {"training": False}, lambda _: quiet(X), names)


def equinox_case():
    model = eqx.nn.inference_mode(EquinoxNet())
    names = [f"layers.{i}.{w}" for i in (0, 1, 4) for w in ("weight", "bias")]
    options = {"vmap": True, "training": False}
    return Case(model, (X,), options, lambda _: jax.vmap(lambda x: model(x, KEY))(X), names)


def haiku_case():
    model = hk.transform_with_state(haiku_net)
    full = model.init(KEY, X, True)
    names = ["batch_norm.offset", "batch_norm.scale", "linear.b", "linear.w"]
    return Case(
        model,
        (X, False),
        {"variables": full},
        lambda params: model.apply(params, full[1], KEY, X, False)[0],
        [*names, *(f"mlp.linear_{i}.{w}" for i in (0, 1) for w in "bw")],
    )


def keras_case():
    model, inputs = keras_net(), {"left": X, "right": 2 * X}
    names = ["first.kernel", "first.bias", "norm.gamma", "norm.beta", "last.kernel", "last.bias"]
    return Case(model, (inputs,), {"training": False}, lambda _: model(inputs), names)


CASES = {
    "function": function_case,
    "linen": linen_case,
    "nnx": nnx_case,
    "equinox": equinox_case,
    "haiku": haiku_case,
    "keras": keras_case,
}


def contents(model):
    """Every array in a model that holds its own, as numpy."""
    if isinstance(model, keras.Layer):
        return [np.asarray(v) for v in model.variables]
    if isinstance(model, nnx.Module):
        return [np.asarray(a) for a in jax.tree.leaves(nnx.state(model)) if not is_key(a)]
    return [np.asarray(a) for a in jax.tree.leaves(model) if eqx.is_array(a)]


def is_key(array):
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_outputs_names_and_gradients(build):
    case = build()
    before = contents(case.model)
    made = pure(case.model, *case.inputs, key=KEY, **case.options)
    outputs = jax.jit(made.fn)(made.params, *made.inputs)
    grads = jax.grad(lambda params: jnp.sum(made.fn(params, *made.inputs) ** 2))(made.params)
    for one, other in zip(before, contents(case.model), strict=True):
        np.testing.assert_array_equal(one, other)
    close(outputs, case.direct(made.params))
    assert parameter_paths(made.params) == case.names
    assert parameter_paths(grads) == case.names
    assert all(jnp.all(jnp.isfinite(grad)) for grad in jax.tree.leaves(grads))
    assert jax.tree.leaves(grads)[-1].any()


def training(name):
    case = CASES[name]()
    case.options.pop("training", None)  # it is what happens by default
    if name == "haiku":
        case = case._replace(inputs=(X, True))
    if name == "linen":
        case.options["kwargs"] = {}
    return case


@pytest.mark.parametrize("name", ["linen", "equinox", "haiku", "keras", "nnx"])
def test_training_mode_is_noisy_but_repeats_and_leaves_the_model_alone(name):
    case = training(name)
    before = contents(case.model)
    made = pure(case.model, *case.inputs, key=KEY, **case.options)
    once, again = (made.fn(made.params, *made.inputs) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    for one, other in zip(before, contents(case.model), strict=True):
        np.testing.assert_array_equal(one, other)
    other = pure(case.model, *case.inputs, key=jax.random.key(5), **case.options)
    assert not jnp.allclose(once, other.fn(made.params, *other.inputs))


@pytest.mark.parametrize("name", ["linen", "haiku"])
def test_weights_are_drawn_with_the_key_and_the_rest_completed(name):
    case = training(name)  # Haiku's BatchNorm cannot be initialised for inference
    options = {"kwargs": case.options.get("kwargs")}
    one, same, other = (
        pure(case.model, *case.inputs, key=jax.random.key(i), **options) for i in (0, 0, 1)
    )
    assert parameter_paths(one.params) == case.names
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one.params, same.params))
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, one.params, other.params))
    params = {"params": one.params} if name == "linen" else one.params
    part = pure(case.model, *case.inputs, key=jax.random.key(0), variables=params, **options)
    close(part.fn(part.params, *part.inputs), one.fn(one.params, *one.inputs))


def test_haiku_without_state():
    model = hk.transform(lambda x: hk.Linear(3)(x))
    made = pure(model, X, key=KEY)
    close(made.fn(made.params, X), model.apply(made.params, None, X))


def test_each_example_has_its_own_noise_under_vmap():
    made = pure(eqx.nn.Dropout(0.5), jnp.ones((20, 8)), key=KEY, vmap=True)
    outputs = made.fn(made.params, *made.inputs)
    assert len(np.unique(np.asarray(outputs), axis=0)) > 10


def test_vmap_shows_every_framework_one_example():
    model = LinenNet()
    made = pure(model, X, key=KEY, kwargs={"train": False}, vmap=True)
    assert made.fn(made.params, *made.inputs).shape == (6, 3)


def test_a_transformed_function_is_a_function_and_not_an_equinox_module():
    made = pure(eqx.filter_jit(lambda module, x: jax.vmap(module)(x)), equinox_linear(), X, key=KEY)
    assert parameter_paths(made.params) == ["weight", "bias"]


def equinox_linear():
    return eqx.nn.Linear(4, 3, key=KEY)


def test_a_function_of_one_input_has_no_parameters():
    made = pure(lambda x: 2 * x, X, key=KEY)
    assert made.params == {}
    close(made.fn({}, X), 2 * X)


class Twins(keras.Model):
    """Its two layers have one name, it takes no `training`, and it is built when called."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (keras.layers.Dense(4, name="twin") for _ in range(2))
        self.dropout = keras.layers.Dropout(0.5)

    def call(self, x):
        return self.dropout(self.two(self.one(x)))


def test_keras_builds_names_apart_and_passes_training_on():
    model = Twins()
    made = pure(model, X, key=KEY, kwargs={"training": True})
    assert model.built
    assert len(set(parameter_paths(made.params))) == 4
    outputs = made.fn(made.params, X)
    assert jnp.any(outputs == 0)
    swapped = jax.tree.map(jnp.zeros_like, made.params)
    assert not made.fn(swapped, X).any()


def test_keras_layers_keep_their_precision_policy():
    layer = keras.layers.Dense(3, dtype="mixed_bfloat16")
    made = pure(layer, X, key=KEY)
    assert made.fn(made.params, X).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(made.params)} == {jnp.dtype("float32")}


def spec(dtype):
    return jax.ShapeDtypeStruct((50, 40), dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_shapes_become_gaussian_arrays(dtype):
    """The second moment of 2000 numbers at 5 standard errors: fails with probability 6e-7."""
    (x,) = pure(lambda x: x, spec(dtype), key=KEY).inputs
    assert x.dtype == dtype and x.shape == (50, 40)
    assert np.mean(np.asarray(x, np.float64) ** 2) == pytest.approx(1, abs=5 * np.sqrt(2 / 2000))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.int8])
def test_shapes_become_integers_below_64(dtype):
    """2000 draws miss one of 64 values with probability 64 exp(-2000/64) = 2e-12."""
    (x,) = pure(lambda x: x, spec(dtype), key=KEY).inputs
    assert x.dtype == dtype
    np.testing.assert_array_equal(np.unique(np.asarray(x)), np.arange(64))


def test_inputs_are_trees_whose_leaves_are_filled_one_by_one():
    tree = {"a": spec("float32"), "b": [spec("float32"), spec(bool)], "name": "x", "n": 3}
    made = pure(lambda p, *rest: (p, rest), {"w": 1.0}, True, tree, np.ones(2), None, key=KEY)
    assert len(made.inputs) == 2
    _, (flag, given, ones, none) = made.fn(made.params, *made.inputs)
    assert (flag, none, given["name"], given["n"]) == (True, None, "x", 3)
    assert given["b"][1].dtype == bool and isinstance(ones, jax.Array)
    assert not jnp.allclose(given["a"], given["b"][0])


def test_a_legacy_key_is_the_same_key():
    one, other = (
        pure(lambda x: x, spec("float32"), key=key) for key in (KEY, jax.random.PRNGKey(0))
    )
    np.testing.assert_array_equal(one.inputs[0], other.inputs[0])


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"params": {"Dense_0": {"kernel": 1}}}, ["Dense_0.kernel"]),
        ({"mlp/~/linear_0": {"w": 1}, "net/block": {"b": 1}}, ["mlp.linear_0.w", "net.block.b"]),
        ({"conv1_conv/kernel": 1}, ["conv1_conv.kernel"]),
        ([{"a": (1, 2)}], ["0.a.0", "0.a.1"]),
        (nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Param), ["bias", "kernel"]),
        (eqx.filter(eqx.nn.MLP(2, 2, 2, 1, key=KEY), eqx.is_array).layers[0], ["weight", "bias"]),
        (1.0, ["params"]),
    ],
    ids=["linen", "haiku", "keras", "sequence", "nnx", "equinox", "a single array"],
)
def test_paths_of_parameters(tree, names):
    assert parameter_paths(tree) == names


LINEN = {"kwargs": {"train": False}, "key": KEY}
REFUSED = {
    "no key": (lambda: pure(jnp.sin, X, key=None), r"key must be .* got None: pass key=jax"),
    "a seed": (lambda: pure(jnp.sin, X, key=0), "key must be one random key, got 0"),
    "many keys": (lambda: pure(jnp.sin, X, key=jax.random.split(KEY)), "one random key"),
    "no model": (lambda: pure({"w": X}, X, key=KEY), "got dict: pass an instance"),
    "a class": (lambda: pure(eqx.nn.Linear, X, key=KEY), "got the class Linear"),
    "no call": (lambda: pure(nnx.Module(), X, key=KEY), "got Module"),
    "no inputs": (lambda: pure(jnp.sin, key=KEY), "got nothing: pass the data"),
    "no arrays": (lambda: pure(jnp.sin, {}, True, "a", key=KEY), "got bool, str: pass the data"),
    "bools": (lambda: pure(jnp.sin, X > 0, key=KEY), "floating-point numbers or integers"),
    "shapes": (lambda: pure(jnp.dot, {"w": spec("f4")}, X, key=KEY), "1 shapes without values"),
    "bare": (lambda: pure(LinenNet(), X, variables={"Dense_0": {}}, **LINEN), r"got \['Dense_0'\]"),
    "list": (lambda: pure(LinenNet(), X, variables=[X], **LINEN), "'params', got list"),
    "own": (lambda: pure(equinox_linear(), X, key=KEY, variables={}), "Linear holds its own"),
    "scalar": (lambda: pure(jnp.sin, jnp.ones(()), key=KEY, vmap=True), r"shapes \(\)"),
    "lengths": (lambda: pure(jnp.add, {}, X, X.T, key=KEY, vmap=True), r"\(6, 4\), \(4, 6\)"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_with_the_remedy(call, message):
    with pytest.raises(UnusableInput, match=message):
        call()


class Wrapped(nn.Module):
    def setup(self):
        self.inner = nn.Dense(3)

    def __call__(self, x):
        return self.inner(x)


def test_a_bound_linen_module_keeps_its_weights_and_is_left_as_it_is():
    """As Flax computes them; what is passed beside it decides."""
    model, bare = Wrapped(), nn.Dense(3)
    full = {"params": {"inner": {"kernel": 30 * jnp.ones((4, 3)), "bias": jnp.ones(3)}}}
    bound = model.bind(full)
    for one, other in (
        (bound, bound),
        (bound.inner, bare.bind({"params": full["params"]["inner"]})),
    ):
        made = pure(one, X, key=KEY)
        close(made.fn(made.params, X), other(X))
        close(made.fn(made.params, X), X @ (30 * jnp.ones((4, 3))) + 1)
        zeros = jax.tree.map(jnp.zeros_like, made.own(made.params))
        made = pure(one, X, key=KEY, variables=zeros)
        close(made.fn(made.params, X), jnp.zeros((6, 3)))
    drawn = pure(model, X, key=KEY)
    assert float(jnp.abs(drawn.fn(drawn.params, X)).max()) < 30
    close(bound(X), X @ (30 * jnp.ones((4, 3))) + 1)


def test_keras_on_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UnusableInput, match=r"runs on torch: set .* KERAS_BACKEND=jax before"):
        pure(keras.layers.Dense(3), X, key=KEY)


def test_a_batch_that_an_equinox_module_cannot_take_suggests_vmap():
    made = pure(equinox_linear(), X, key=KEY)
    assert made.mapped
    made = pure(equinox_linear(), X[:, :3], key=KEY)  # neither the batch nor its examples fit
    assert not made.mapped
    with pytest.raises((TypeError, ValueError)) as caught:
        made.fn(made.params, X)
    assert "vmap=True" in "".join(caught.value.__notes__)


def test_parameters_of_another_structure_are_refused():
    made = pure(lambda p, x: x @ p["w"], {"w": X.T, "n": 2}, X, key=KEY)
    with pytest.raises(ValueError):
        made.fn({"v": X.T, "n": None}, X)


def test_no_framework_is_imported():
    code = "import sys, propagate.models.diagnose; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"flax", "equinox", "haiku", "keras"} & set(done.stdout.split())


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_the_faulty_networks_are_one_network_in_every_framework(fault):
    outputs = []
    for framework in faults.FRAMEWORKS:
        model, inputs, options, path = faults.build(framework, fault)
        made = pure(model, *inputs, key=KEY, **options)
        assert path in parameter_paths(made.params)
        outputs.append(made.fn(made.params, *made.inputs))
    for other in outputs[1:]:
        np.testing.assert_allclose(outputs[0], other, rtol=1e-4, atol=1e-4 * jnp.std(outputs[0]))
