"""The walk: which equations are sites, what each is made of, and that looking changes nothing."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.tracing import source_labels
from propagate.tracing.probe import Options, probe

N = 8
KEYS = jax.random.split(jax.random.key(0), 3)
PARAMS = {
    "stack": jnp.stack([jax.random.normal(k, (N, N)) for k in KEYS]),
    "gain": jnp.ones(N),
    "bias": jnp.zeros(N),
}
X = jax.random.normal(jax.random.key(1), (4, N))


def norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred
        * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        * jnp.reshape(p["gain"], (1, -1))
    )


def sites_of(fn, *data, **options):
    """Names and kinds, without operations that are part of a larger one."""
    _, names = probe(fn, PARAMS, data, Options(**options))
    rows = names.rows()
    named = zip(rows, names.names(rows), strict=True)
    return [(name, site.kind) for (site, _), name in named if site.kind != "elementwise"]


def test_a_norm_is_named_by_the_parameter_that_scales_it():
    def model(p, data):
        return norm(p, data[0]) @ p["stack"][0]

    assert sites_of(model, X) == [("gain", "norm"), ("stack[0]", "matmul")]
    bare = lambda p, data: norm({"gain": 1.0}, data[0]) @ p["stack"][0]  # noqa: E731
    assert [kind for _, kind in sites_of(bare, X)] == ["norm", "matmul"]
    assert "gain" not in dict(sites_of(bare, X))


def test_a_norm_within_a_scan_is_named_in_every_turn():
    def model(p, data):
        turn = lambda x, w: (x + jnp.tanh(norm(p, x) @ w), None)  # noqa: E731
        return jax.lax.scan(turn, data[0], p["stack"])[0]

    names = [name for name, kind in sites_of(model, X) if kind == "norm"]
    assert names == ["gain", "gain#2", "gain#3"]


def test_only_an_addition_of_two_branches_is_one():
    def model(p, data):
        h = data[0] @ p["stack"][0] + p["bias"][None]  # a bias joins nothing
        return (h + 2 * h) + jnp.tanh(h) @ p["stack"][1]  # nor does a multiple of the same value

    kinds = [kind for _, kind in sites_of(model, X)]
    assert kinds == ["matmul", "activation", "matmul", "add"]


def test_depth_grows_with_the_turns_of_nested_scans():
    def model(p, data):
        inner = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
        outer = lambda x, _: (jax.lax.scan(inner, x, p["stack"])[0], None)  # noqa: E731
        return jax.lax.scan(outer, data[0], None, length=2)[0] @ p["stack"][0]

    _, names = probe(model, PARAMS, (X,), Options())
    rows = names.rows()
    depths = [
        site.depth + sum(s * t for s, t in zip(site.strides, turn, strict=True))
        for site, turn in rows
        if site.kind == "matmul"
    ]
    assert depths == [1, 2, 3, 4, 5, 6, 7]
    inside = rows[0][0]
    assert (inside.loops, inside.strides) == ((2, 3), (3, 1))
    assert inside.turns == (len(inside.path) - 2, len(inside.path) - 1)


def gelu_of(x):
    return jax.nn.gelu(x)


def test_a_named_activation_is_one_site_whatever_it_is_made_of():
    model = lambda p, data: gelu_of(data[0] @ p["stack"][0])  # noqa: E731
    named = [name for name, kind in sites_of(model, X) if kind == "activation"]
    assert [name.split("/")[1].split("#")[0] for name in named] == ["gelu"]


def test_without_jaxs_own_file_an_activation_is_called_by_its_primitive(monkeypatch):
    """The names come from frames of `jax.nn`'s source; should that move, nothing fails."""

    def model(p, data):
        return jax.nn.relu(jax.nn.silu(data[0] @ p["stack"][0]) @ p["stack"][1])

    def named(kind):
        return [name.split("#")[0] for name, k in sites_of(model, X) if k == kind]

    layers = ["stack[0]", "stack[1]"]
    assert named("activation") == [f"{layers[0]}/silu", f"{layers[1]}/relu"]
    for file in ("/elsewhere/nn.py", ""):
        monkeypatch.setattr(source_labels, "_NN", file)
        assert named("matmul") == layers
        # a function with a derivative rule of its own has its name from there
        assert named("activation") == [f"{layers[0]}/logistic", f"{layers[1]}/relu"]


