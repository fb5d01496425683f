"""Faults that show in entropy, directions, inputs and the first loss, beside healthy twins."""

import math
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.models import beginning
from propagate.verdicts import thresholds

KEY = jax.random.key
HE = jax.nn.initializers.he_normal()


def found(model, *args, **options):
    return pp.diagnose(model, *args, key=KEY(0), **options)


def faults(diagnosis, verdict):
    return [f for f in diagnosis.findings.faults if f.verdict.value == verdict]


def by_hand(scores):
    raised = jnp.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def attention(softmax, scale):
    def model(params, x):
        for p in params:
            h = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True))
            scores = jnp.einsum("btd,bsd->bts", h @ p["q"], h @ p["k"])
            x = x + softmax(scale * scores) @ (h @ p["v"])
        return x

    return model


def attention_weights(width, blocks=2):
    keys = jax.random.split(KEY(1), 3 * blocks)
    drawn = [jax.random.normal(k, (width, width)) / width**0.5 for k in keys]
    return [dict(zip("qkv", drawn[3 * i : 3 * i + 3], strict=True)) for i in range(blocks)]


@pytest.mark.parametrize("softmax", [jax.nn.softmax, by_hand])
def test_attention_without_its_scale_is_saturated(softmax):
    x = jax.random.normal(KEY(2), (4, 16, 256))
    wrong = found(attention(softmax, 1.0), attention_weights(256), x)
    named = faults(wrong, "saturated")
    assert [f.parameter for f in named] == ["0.k", "1.k"]
    assert all("scale them by 1/sqrt(256) = 0.0625" in f.reason for f in named)
    assert "the largest weight 0.94 on average" in named[0].reason
    record = wrong.record
    k = int(record.site.values[record.name.values == named[0].site][0])
    assert record.activation_largest_weight.values[k] > 0.9
    assert 14 < record.activation_score_sd.values[k] < 18  # sums of 256 products of variance 1
    assert not found(attention(softmax, 1 / 16), attention_weights(256), x).findings


def test_scores_that_are_scaled_but_too_large_are_told_so():
    params = attention_weights(64)
    params[1]["q"] = 10 * params[1]["q"]
    x = jax.random.normal(KEY(2), (4, 16, 64))
    (finding,) = faults(found(attention(jax.nn.softmax, 1 / 8), params, x), "saturated")
    assert finding.parameter == "1.k"
    assert "scale them by 1/" in finding.reason
    assert "sqrt" not in finding.reason


def test_one_head_of_several_is_a_note():
    def model(p, x):
        q, k, v = ((x @ p[n]).reshape(4, 16, 4, 64) for n in "qkv")
        sharper = jnp.array([1.0, 1.0, 1.0, 20.0])[None, :, None, None]
        scores = sharper * jnp.einsum("bthd,bshd->bhts", q, k) / 8
        out = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
        return x + out.reshape(4, 16, 256)

    (params,) = attention_weights(256, blocks=1)
    diagnosis = found(model, params, jax.random.normal(KEY(2), (4, 16, 256)))
    assert not diagnosis.findings.faults
    (note,) = diagnosis.findings.notes
    assert note.verdict is pp.Verdict.SATURATED
    assert "in one head" in note.reason


@pytest.mark.lenient
def test_attention_of_frameworks_is_healthy():
    import flax.linen as nn
    import keras

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            mask = nn.make_causal_mask(x[..., 0])
            return x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), mask=mask)

    x = jax.random.normal(KEY(2), (4, 16, 64))
    diagnosis = found(Block(), x)
    assert not diagnosis.findings
    assert np.isfinite(diagnosis.record.activation_entropy).sum() == 1
    inputs = keras.Input((16, 64))
    layer = keras.layers.MultiHeadAttention(4, 16)
    model = keras.Model(inputs, inputs + layer(inputs, inputs))
    diagnosis = found(model, x)
    assert not diagnosis.findings
    assert np.isfinite(diagnosis.record.activation_entropy).sum() == 1


def adjacency(nodes, neighbours):
    rng = np.random.default_rng(0)
    linked = rng.random((nodes, nodes)) < neighbours / nodes
    return ((linked | linked.T) | np.eye(nodes, dtype=bool)).astype(np.float32)


