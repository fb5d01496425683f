"""The instrumented program against explicit zero perturbations and against the plain program."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.tracing.probe import Options, probe

KEY = jax.random.key(3)
B, N, L = 16, 12, 4


def weights(layers=L):
    keys = jax.random.split(KEY, layers)
    return {"layers": [jax.random.normal(k, (N, N)) / N**0.5 for k in keys]}


X = jax.random.normal(jax.random.key(4), (B, N))


def net(params, x):
    for w in params["layers"]:
        x = x + jax.nn.gelu(x @ w)
    return x


def loss(params, x):
    return jnp.mean(net(params, x) ** 2)


def rows(record, **chosen):
    keep = np.ones(record.sizes["site"], bool)
    for name, value in chosen.items():
        keep &= record[name].values == value
    return record.isel(site=keep)


def test_statistics_are_those_of_zero_perturbations():
    def perturbed(zeros, x):
        products = []
        for w, z in zip(weights()["layers"], zeros, strict=True):
            h = x @ w + z
            products.append(h)
            x = x + jax.nn.gelu(h)
        return jnp.mean(x**2), products

    grads, products = jax.grad(perturbed, has_aux=True)([jnp.zeros((B, N))] * L, X)
    _, trace = jax.jit(pp.value_and_grad(loss))(weights(), X)
    found = rows(trace.record(), kind="matmul")
    q = lambda arrays: [np.mean(np.square(np.asarray(a, np.float64))) for a in arrays]  # noqa: E731
    np.testing.assert_allclose(10**found.log10_forward_q, q(products), rtol=1e-4)
    np.testing.assert_allclose(10**found.log10_backward_q, q(grads), rtol=1e-4)
    spread = [np.asarray(h, np.float64).var(0).mean() for h in products]
    np.testing.assert_allclose(10**found.log10_forward_variance, spread, rtol=1e-4)


def test_an_mlp_gives_what_the_engine_gives():
    """The engine's own weights, which test_engine draws again, in a plain function."""
    from propagate.network import layer_table
    from propagate.run import program
    from propagate.run.feed import Feed

    stack = pp.Network(5, N, activation="tanh", init="lecun_normal")
    record = pp.measure(stack, KEY, seeds=1, batch=B, measures=("q", "correlation")).isel(seed=0)
    feed = Feed(stack, KEY, None, "gaussian", B, 0.5, "gaussian")
    keys, named = feed.layer_keys(0), [dict(spec.parameters) for spec in layer_table(stack, B)]
    pairs = list(zip(named, keys, strict=True))
    draws = [program.draw(stack.init.base, own, "float32", key) for own, key in pairs]
    params = [stack.init.scale(*s) * d["weight"] for s, d in zip(stack.shapes, draws, strict=True)]

    def value(params, h, target):
        for w in params:
            h = jnp.tanh(h) @ w
        return jnp.sum(h * target)

    value_of = lambda p, data: value(p, *data)  # noqa: E731
    _, trace = jax.jit(pp.value_and_grad(value_of))(params, (feed.inputs(0), feed.target(0)))
    found = rows(trace.record(), kind="matmul")
    for name, atol in (("log10_forward_q", 2e-5), ("log10_backward_q", 1e-4)):
        np.testing.assert_allclose(found[name], record[name][1:], atol=atol)
    np.testing.assert_allclose(found.forward_correlation, record.forward_correlation[1:], atol=1e-4)