def test_a_function_without_a_source_file_has_none():
    assert source_labels.source_of(jax.nn.relu).endswith(".py")
    assert source_labels.source_of(len) == ""


@pytest.mark.parametrize("sites", ["default", "all"])
def test_a_walk_says_the_same_when_it_is_repeated(sites):
    model = lambda p, data: norm(p, jnp.tanh(data[0] @ p["stack"][0]))  # noqa: E731
    assert sites_of(model, X, sites=sites) == sites_of(model, X, sites=sites)


def values_of(fn, params, *data):
    """Second moments by name, of sites that are no part of a larger one."""
    record = pp.diagnose(fn, params, *data, key=KEYS[0]).record
    of = record.isel(site=record.kind.values != "elementwise")
    return dict(zip(of.name.values.tolist(), (10**of.log10_forward_q).values, strict=True))


BIASES = jax.random.normal(KEYS[1], (3, N))


def test_the_site_of_a_layer_is_the_sum_with_its_bias():
    params = {"w": PARAMS["stack"], "b": BIASES}

    def layers(params, x):
        for w, b in zip(params["w"], params["b"], strict=True):
            x = jnp.tanh(x @ w + b[None])
        return x

    scanned = lambda p, x: jax.lax.scan(  # noqa: E731
        lambda x, wb: (jnp.tanh(x @ wb[0] + wb[1][None]), None), x, (p["w"], p["b"])
    )[0]
    h, expected = X, {}
    for k in range(3):
        h = h @ params["w"][k] + params["b"][k][None]
        expected[f"w[{k}]"] = np.mean(h**2)
        h = jnp.tanh(h)
        expected[f"w[{k}]/tanh"] = np.mean(h**2)
    for model in (layers, scanned, jax.checkpoint(layers)):
        found = values_of(model, params, X)
        assert list(found) == list(expected)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def test_the_product_alone_stays_with_all_sites():
    model = lambda p, data: data[0] @ p["stack"][0] + p["bias"][None]  # noqa: E731
    _, names = probe(model, PARAMS, (X,), Options(sites="all"))
    rows = names.rows()
    kinds = [(s.kind, bool(s.parameter), s.fans) for (s, _) in rows if s.label == "matmul"]
    assert kinds == [("op", False, None), ("matmul", True, (N, N))]
    (only,) = probe(model, PARAMS, (X,), Options())[1].sites
    assert (only.kind, only.label, only.fans) == ("matmul", "matmul", (N, N))
    assert only.product is not None
    assert only.product < only.path


@pytest.mark.parametrize(
    "added",
    [
        lambda p, h: h + jnp.tile(p["bias"][:4, None], (1, N)),  # one number for each input
        lambda p, h: h + jnp.broadcast_to(p["bias"], (2, N)).repeat(2, axis=0),  # the same rows
        lambda p, h: h + jnp.ones((1, N)),  # no parameter
        lambda p, h: jnp.tanh(h) + p["bias"][None],  # behind the activation
    ],
)
def test_what_is_added_elsewhere_is_no_bias_or_changes_nothing(added):
    """The site is at the product, or at the sum with a bias: nowhere else, and only one."""
    model = lambda p, data: added(p, data[0] @ p["stack"][0])  # noqa: E731
    kinds = [kind for _, kind in sites_of(model, X)]
    assert kinds.count("matmul") == 1
    assert "add" not in kinds


def test_positions_that_are_added_are_no_bias():
    """An embedding of positions has more elements than the layer has outputs."""
    params = {"w": PARAMS["stack"][0], "where": jax.random.normal(KEYS[2], (5, N))}
    x = jax.random.normal(KEYS[0], (4, 5, N))
    found = values_of(lambda p, x: jnp.tanh(x @ p["w"] + p["where"][None]), params, x)
    np.testing.assert_allclose(found["w"], np.mean((x @ params["w"]) ** 2), rtol=1e-5)