def averaging(nodes, neighbours):
    linked = adjacency(nodes, neighbours)
    return jnp.asarray(linked / linked.sum(1, keepdims=True))


def symmetric(nodes, neighbours):
    linked = adjacency(nodes, neighbours)
    root = linked.sum(1) ** -0.5
    return jnp.asarray(linked * root[:, None] * root)


@pytest.mark.parametrize(("kind", "neighbours"), [(averaging, 16), (symmetric, 16), (averaging, 4)])
def test_a_chain_of_graph_convolutions_collapses(kind, neighbours):
    graph, depth = kind(64, neighbours), 12
    params = [HE(k, (64, 64)) for k in jax.random.split(KEY(1), depth)]
    x = jax.random.normal(KEY(3), (64, 64))

    def plain(params, x):
        for w in params:
            x = jax.nn.relu(graph @ x @ w)
        return x

    def residual(params, x):
        for w in params:
            x = x + jax.nn.relu(graph @ x @ w) * depth**-0.5
        return x

    diagnosis = found(plain, params, x)
    assert not faults(diagnosis, "departing")
    (finding,) = faults(diagnosis, "collapsing")
    for part in ("effective rank goes from", "mean cosine to 1.0000", "PairNorm", "residual"):
        assert part in finding.reason
    record = diagnosis.record
    place = int(record.site.values[record.name.values == finding.site][0])
    rank = record.forward_effective_rank.values
    assert rank[place] - 1 < 10**-thresholds.PARALLEL_DECADES
    assert not found(residual, params, x).findings


def test_deep_networks_whose_inputs_come_nearer_slowly_are_healthy():
    x = jax.random.normal(KEY(3), (64, 64))
    for phi, init in ((jax.nn.relu, HE), (jnp.tanh, jax.nn.initializers.glorot_normal())):
        params = [init(k, (64, 64)) for k in jax.random.split(KEY(1), 24)]

        def model(params, x, phi=phi):
            for w in params:
                x = phi(x @ w)
            return x

        assert not faults(found(model, params, x), "collapsing")


def test_effective_rank_is_that_of_the_directions():
    """Norms do not matter, nor signs; orthogonal inputs have as many as there are."""
    direction = jax.random.normal(KEY(0), (1, 32))
    size = jnp.arange(1.0, 9.0)[:, None] * jnp.array([1.0, -1.0] * 4)[:, None]
    for x, rank in ((size * direction, 1.0), (jnp.eye(32)[:8], 8.0)):
        record = found(lambda p, x: x @ p, jnp.eye(32), x).record
        np.testing.assert_allclose(record.forward_effective_rank, [rank], rtol=1e-5)
    one_unit = found(lambda p, x: x @ p, jnp.ones((32, 1)), size * direction).record
    assert np.isnan(one_unit.forward_effective_rank).all()


def test_effective_rank_is_measured_along_a_stack():
    """Orthogonal maps keep all directions; sigmoids, whose mean is not 0, make them parallel."""
    for name, init, keeps in (("identity", "orthogonal", True), ("sigmoid", "lecun_normal", False)):
        net = pp.Network(depth=8, width=64, activation=name, init=init)
        options = {"measures": ("forward_effective_rank",), "compile_for": ("identity", "sigmoid")}
        record = pp.measure(net, KEY(0), seeds=1, batch=32, **options)
        rank = record.forward_effective_rank.values[0]
        assert rank[0] > 2
        assert np.allclose(rank, rank[0], rtol=1e-3) if keeps else rank[-1] < 1.001


def pictures(seed=5):
    return jax.random.randint(KEY(seed), (64, 8, 8), 0, 256).astype(jnp.float32)


