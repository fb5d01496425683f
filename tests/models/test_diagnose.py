"""Planted faults are named with their parameter in every framework; healthy twins are silent."""

import io
import re

import faults
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import propagate as pp

KEY = jax.random.key(7)
WORDS = {"scaled": "departing", "residual": "departing", "sigmoid": "departing", "dead": "dead"}


def diagnosed(framework, fault):
    model, inputs, options, path = faults.build(framework, fault)
    return pp.diagnose(model, *inputs, key=KEY, **options), path


@pytest.mark.lenient
@pytest.mark.parametrize(("framework", "fault"), faults.PLANTED)
def test_a_planted_fault_is_named(framework, fault):
    found, path = diagnosed(framework, fault)
    assert [(f.verdict.value, f.parameter) for f in found.findings] == [(WORDS[fault], path)]


@pytest.mark.lenient
@pytest.mark.parametrize("framework", faults.FRAMEWORKS)
def test_a_healthy_twin_gets_no_finding_and_has_its_theory(framework):
    found, _ = diagnosed(framework, None)
    assert found.findings == ()
    assert "no findings" in str(found)
    expected = found.theory()
    assert list(expected.name.values) == list(found.record.name.values)
    products = found.record.kind.values == "matmul"
    for direction in ("forward", "backward"):  # 12 layers of width 64: ±0.25 is one deviation
        assert np.abs(expected[f"log10_{direction}_residual"].values[products]).max() < 1


@pytest.mark.lenient
@pytest.mark.parametrize("framework", ["function", "keras"])
def test_a_healthy_residual_twin_gets_no_finding(framework):
    assert diagnosed(framework, "residual_healthy")[0].findings == ()


def test_the_sizes_of_a_stack_are_those_of_its_products():
    found, _ = diagnosed("function", None)
    record = found.record
    products = record.isel(site=record.kind.values == "matmul")
    assert list(products.parameter.values) == [f"layers.{k}.kernel" for k in range(faults.DEPTH)]
    assert list(products.depth.values) == list(range(1, faults.DEPTH + 1))
    weights = record.sel(weight=products.parameter.values)
    assert set(weights.weight_law.values) == {"he_normal"}
    np.testing.assert_allclose(weights.log10_weight_sigma2, np.log10(2), atol=0.05)
    assert (weights.weight_fan_in == faults.WIDTH).all()


def stack(scale, depth=12, width=64):
    keys = jax.random.split(KEY, depth)
    return [scale * jax.random.normal(k, (width, width)) / width**0.5 for k in keys]


def plain(params, x):
    for w in params:
        x = jnp.tanh(x @ w)
    return x


X = jax.random.normal(jax.random.key(1), (64, 64))


@pytest.mark.parametrize(
    ("model", "params", "expected"),
    [
        (lambda p, x: plain_relu(p, x), stack(0.5), {"vanishing"}),
        (lambda p, x: plain_relu(p, x), stack(2.8), {"exploding"}),
        (plain, stack(30.0), {"saturated", "exploding"}),
        (lambda p, x: residual(p, x), stack(1.7), {"exploding"}),
        (plain, [jnp.full((64, 64), 0.02)] * 12, {"symmetric"}),
        (lambda p, x: plain([*p[:5], p[5] * jnp.inf, *p[6:]], x), stack(1.0), {"overflowed"}),
        (lambda p, x: plain(p[1:], x), stack(1.0), {"untrained"}),
        (plain, stack(1.0), set()),
    ],
)
def test_every_verdict(model, params, expected):
    found = {f.verdict.value for f in pp.diagnose(model, params, X, key=KEY).findings}
    assert expected <= found if expected else not found


def plain_relu(params, x):
    for w in params:
        x = jax.nn.relu(x @ w)
    return x


def residual(params, x):
    for w in params:
        x = x + x @ w
    return x


def test_attention_alone_makes_tokens_alike():
    def attention(params, x, skip):
        for w in params:
            scores = jax.nn.softmax((x @ w) @ x.swapaxes(1, 2) / 64)
            x = (x if skip else 0 * x) + scores @ (x @ w)
        return x

    tokens = jax.random.normal(KEY, (4, 16, 64))
    found = {
        skip: pp.diagnose(lambda p, x, s=skip: attention(p, x, s), stack(1.0, 6), tokens, key=KEY)
        for skip in (False, True)
    }
    alike = "between positions of an input"
    assert any(alike in f.reason for f in found[False].findings)
    assert not any(alike in f.reason for f in found[True].findings)


def test_a_branch_that_starts_at_zero_is_by_design():
    def rezero(params, x):
        for w, a in zip(params["w"], params["a"], strict=True):
            x = x + a * jnp.tanh(x @ w)
        return x

    params = {"w": stack(1.0), "a": list(jnp.zeros(12))}
    assert pp.diagnose(rezero, params, X, key=KEY).findings == ()