def test_a_product_with_two_biases_is_one_site():
    def model(p, data):
        h = data[0] @ p["stack"][0]
        return jnp.tanh(h + p["bias"][None]) * jnp.tanh(h + p["gain"][None])

    kinds = [kind for _, kind in sites_of(model, X)]
    assert kinds.count("matmul") <= 2
    assert sites_of(model, X)[0] == ("stack[0]", "matmul")


def test_a_skip_from_a_product_that_has_a_bias_elsewhere_is_still_measured():
    def model(p, data):
        h = data[0] @ p["stack"][0]
        return h + jnp.tanh(h + p["bias"][None]) @ p["stack"][1]

    record = pp.diagnose(lambda p, x: model(p, (x,)), PARAMS, X, key=KEYS[0]).record
    adds = record.isel(site=record.kind.values == "add")
    np.testing.assert_allclose(
        10**adds.log10_skip_q.values, np.mean((X @ PARAMS["stack"][0]) ** 2), rtol=1e-5
    )


@pytest.mark.lenient
def test_layers_of_every_framework_are_where_their_hooks_are():
    """W x + b of dense layers and convolutions, with biases as large as the products."""
    import equinox as eqx
    import flax.linen as nn
    import haiku as hk
    import keras
    from flax import nnx

    image = jax.random.normal(KEYS[0], (4, 6, 6, 3))
    normal = jax.nn.initializers.normal(1.0)
    rngs = nnx.Rngs(0)

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3), bias_init=normal)(x)
            return nn.DenseGeneral((2, 5), axis=(1, 2, 3), bias_init=normal)(x)

    class Nnx(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(3, 4, (3, 3), bias_init=normal, rngs=rngs)
            self.dense = nnx.Linear(4, 5, bias_init=normal, rngs=rngs)

        def __call__(self, x):
            return self.dense(self.conv(x))

    random = hk.initializers.RandomNormal()

    def haiku_net(x):
        return hk.Linear(5, b_init=random)(hk.Conv2D(4, 3, b_init=random)(x))

    class Equinox(eqx.Module):
        conv: eqx.nn.Conv2d
        dense: eqx.nn.Linear

        def __call__(self, x):
            return self.dense(self.conv(jnp.transpose(x, (2, 0, 1))).ravel())

    equinox_net = Equinox(eqx.nn.Conv2d(3, 4, 3, key=KEYS[0]), eqx.nn.Linear(64, 5, key=KEYS[1]))
    keras_net = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3, bias_initializer="random_normal"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, bias_initializer="ones"),
        ]
    )
    for model, options in (
        (Linen(), {}),
        (Nnx(), {}),
        (hk.transform(haiku_net), {}),
        (equinox_net, {"vmap": True}),
        (keras_net, {}),
    ):
        diagnosis = pp.diagnose(model, image, key=KEYS[2], measures=("q",), **options)
        record = diagnosis.record
        layers = record.isel(site=np.isin(record.kind.values, ("matmul", "conv")))
        assert layers.sizes["site"] == 2
        (out,) = jax.tree.leaves(diagnosis.outputs)
        last = 10 ** float(layers.log10_forward_q.values[-1])
        np.testing.assert_allclose(last, np.mean(np.square(out)), rtol=1e-5)
        assert 10 ** float(layers.log10_backward_q.values[-1]) == pytest.approx(1, abs=0.9)
        assert np.isfinite(record.weight_fan_in.values).sum() == 2


def test_turns_of_a_reversed_scan_stand_in_the_order_in_which_they_run():
    def net(w, x):
        step = lambda h, row: (jnp.tanh(row @ w + h), None)  # noqa: E731
        return jax.lax.scan(step, jnp.zeros((4, 3)), x, reverse=True)[0]

    w, x = jax.random.normal(jax.random.key(0), (3, 3)), jnp.ones((5, 4, 3))
    record = pp.diagnose(net, w, x, key=jax.random.key(1)).record
    turns = [name for name in record["name"].values if "tanh" in name]
    assert turns == [f"params/tanh[{k}]" for k in (4, 3, 2, 1, 0)]