def classifier(params, x):
    x = x.reshape(x.shape[0], -1)
    for w in params[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ params[-1]


def classifier_weights(readout=1.0):
    keys = jax.random.split(KEY(1), 4)
    sizes = [(64, 128), (128, 128), (128, 128), (128, 10)]
    drawn = [HE(k, s) for k, s in zip(keys, sizes, strict=True)]
    return [*drawn[:-1], readout * drawn[-1]]


def test_raw_pictures_are_named_at_the_input():
    diagnosis = found(classifier, classifier_weights(), pictures())
    (finding,) = [f for f in diagnosis.findings.faults if "Standardise" in f.reason]
    assert (finding.parameter, finding.verdict) == ("0", pp.Verdict.EXPLODING)
    mean, sd = float(pictures().mean()), float(pictures().std())
    assert f"subtract {mean:.3g}, divide by {sd:.3g}" in finding.reason


@pytest.mark.parametrize(
    "rescaled",
    [lambda x: x / 255, lambda x: x * (1 / 127.5) - 1.0, lambda x: (x - 127.5) / 74],
)
def test_inputs_that_the_model_rescales_are_healthy(rescaled):
    model = lambda params, x: classifier(params, rescaled(x))  # noqa: E731
    assert not found(model, classifier_weights(), pictures()).findings


def test_a_norm_behind_the_first_layer_makes_raw_inputs_a_note():
    def model(params, x):
        h = x.reshape(64, -1) @ params[0]
        h = h / jnp.sqrt(jnp.mean(h**2, -1, keepdims=True))
        return jax.nn.relu(h) @ params[-1]

    diagnosis = found(model, classifier_weights()[::3], pictures())
    assert not diagnosis.findings.faults
    assert ["Standardise" in f.reason for f in diagnosis.findings.notes] == [True]


def test_inputs_that_hardly_differ_are_named():
    x = 280 + 10 * jax.random.normal(KEY(2), (64, 64))  # temperatures in kelvin
    diagnosis = found(classifier, classifier_weights(), x / 280)
    assert [f.verdict.value for f in diagnosis.findings if "Standardise" in f.reason] == [
        "collapsing"
    ]
    assert not found(classifier, classifier_weights(), (x - 280) / 10).findings


@pytest.mark.lenient
def test_a_rescaling_layer_of_keras_is_healthy():
    import keras

    def build(*first):
        he = {"kernel_initializer": "he_normal"}
        layers = [keras.layers.Flatten(), keras.layers.Dense(64, "relu", **he)]
        return keras.Sequential([keras.Input((8, 8)), *first, *layers, keras.layers.Dense(10)])

    healthy = found(build(keras.layers.Rescaling(1 / 255)), pictures())
    assert not [f for f in healthy.findings if "Standardise" in f.reason]
    raw = found(build(), pictures())
    assert [f.severity for f in raw.findings if "Standardise" in f.reason] == ["fault"]


def cross_entropy(logits, labels):
    logs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], axis=-1))


def of_probabilities(p, labels):
    return -jnp.mean(jnp.log(jnp.take_along_axis(p, labels[:, None], axis=-1)))


LABELS = jax.random.randint(KEY(6), (64,), 0, 10)
X = jax.random.normal(KEY(2), (64, 64))


@pytest.mark.parametrize("total", [False, True])
def test_a_first_loss_far_above_chance_is_named(total):
    loss = lambda out, y: cross_entropy(out, y) * (64.0 if total else 1.0)  # noqa: E731
    sure = found(classifier, classifier_weights(10.0), X, loss=loss, labels=LABELS)
    (finding,) = [f for f in sure.findings.faults if "first loss" in f.reason]
    assert (finding.parameter, finding.verdict) == ("3", pp.Verdict.SATURATED)
    attrs = sure.record.attrs
    logits = np.asarray(sure.outputs, np.float64)
    assert math.isclose(attrs["loss_by_chance"], math.log(10))
    assert math.isclose(attrs["logit_sd"], logits.std(-1).mean(), rel_tol=1e-6)
    assert f"Scale the weights of 3 by 1/{attrs['logit_sd']:.3g}" in finding.reason
    expected = float(cross_entropy(sure.outputs, LABELS))
    assert math.isclose(attrs["loss"], expected, rel_tol=1e-5)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    assert math.isclose(attrs["largest_probability"], np.mean(1 / p.sum(-1)), rel_tol=1e-6)
    assert not found(classifier, classifier_weights(), X, loss=loss, labels=LABELS).findings


stable_loss = lambda z, y: jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))  # noqa: E731