def test_what_can_be_done_with_a_diagnosis(tmp_path):
    found, path = diagnosed("function", "scaled")
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(found.table(), found.source())
    text = console.export_text()
    assert "layers" in text and "departing" in text and "he_normal" in text
    assert "(→ " in text and "← " in text and "jax.nn.relu" not in text.splitlines()[0]
    assert "<pre>" in found._repr_html_()
    scalars = found.scalars("train")
    assert np.isfinite(scalars[f"train/{path}/forward_rms"])
    xr.testing.assert_allclose(pp.load(found.save(tmp_path / "found.nc")), found.record)
    ax = found.plot()
    curves = [line for line in ax.lines if np.size(line.get_xdata()) == faults.DEPTH]
    assert len(curves) == 3  # signal, its variance, gradient
    assert ax.get_xticklabels()[5].get_text() == path


def test_a_loss_with_labels_and_random_stand_ins():
    labels = jnp.zeros(8, jnp.int32)
    cross = lambda out, y: -jnp.mean(jax.nn.log_softmax(out)[jnp.arange(8), y])  # noqa: E731
    shape = jax.ShapeDtypeStruct((8, 64), jnp.float32)
    found = pp.diagnose(plain, stack(1.0, 3), shape, key=KEY, loss=cross, labels=labels)
    assert np.isfinite(found.record.log10_weight_gradient_q.values[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sites": "some"}, "'default' or 'all'"),
        ({"measures": ("median",)}, "measures must be"),
        ({"key": 0}, "key must be one random key"),
    ],
)
def test_bad_input_is_told(options, words):
    with pytest.raises(pp.UnusableInput, match=words):
        pp.diagnose(plain, stack(1.0, 2), X, **({"key": KEY} | options))


@pytest.mark.parametrize("out", [None, {}, (None, None)])
def test_a_model_that_returns_nothing_is_told_so(out):
    """With a loss, too, which would fail on it."""
    model = lambda p, x: [plain(p, x), out][1]  # noqa: E731
    for own in ({}, {"loss": "mse", "labels": X}, {"loss": lambda o, y: 0.0, "labels": X}):
        with pytest.raises(pp.UnusableInput, match=r"the model returned .*: return its output"):
            pp.diagnose(model, stack(1.0, 2), X, key=KEY, **own)
    with pytest.raises(pp.UnusableInput, match="the function returned None: return the loss"):
        pp.value_and_grad(lambda p, x: None)(stack(1.0, 2), X)


def test_an_error_of_the_model_itself_keeps_its_words_and_tells_the_shapes():
    params = {"first": jnp.ones((64, 3)), "second": jnp.ones((4, 2))}
    model = lambda p, x: jnp.tanh(x @ p["first"]) @ p["second"]  # noqa: E731
    for look in (pp.diagnose, pp.repair):
        with pytest.raises(TypeError, match="contracting dimensions") as caught:
            look(model, params, X, key=KEY)
        assert caught.value.__notes__[-1] == (
            "The model itself fails on the parameters first float32[64,3], second float32[4,2] and "
            "the inputs float32[64,64]"
        )
    with pytest.raises(pp.UnusableInput) as refused:  # ours have no such note
        pp.diagnose(model, params, X, key=KEY, loss="mse")
    assert not hasattr(refused.value, "__notes__")


@pytest.mark.lenient
def test_a_module_that_fails_on_its_first_inputs_tells_them():
    import flax.linen as nn

    class Narrow(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x @ self.param("w", nn.initializers.ones, (3, 4))

    with pytest.raises(TypeError, match="contracting dimensions") as caught:
        pp.diagnose(Narrow(), X, key=KEY)
    assert (
        "Initialising the model itself fails on the inputs float32[64,64]" in caught.value.__notes__
    )


@pytest.mark.lenient
def test_an_equinox_module_with_a_state_is_told_how_to_be_called():
    """And what it is told works."""
    import equinox as eqx

    class Net(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.BatchNorm

        def __call__(self, x, state):
            return self.norm(self.first(x), state)

    def build():
        return Net(eqx.nn.Linear(64, 8, key=KEY), eqx.nn.BatchNorm(8, "rows", mode="batch"))

    net, state = eqx.nn.make_with_state(build)()
    words = r"jax.vmap\(module, axis_name='rows', in_axes=\(0, None\)"
    with pytest.raises(pp.UnusableInput, match=words):
        pp.diagnose(net, X, state, key=KEY, vmap=True)
    for inputs in ((X,), (X, state)):
        with pytest.raises((TypeError, ValueError)) as caught:
            pp.diagnose(net, *inputs, key=KEY)
        assert re.search(words, "".join(caught.value.__notes__))
    told = "".join(caught.value.__notes__)
    called = re.search(r"diagnose\((lambda module, x: .*), module, x\)", told)
    model = eval(called.group(1), {"jax": jax, "state": state})
    assert pp.diagnose(model, net, X, key=KEY).record.kind.values.tolist()[-1] == "norm"


def embedded(p, tokens):
    x = p["table"][tokens].reshape(len(tokens), -1)
    for w in p["layers"]:
        x = jnp.tanh(x @ w)
    return x


EMBEDDED = {"table": jax.random.normal(KEY, (64, 32)), "layers": stack(1.0, 3)}
TOKENS = np.random.default_rng(0).integers(0, 64, (16, 2))


def test_a_batch_of_pairs_of_tokens_is_no_random_key():
    """The same model on the same tokens, whatever integers these are."""
    kept = {}
    for dtype in (jnp.int32, jnp.uint32):
        kept[dtype] = pp.diagnose(embedded, EMBEDDED, jnp.asarray(TOKENS, dtype), key=KEY).record
    signed, unsigned = kept.values()
    assert list(unsigned.name.values) == list(signed.name.values)
    assert unsigned.kind.values[0] == "embedding" and unsigned.sizes["site"] == 7
    for name in ("log10_forward_q", "log10_backward_q", "log10_forward_variance"):
        np.testing.assert_array_equal(unsigned[name], signed[name])


def blind(p, x):
    return jax.lax.while_loop(lambda x: x.sum() > 1e9, lambda x: x @ p[0], x)


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (blind, X, r"inputs are float32\[64, 64\]\. while at .* 1 matrix product inside"),
        (lambda p, x: plain(p, jnp.ones_like(x)), X, "got none"),
        (lambda p, x: x, X, "convolution, embedding"),
        (lambda p, k: plain(p, X), jax.random.PRNGKey(0), "are none, and 1 random keys"),
    ],
)
def test_a_model_of_which_nothing_is_seen_is_an_error_and_no_pass(model, inputs, words):
    with pytest.raises(pp.PropagateError, match=words):
        pp.diagnose(model, stack(1.0, 2), inputs, key=KEY)
    with pytest.raises(pp.PropagateError, match=words):
        pp.value_and_grad(lambda p, x: jnp.sum(model(p, x)))(stack(1.0, 2), inputs)