def test_with_products_tapped_results_are_bitwise_the_users_own():
    plain = jax.jit(jax.value_and_grad(loss))(weights(), X)
    tapped, _ = probe(loss, weights(), X, Options(("q", "mean")))
    only = {p: s for p, s in tapped.sites.items() if s.kind == "matmul"}
    probe_of = replace(tapped, sites=only)

    @jax.jit
    def run(params, x):
        def scalar(params, slots):
            return probe_of(params, x, slots)

        (value, seen), grads = jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True)(
            params, probe_of.slots()
        )
        return (value, grads[0]), seen, grads[1]

    (value, grads), *_ = run(weights(), X)
    for ours, theirs in zip(jax.tree.leaves((value, grads)), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_with_every_site_tapped_results_are_within_rounding():
    value, grads = jax.jit(jax.value_and_grad(loss))(weights(), X)
    for sites in ("default", "all"):
        (own, own_grads), _ = jax.jit(pp.value_and_grad(loss, sites=sites))(weights(), X)
        np.testing.assert_allclose(own, value, rtol=1e-6)
        for a, b in zip(jax.tree.leaves(own_grads), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_everywhere_without_a_callback(platform):
    step = jax.jit(lambda p, x: pp.value_and_grad(loss)(p, x))
    flat = jax.jit(lambda p, x: jax.tree.leaves(step(p, x)))
    text = jax.export.export(flat, platforms=[platform])(weights(), X).mlir_module()
    calls = re.findall(r"custom_call *@([\w.]+)", text)
    assert not [name for name in calls if "callback" in name]


def scanned(params, x):
    block = jax.checkpoint(
        lambda x, w: (x + jnp.tanh(x @ w), None),
        policy=jax.checkpoint_policies.nothing_saveable,
    )
    return jnp.mean(jax.lax.scan(block, x, params["stack"])[0] ** 2)


def test_a_scan_stays_a_scan_and_its_turns_are_layers():
    def program(layers):
        params = {"stack": jnp.stack(weights(layers)["layers"])}
        return jax.make_jaxpr(pp.value_and_grad(scanned))(params, X), params

    (short, _), (long, params) = program(3), program(100)
    assert len(long.jaxpr.eqns) == len(short.jaxpr.eqns)
    assert " scan[" in str(long)
    assert "nothing_saveable" in str(long)
    record = pp.value_and_grad(scanned)(params, X)[1].record()
    products = rows(record, kind="matmul")
    assert list(products.parameter.values) == [f"stack[{k}]" for k in range(100)]
    assert list(products.depth.values) == list(range(1, 101))


def test_a_scan_gives_what_the_unrolled_program_gives():
    params = {"layers": weights()["layers"]}

    def unrolled(params, x):
        for w in params["layers"]:
            x = x + jnp.tanh(x @ w)
        return jnp.mean(x**2)

    ours = pp.value_and_grad(scanned)({"stack": jnp.stack(params["layers"])}, X)[1].record()
    theirs = pp.value_and_grad(unrolled)(params, X)[1].record()
    assert list(ours.label.values) == list(theirs.label.values)
    for name in ("log10_forward_q", "log10_backward_q", "log10_branch_q"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)


def test_only_the_branch_taken_counts():
    def branched(params, x):
        one, two = (lambda x, w=w: jnp.tanh(x @ w) for w in params["layers"][:2])
        return jnp.mean(jax.lax.cond(jnp.sum(x) > -1e9, one, two, x) ** 2)

    found = rows(pp.value_and_grad(branched)(weights(), X)[1].record(), kind="matmul")
    np.testing.assert_array_equal(found.taken, np.isfinite(found.log10_forward_q))
    assert sorted(found.taken.values) == [False, True]


def test_what_is_not_opened_is_named():
    @jax.custom_vjp
    def own(x, w):
        return x @ w

    own.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))

    def model(params, x):
        x = own(x, params["layers"][0])
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1e9, lambda x: x @ params["layers"][1], x)

    found = pp.diagnose(model, weights(), X, key=KEY)
    assert [one.products for one in found.unopened[:2]] == [1, 1]
    assert "own" in str(found.unopened[0]) and "while" in str(found.unopened[1])
    assert "Reverse-mode" in str(found.unopened[2])  # and there is a forward record all the same
    assert rows(found.record, kind="custom").parameter.values == ["layers.0"]
    assert not pp.diagnose(net, weights(), X, key=KEY).unopened


def test_a_tag_and_a_pattern_choose_sites():
    def tagged(params, x):
        return pp.tag(jnp.sin(x @ params["layers"][0]) * 2, "doubled") @ params["layers"][1]

    record = pp.diagnose(tagged, weights(), X, key=KEY).record
    assert "doubled" in record.name.values
    few = pp.diagnose(tagged, weights(), X, key=KEY, only="layers.*").record
    assert 0 < few.sizes["site"] < record.sizes["site"]
    with pytest.raises(pp.UnusableInput, match="matches no site"):
        pp.diagnose(tagged, weights(), X, key=KEY, only="nothing.*")


def test_what_does_not_depend_on_the_batch_is_no_site():
    def dropout(params, x, key):
        noise = jax.nn.sigmoid(jax.random.normal(key, x.shape) @ params["layers"][0])
        return jnp.mean((x * noise) @ params["layers"][1])

    record = pp.value_and_grad(dropout)(weights(), X, KEY)[1].record()
    assert list(record.label.values) == ["matmul"]


def test_a_program_of_one_site_at_the_edge_of_float32():
    for scale in (1e-36, 1e36):
        _, trace = pp.value_and_grad(lambda w, x: jnp.sum(x @ w))(jnp.eye(N), X * scale)
        expected = np.log10(np.mean(np.asarray(X, np.float64) ** 2)) + 2 * np.log10(scale)
        np.testing.assert_allclose(trace.record().log10_forward_q, [expected], atol=1e-5)


def test_value_and_grad_is_that_of_jax():
    def pair(x, params, scale=2.0):
        return scale * loss(params, x), {"outputs": net(params, x)}

    options = {"argnums": 1, "has_aux": True}
    ours, trace = pp.value_and_grad(pair, **options)(X, weights(), scale=3.0)
    theirs = jax.value_and_grad(pair, **options)(X, weights(), scale=3.0)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    both = pp.value_and_grad(lambda a, b, x: jnp.sum(x @ a @ b), argnums=(0, 1))
    (_, grads), _ = both(jnp.eye(N), jnp.eye(N), X)
    assert len(grads) == 2
    assert jax.tree.leaves(jax.tree.map(jnp.isfinite, trace))  # a pytree


def test_a_branch_within_a_branch_counts_for_itself():
    """Of the inner conditional, one branch is taken; the outer one's count does not hide that."""

    def nested(w, x):
        inner = lambda x: jax.lax.cond(x.sum() > 1e9, lambda x: jnp.tanh(x @ w), jnp.sin, x)  # noqa: E731
        return jnp.sum(jax.lax.cond(x.sum() < 1e9, inner, jnp.cos, x))

    found = pp.value_and_grad(nested)(jnp.eye(3), jnp.ones((2, 3)))[1].record()
    np.testing.assert_array_equal(found.taken, np.isfinite(found.log10_forward_q))
    assert found.taken.values.any() and not found.taken.values.all()
    assert not found.taken.values[found.label.values == "matmul"].any()
