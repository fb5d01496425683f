"""The walk: which equations are sites, what each is made of, and that looking changes nothing."""

import jax
import jax.numpy as jnp
import pytest

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