@pytest.mark.parametrize("vmap", [False, True])
def test_an_empty_batch_is_an_error_and_no_pass(vmap):
    with pytest.raises(pp.UnusableInput, match=r"at least one input .* got shapes \(0, 64\)"):
        pp.diagnose(plain, stack(1.0, 2), X[:0], key=KEY, vmap=vmap)
    with pytest.raises(pp.UnusableInput, match="at least one input"):
        pp.value_and_grad(lambda p, x: jnp.sum(plain(p, x)))(stack(1.0, 2), X[:0])
    context = jnp.zeros((64, 0))  # an input without features, beside the batch
    assert (
        pp.diagnose(lambda p, x, c: plain(p, x), stack(1.0, 2), X, context, key=KEY).findings == ()
    )


def looped(p, x, head):
    x = jnp.tanh(x @ p[0])
    return head(jax.lax.while_loop(lambda x: x.sum() > 1e9, lambda x: x @ p[1], x))


def test_behind_a_loop_without_a_gradient_there_is_a_forward_record():
    found = pp.diagnose(lambda p, x: looped(p, x, jnp.sin), stack(1.0, 2), X, key=KEY)
    assert "log10_backward_q" in found.record and np.isnan(found.record.log10_backward_q).all()
    assert np.isfinite(found.record.log10_forward_q).all()
    assert [one.name for one in found.unopened] == ["while", "gradient"]
    kept = pp.diagnose(  # a loop that the gradient goes around
        lambda p, x: looped(p, x, jax.lax.stop_gradient) + x @ p[1], stack(1.0, 2), X, key=KEY
    )
    assert [one.name for one in kept.unopened] == ["while"]
    assert np.isfinite(kept.record.log10_backward_q).any()


def test_an_error_of_the_models_own_derivative_is_told():
    """Whatever it says: the program has no loop."""

    @jax.custom_vjp
    def broken(x):
        return x

    def backward(_, g):
        raise ValueError("Reverse-mode differentiation does not work for this")

    broken.defvjp(lambda x: (x, None), backward)
    with pytest.raises(ValueError, match="does not work for this"):
        pp.diagnose(lambda p, x: broken(plain(p, x)), stack(1.0, 2), X, key=KEY)


def with_a_head(p, x):
    for w in p[:-1]:
        x = jnp.tanh(x @ w)
    return x @ p[-1]


@pytest.mark.parametrize(("zero", "named"), [([3], "3"), (range(6), "0"), ([5], None), ([], None)])
def test_a_layer_of_zeros_is_dead_unless_it_is_the_last(zero, named):
    params = [0.0 * w if k in zero else w for k, w in enumerate(stack(1.0, depth=6))]
    found = pp.diagnose(with_a_head, params, X, key=KEY).findings
    assert [(f.verdict.value, f.parameter) for f in found] == ([("dead", named)] if named else [])


def test_branches_that_end_in_zeros_are_no_finding():
    """As Fixup and zero-initialised last layers of branches do (Zhang et al., 2019)."""
    ups, downs = stack(1.0, depth=6), [0.0 * w for w in stack(1.0, depth=6)]

    def net(p, x):
        for up, down in zip(*p, strict=True):
            x = x + jnp.tanh(x @ up) @ down
        return x

    assert pp.diagnose(net, (ups, downs), X, key=KEY).findings == ()
