"""Signals that are zero, the same for every input or not finite are put down to what makes them so.

Each case has a twin in which the same operation stands and does no harm.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import propagate as pp

K = jax.random.key
N = 8
X = jax.random.normal(K(2), (16, N))
HE = jax.nn.initializers.he_normal()


def weights(layers=4, out=N):
    sizes = [(N, N)] * (layers - 1) + [(N, out)]
    return [HE(k, size) for k, size in zip(jax.random.split(K(1), layers), sizes, strict=True)]


def found(model, params, *inputs, **options):
    return pp.diagnose(model, params, *(inputs or (X,)), key=K(0), **options)


def only(diagnosis, verdict):
    """The one finding, a fault of that verdict."""
    (finding,) = diagnosis.findings
    assert finding.is_fault and finding.verdict.value == verdict, str(finding)
    return finding


def mlp(params, x):
    for w in params[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ params[-1]


# A layer of zeros: as such, or in front of what carries the signal on.


def coupling(between, last, density=False):
    """A flow: half of x times and plus what a network of the other half says, in turns."""

    def model(params, x):
        total = jnp.zeros(x.shape[0])
        for p in params:
            u, v = jnp.split(x, 2, -1)
            s, t = jnp.split(jnp.tanh(u @ p["a"]) @ p["b"] + p["c"][None], 2, -1)
            scale = between(s)
            total += jnp.log(scale).sum(-1)
            x = jnp.concatenate([v * scale + t, u], -1)
        return total - 0.5 * (x**2).sum(-1) if density else x

    def block(key):
        a, b = (
            HE(k, shape) for k, shape in zip(jax.random.split(key), ((4, N), (N, N)), strict=True)
        )
        return {"a": a, "b": last * b, "c": jnp.zeros(N)}

    return found(model, [block(k) for k in jax.random.split(K(3), 3)])


@pytest.mark.parametrize(
    "between",
    [
        jnp.exp,
        lambda s: 1 + s,
        lambda s: jax.nn.sigmoid(s + 2),
        lambda s: jax.nn.softplus(s + 1),
        lambda s: jnp.exp(jnp.tanh(s)),
    ],
)
def test_a_flow_that_starts_at_the_identity_is_healthy(between):
    assert coupling(between, 0.0).findings == ()


def test_its_density_is_healthy_too_and_the_twin_without_zeros():
    assert coupling(jnp.exp, 0.0, density=True).findings == ()
    assert not coupling(jnp.exp, 0.1).findings.faults


def biased(params, x):
    for p in params:
        x = jnp.tanh(x @ p["w"] + p["b"][None])
    return x


@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_a_layer_of_zeros_in_the_middle_is_to_be_drawn(bias):
    params = [{"w": w, "b": bias * jax.random.normal(K(i), (N,))} for i, w in enumerate(weights(6))]
    assert not found(biased, params).findings.faults
    params[2]["w"] = jnp.zeros((N, N))
    finding = only(found(biased, params), "dead")
    assert finding.parameter == "2.w" and "nothing reaches 3.w" in finding.reason
    assert "weights are all zero: draw them with standard deviation sqrt(2/8)" in finding.reason
    assert ("the same for every input" in finding.reason) is (bias > 0)


def gained(params, x):
    for p in params:
        h = x @ p["w"]
        h = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6)
        x = jax.nn.relu(p["g"] * h + p["b"])
    return x


@pytest.mark.lenient
@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_a_gain_of_zero_is_named_and_not_the_layer_behind(bias):
    params = [{"w": w, "g": jnp.ones(N), "b": jnp.full(N, bias)} for w in weights(5)]
    assert not found(gained, params).findings.faults
    params[2]["g"] = jnp.zeros(N)
    diagnosis = found(gained, params)
    finding = only(diagnosis, "dead")
    assert finding.parameter == "2.g" and "Its values are all zero: set them to 1" in finding.reason
    assert "nothing reaches 3.w" in finding.reason
    assert "set 2.g to 1" in str(pp.advise(diagnosis))


@pytest.mark.lenient
def test_in_a_scan_the_turn_of_the_gain_is_named():
    def model(params, x):
        return jax.lax.scan(lambda x, p: (gained([p], x), None), x, params)[0]

    params = {
        "w": jnp.stack(weights(5)),
        "g": jnp.ones((5, N)),
        "b": jnp.full((5, N), 0.1),
    }
    assert not found(model, params).findings.faults
    params["g"] = params["g"].at[2].set(0.0)
    assert only(found(model, params), "dead").parameter == "g[2]"


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.Dense(N)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
        return nn.Dense(2)(x)


@pytest.mark.lenient
def test_batch_norm_of_one_input_asks_for_two():
    one = pp.diagnose(Normalised(), X[:1], key=K(0))
    finding = only(one, "dead")
    assert finding.parameter == "Dense_0.kernel"
    assert "normalises over the inputs, and there is one; pass two or more" in finding.reason
    assert pp.diagnose(Normalised(), X, key=K(0)).findings == ()

    def last(params, x):  # with no layer behind it that is dark
        h = mlp(params, x)
        return h - h.mean(0)

    assert "pass two or more" in only(found(last, weights(), X[:1]), "untrained").reason
    assert found(last, weights()).findings == ()


# Products and exponentials below the smallest number of float32.


def chance(output):
    return -jnp.log(output + 1e-12).mean()


@pytest.mark.parametrize("loss", [None, lambda out, _: chance(out)])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_a_product_that_underflows_is_a_fault(loss, scale):
    def model(p, x):
        return jnp.prod(scale * jax.nn.sigmoid(x @ p), -1)

    wide = HE(K(1), (N, 200 if scale == 1 else 20))
    finding = only(found(model, wide, loss=loss), "untrained")
    assert "reduce_prod at test_cases_lost.py" in finding.reason
    assert "underflows: its products are below the smallest number of float32" in finding.reason
    assert "sum their logarithms" in finding.reason
    assert not found(model, wide[:, :8], loss=None).findings.faults
    logs = lambda p, x: jnp.sum(jax.nn.log_sigmoid(x @ p), -1)  # noqa: E731
    assert not found(logs, wide, loss=None).findings.faults


def by_turns(h):
    product = h[:, 0]
    for k in range(1, h.shape[1]):
        product = product * h[:, k]
    return product


@pytest.mark.parametrize("product", [by_turns, lambda h: h**64])
def test_products_of_any_kind_are_known_as_such(product):
    small = lambda p, x: product(1e-8 * jax.nn.sigmoid(mlp(p, x)))  # noqa: E731
    finding = only(found(small, weights()), "untrained")
    assert "underflows: its products" in finding.reason and "sum their log" in finding.reason
    assert not found(lambda p, x: product(1 + 0.1 * jnp.tanh(mlp(p, x))), weights()).findings.faults


def test_an_exponential_that_underflows_is_a_fault_and_not_to_be_raised():
    def kernel(width):
        return lambda p, x: jnp.exp(-((mlp(p, x) ** 2).sum(-1) + 1) / width)

    finding = only(found(kernel(1e-3), weights()), "untrained")
    assert "exp at test_cases_lost.py" in finding.reason and "underflows to zero" in finding.reason
    assert not [f for f in found(kernel(10.0), weights()).findings.faults if "exp " in f.reason]


def test_no_gradient_at_any_parameter_is_never_a_note():
    normed = lambda p, x: x + (h := mlp(p, x)) - h  # noqa: E731
    assert found(normed, weights()).findings.faults
    hidden = lambda p, x: jnp.where(x.sum() > 1e9, mlp(p, x), x)  # noqa: E731
    assert found(hidden, weights()).findings.faults
    beside = lambda p, x: jnp.where(x.sum() > 1e9, mlp(p[1:], x), x @ p[0])  # noqa: E731
    assert not found(beside, weights()).findings.faults


# Inputs that tell nothing apart.

TOKENS = jax.random.randint(K(3), (16, 5), 0, 20)


def embedded(p, t):
    return mlp(p["layers"], jnp.take(p["e"], t, axis=0).mean(1))


TABLE = {"e": jax.random.normal(K(4), (20, N)), "layers": weights()}


@pytest.mark.parametrize("x", [jnp.zeros((16, N)), jnp.zeros((1, N))])
def test_inputs_of_zero_are_named_and_no_layer(x):
    finding = only(found(mlp, weights(), x), "dead")
    assert finding.parameter == finding.site == "" and "all its inputs are zero" in finding.reason
    assert str(finding).startswith("the model, forward: dead")


@pytest.mark.parametrize("x", [jnp.ones((16, N)), jnp.tile(X[:1], (16, 1))])
def test_equal_rows_are_named(x):
    assert "rows of its inputs are all equal" in only(found(mlp, weights(), x), "collapsing").reason
    tokens = only(found(embedded, TABLE, 0 * TOKENS + 3), "collapsing")
    assert "pass real or random data" in tokens.reason


def test_what_is_constant_by_design_beside_inputs_that_differ_is_healthy():
    masked = lambda p, x, mask, t: mlp(p, x * mask[:, None] + t)  # noqa: E731
    assert found(masked, weights(), X, jnp.ones(16), jnp.zeros(())).findings == ()
    assert found(masked, weights(), X[:1], jnp.ones(1), jnp.zeros(())).findings == ()
    assert found(mlp, weights(), jnp.ones((1, N))).findings == ()
    assert found(embedded, TABLE, TOKENS).findings == ()
    assert found(embedded, TABLE, TOKENS[:1]).findings == ()
    turn = lambda p, x, h: jnp.tanh(x @ p[0] + h @ p[1]) @ p[2]  # noqa: E731
    assert not found(turn, weights(3), X[:1], jnp.zeros((1, N))).findings.faults  # a first state


def test_a_model_that_tells_equal_rows_apart_by_itself_gets_a_note():
    graph = jnp.tri(16) / jnp.arange(1.0, 17.0)[:, None] ** 0.5
    aggregated = lambda p, x: mlp(p[1:], graph @ (x @ p[0]))  # noqa: E731
    diagnosis = found(aggregated, weights(), jnp.ones((16, N)))
    assert not diagnosis.findings.faults
    assert ["rows of its inputs" in f.reason for f in diagnosis.findings.notes] == [True]


# Values that are not finite.


@pytest.mark.parametrize(
    ("value", "words"),
    [(jnp.nan, "1 of its 64 values is NaN, the first at (1, 3)"), (jnp.inf, "is infinite")],
)
def test_a_parameter_that_is_not_finite_is_named(value, words):
    params = weights()
    params[2] = params[2].at[1, 3].set(value)
    finding = only(found(mlp, params), "overflowed")
    assert finding.parameter == "2" and words in finding.reason
    assert "load it anew" in finding.reason


def test_a_parameter_that_is_a_mask_is_not_blamed():
    def model(p, x):
        mask = jax.lax.stop_gradient(jnp.where(jnp.tri(16) > 0, 0.0, p["mask"]))
        return jax.nn.softmax(x @ p["w"] @ x.T / N + mask) @ (p["gain"][None] * x)

    params = {"w": weights()[0], "mask": jnp.full((16, 16), -jnp.inf), "gain": jnp.ones(N)}
    assert not [f for f in found(model, params).findings if f.parameter != "mask"]
    params["gain"] = params["gain"].at[3].set(jnp.nan)
    (finding,) = (
        f for f in found(model, params).findings.faults if f.verdict.value == "overflowed"
    )
    assert finding.parameter == "gain" and "1 of its 8 values is NaN" in finding.reason


@pytest.mark.parametrize("f", [jnp.log, jnp.sqrt, jax.lax.rsqrt, lambda h: h**1.5])
def test_a_negative_operand_is_to_be_made_positive(f):
    finding = only(found(lambda p, x: f(mlp(p, x)), weights()), "overflowed")
    assert "its operand is negative: make it positive first, by softplus" in finding.reason
    assert "of -" in finding.reason and "1e-12" not in finding.reason
    assert found(lambda p, x: f(1 + jax.nn.softplus(mlp(p, x))), weights()).findings == ()


def test_an_operand_that_is_negative_by_rounding_is_told_so():
    deviation = lambda h: jnp.sqrt((h * h).mean(-1) - h.mean(-1) ** 2 - 1e-6)  # noqa: E731
    diagnosis = found(lambda p, x: deviation(mlp(p, x) * 0 + 1), weights())
    assert "negative by rounding: maximum(x, 0)" in only(diagnosis, "overflowed").reason


def test_a_logarithm_of_zero_still_asks_for_a_small_number():
    diagnosis = found(lambda p, x: jnp.log(jax.nn.relu(mlp(p, x))), weights())
    assert "log(x + 1e-12)" in only(diagnosis, "overflowed").reason


def attention(normalise, mask, lowest=-jnp.inf, dtype=jnp.float32):
    def model(p, x):
        q, k, v = (x.astype(dtype) @ w.astype(dtype) for w in p)
        return normalise(jnp.where(mask, q @ k.T / N**0.5, lowest).astype(dtype)) @ v

    return found(model, weights(3))


def by_hand(scores):
    raised = jnp.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


@pytest.mark.parametrize("normalise", [jax.nn.softmax, by_hand])
def test_a_row_that_is_masked_throughout_is_told(normalise):
    seen = jnp.tri(16) > 0
    finding = only(attention(normalise, seen & ~jnp.eye(16, dtype=bool)), "overflowed")
    assert "rows of scores that are -inf everywhere, 1 of 16" in finding.reason
    assert "see one position" in finding.reason and "-1e9" in finding.reason
    assert attention(normalise, seen).findings == ()
    assert attention(normalise, seen & ~jnp.eye(16, dtype=bool), -1e9).findings == ()


def test_in_float16_a_large_negative_number_masks_throughout_as_well():
    seen = (jnp.tri(16) > 0) & ~jnp.eye(16, dtype=bool)
    diagnosis = attention(jax.nn.softmax, seen, -1e9, jnp.float16)
    assert "-inf everywhere" in only(diagnosis, "overflowed").reason


def test_logsumexp_of_a_masked_row_has_one_fault():
    """The stop_gradient in it is its own, and cuts nothing off that should learn."""

    def model(mask):
        return lambda p, x: jax.nn.logsumexp(jnp.where(mask(x), mlp(p, x), -jnp.inf), -1)

    finding = only(found(model(lambda x: x > 9), weights()), "overflowed")
    assert "-inf everywhere, 16 of 16" in finding.reason
    assert found(model(lambda x: x >= x.max(-1, keepdims=True)), weights()).findings == ()


@pytest.mark.parametrize("token", [20, 27, -21])
def test_an_index_outside_the_table_is_named(token):
    finding = only(found(embedded, TABLE, TOKENS.at[2, 1].set(token)), "overflowed")
    assert f"reads row {token} of e, which has 20; indices go from 0 to 19" in finding.reason
    assert found(embedded, TABLE, TOKENS.at[2, 1].set(19).at[0, 0].set(-20)).findings == ()


def test_an_exponential_is_bounded_unless_it_is_a_softmax():
    large = [100 * w for w in weights(1)]
    flow = found(lambda p, x: x * jnp.exp(x @ p[0]), large)
    assert "bound what comes in, as 3 tanh(x / 3) does" in flow.findings.faults[0].reason

    def softmax(p, x):
        raised = jnp.exp(x @ p[0])
        return raised / raised.sum(-1, keepdims=True)

    assert "subtract the largest value" in found(softmax, large).findings.faults[0].reason
    bounded = found(lambda p, x: x * jnp.exp(3 * jnp.tanh(x @ p[0] / 300)), large)
    assert "overflowed" not in {f.verdict.value for f in bounded.findings}


def test_equal_eigenvalues_are_the_reason_and_not_an_operand():
    def model(apart):
        def run(p, x):
            scale = jnp.broadcast_to(mlp(p, x).mean(-1)[:, None], (16, 4))
            matrices = jax.vmap(jnp.diag)(scale + apart * jnp.arange(4.0)[None])
            return jnp.linalg.eigh(matrices)[1][..., 0]

        return run

    finding = only(found(model(0.0), weights()), "non-finite")
    assert "where two eigenvalues are equal, is not finite" in finding.reason
    assert "non-finite" not in {f.verdict.value for f in found(model(1.0), weights()).findings}


def test_a_zero_gradient_beside_ones_that_are_not_finite_has_its_reason():
    def model(p, x):
        same = jnp.broadcast_to(mlp(p[:-1], x)[:, None], (16, 4, N))
        return jnp.std(same, axis=1) @ p[-1]

    findings = found(model, weights(5)).findings
    assert "sqrt(x + 1e-12)" in findings.faults[0].reason
    assert not [f for f in findings if f.reason == "its gradient is exactly zero"]