@pytest.mark.lenient
@pytest.mark.parametrize("shape", [(64,), (64, 1)])
def test_a_sure_guess_of_two_classes_is_named_however_its_loss_is_written(shape):
    """With one logit for each input, flat or in a column; the chance is ln 2."""
    import optax

    model = lambda p, x: classifier(p, x).reshape(shape)  # noqa: E731
    y = BINARY.reshape(shape)
    last = HE(KEY(7), (128, 1))
    losses = [sigmoid_loss, stable_loss]
    losses += [lambda z, y: optax.sigmoid_binary_cross_entropy(z, y).mean()]
    for loss in losses:
        own = {"loss": loss, "labels": y}
        sure = found(model, [*classifier_weights()[:-1], 50 * last], X, **own)
        (finding,) = [f for f in sure.findings.faults if "first loss" in f.reason]
        sd = float(np.std(sure.outputs))
        assert "give ln 2 = 0.693" in finding.reason
        assert f"Scale the weights of 3 by 1/{sd:.3g}" in finding.reason
        mended = [*classifier_weights()[:-1], 50 * last / float(f"{sd:.3g}")]
        for params in (mended, [*classifier_weights()[:-1], last]):
            assert not found(model, params, X, **own).findings


def test_a_guess_that_is_sure_by_its_bias_is_told_the_bias():
    own = {"loss": sigmoid_loss, "labels": BINARY[:, 0]}
    params = [*classifier_weights()[:-1], HE(KEY(7), (128, 1))]
    model = lambda p, x: classifier(p["w"], x)[:, 0] + p["b"]  # noqa: E731
    for scale in (1.0, 20.0):
        moved = lambda p, x, s=scale: s * model(p, x) - 70  # noqa: E731
        sure = found(moved, {"w": params, "b": jnp.zeros(())}, X, **own)
        (finding,) = [f for f in sure.findings.faults if "first loss" in f.reason]
        mean, sd = float(jnp.mean(sure.outputs)), float(jnp.std(sure.outputs))
        assert f"mean {mean:.3g} and standard deviation {sd:.3g}" in finding.reason
        assert f"Add {-mean:.3g} to the logits' bias" in finding.reason
        assert ("divide them by" in finding.reason) == (scale > 1)
        (advised, *_) = [c for c in pp.advise(sure) if "bias" in c.what]
        assert f"add {-mean:.3g} to the logits' bias" in advised.what
        by = sd if scale > 1 else 1.0
        m, s = float(f"{mean:.3g}"), float(f"{by:.3g}")
        mended = lambda p, x, f=moved, m=m, s=s: (f(p, x) - m) / s  # noqa: E731
        assert not found(mended, {"w": params, "b": jnp.zeros(())}, X, **own).findings.faults


FLAT_LOSSES = [  # of one output for each input
    lambda z: jnp.mean((z - math.log(2) ** 0.5) ** 2),
    lambda z: jnp.mean(jax.nn.softplus(z**2)),
    lambda z: jnp.mean(jax.nn.softplus(jnp.abs(z))),
    lambda z: jnp.mean(jax.nn.softplus(z[:, None] - z[None])),  # of pairs, to rank them
    lambda z: -jnp.mean(jax.nn.log_softmax(z)),  # over the batch
    lambda z: jnp.mean(jnp.maximum(0, math.log(2) - z * (2 * BINARY[:, 0] - 1))),
]


@pytest.mark.parametrize("loss", FLAT_LOSSES)
def test_a_loss_of_flat_outputs_that_is_another_is_not_taken_for_one(loss):
    assert told(loss, 50 * jax.random.normal(KEY(4), (64,))) == {}
    assert told(lambda z: sigmoid_loss(z, BINARY[:, 0]), jnp.zeros(64))["classes"] == 1


def test_probabilities_are_judged_as_their_logits_are():
    model = lambda params, x: jax.nn.softmax(classifier(params, x))  # noqa: E731
    options = {"loss": of_probabilities, "labels": LABELS}
    sure = found(model, classifier_weights(10.0), X, **options)
    assert {f.parameter for f in faults(sure, "saturated")} == {"3"}
    assert not found(model, classifier_weights(), X, **options).findings


def test_another_loss_is_not_taken_for_a_classifiers():
    loss = lambda out, y: jnp.mean((out - y) ** 2)  # noqa: E731
    big = found(classifier, classifier_weights(10.0), X, loss=loss, labels=X[:, :10])
    assert "loss_by_chance" not in big.record.attrs
    assert not [f for f in big.findings if "first loss" in f.reason]


ONE_HOT = jax.nn.one_hot(LABELS, 10)
BINARY = (LABELS % 2).astype(jnp.float32)[:, None]
sigmoid_loss = lambda z, y: jnp.mean(jnp.logaddexp(0, z) - y * z)  # noqa: E731
LOSSES = {
    "smoothed": (lambda z: -jnp.mean((0.9 * ONE_HOT + 0.01) * jax.nn.log_softmax(z)) * 10, 10, 1),
    "probabilities": (lambda p: of_probabilities(p, LABELS), 10, 1),
    "binary": (lambda z: sigmoid_loss(z, BINARY), 1, 1),
    "labels by themselves": (lambda z: sigmoid_loss(z, ONE_HOT), 10, 1),
    "sum of those": (lambda z: 640 * sigmoid_loss(z, ONE_HOT), 10, 640),
    "sigmoid": (
        lambda p: -jnp.mean(BINARY * jnp.log(p) + (1 - BINARY) * jnp.log1p(-p)),
        1,
        1,
    ),
    "sum over positions": (lambda z: 8 * cross_entropy(z.reshape(64, 10), LABELS), (8, 10), 8),
}


def told(loss, outputs):
    """What is said of a loss of outputs alone."""
    return beginning.first_loss(lambda out, _: loss(out), loss(outputs), outputs, None)


@pytest.mark.parametrize("name", LOSSES)
def test_a_cross_entropy_is_known_by_what_it_gives(name):
    """Equal outputs give the chance; a scale that no count of labels explains says nothing."""
    loss, shape, count = LOSSES[name]
    shape = (8, *shape) if isinstance(shape, tuple) else (64, shape)
    z = jax.random.normal(KEY(4), shape)
    if name in ("probabilities", "sigmoid"):
        z = jax.nn.softmax(z) if name == "probabilities" else jax.nn.sigmoid(z)
    said = told(loss, z)
    softmax = name in ("smoothed", "probabilities", "sum over positions")
    assert math.isclose(said["loss_by_chance"], math.log(10 if softmax else 2))
    assert math.isclose(said["loss"], float(loss(z)) / count, rel_tol=1e-6)
    assert 0.5 < said["logit_sd"] < 1.5
    assert not told(lambda out: 3.7 * loss(out), z)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: jnp.mean((z - math.log(10) ** 0.5) ** 2),  # ln 10 of zeros
        lambda z: jnp.mean((z - math.log(2) ** 0.5) ** 2),
        lambda z: jnp.sum((z - math.log(10) ** 0.5) ** 2) / 10,  # the number of labels, too
        lambda z: jnp.mean(jnp.abs(z)) + math.log(10),
        lambda z: 0.30103 * cross_entropy(z, LABELS),  # ln 2 of ten classes
        lambda z: cross_entropy(z @ z.T, jnp.arange(64)) * math.log(10) / math.log(64),
        lambda z: jnp.full((), math.log(10)),
    ],
)
def test_a_loss_that_is_ln_k_by_chance_is_not_a_cross_entropy(loss):
    assert told(loss, jax.random.normal(KEY(4), (64, 10))) == {}


@pytest.mark.lenient
def test_the_site_of_a_norm_is_its_output_in_training():
    """Of inputs N(3, 1): what comes out has rms 1, and one row for each norm."""
    import flax.linen as nn
    import haiku as hk
    import keras

    x = 3 + jax.random.normal(KEY(2), (64, 8))
    keras_net = keras.Sequential(
        [keras.Input((8,)), keras.layers.BatchNormalization(), keras.layers.LayerNormalization()]
    )

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.LayerNorm()(nn.BatchNorm(use_running_average=False)(x))

    haiku_net = hk.transform_with_state(
        lambda x: hk.LayerNorm(-1, True, True)(hk.BatchNorm(True, True, 0.9)(x, is_training=True))
    )
    for model, options in (
        (keras_net, {"kwargs": {"training": True}}),
        (Linen(), {}),
        (haiku_net, {}),
    ):
        record = found(model, x, measures=("q", "mean"), **options).record
        norms = record.isel(site=record.kind.values == "norm")
        assert norms.sizes["site"] == 2
        np.testing.assert_allclose(10**norms.log10_forward_q, 1, atol=0.02)
        assert np.abs(norms.forward_mean.values).max() < 1e-3
