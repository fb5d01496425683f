"""Transformer stacks against a plain transformer with the same weights, and known limits."""

import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.blocks.transformer import Arrangement, Transformer
from propagate.network import layer_table
from propagate.run import program
from propagate.run.feed import Feed
from propagate.run.layerwise import layers_of
from propagate.types import UnusableInput

KEY = jax.random.key(5)
DEPTH, WIDTH, BATCH, TOKENS, HEADS = 3, 12, 2, 5, 3
SIZES = f"tokens={TOKENS},heads={HEADS},ratio=2"


def network(options: str, depth: int = DEPTH) -> pp.Network:
    return pp.Network(depth, WIDTH, f"transformer({SIZES},{options})", "gelu", (1.3, 0.0))


def weights(net: pp.Network) -> list[dict[str, jax.Array]]:
    """Return the weights of each layer of seed 0: 1.3²/fan_in, and what the arrangement says."""
    feed = Feed(net, KEY, None, "gaussian", BATCH, 0.5, "gaussian")
    named = dict(layer_table(net, BATCH)[0].parameters)
    draws = [program.draw(net.init.base, named, "float32", key) for key in feed.layer_keys(0)]
    options = str(net.family)
    factors = dict.fromkeys(named, 1.0)
    if "deepnorm" in options:
        factors |= dict.fromkeys(("value", "output", "up", "down"), (8 * net.depth) ** -0.25)
    if "gpt2" in options:
        factors |= dict.fromkeys(("output", "down"), (2 * net.depth) ** -0.5)
    return [
        {name: factors[name] * 1.3 / math.sqrt(len(w)) * w for name, w in own.items()}
        for own in draws
    ]


def norm(x, kind="layer"):
    centred = x - x.mean(-1, keepdims=True) if kind == "layer" else x
    return centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)


def attention(w, h, divisor):
    """Return the branch and the shares of attention, head by head (Vaswani et al., 2017)."""
    heads, shares = [], []
    for part in np.split(np.arange(WIDTH), HEADS):
        q, k, v = (h @ w[name][:, part] for name in ("query", "key", "value"))
        share = jax.nn.softmax(q @ k.transpose(0, 2, 1) / divisor, axis=-1)
        heads.append(share @ v)
        shares.append(share)
    return jnp.concatenate(heads, axis=-1) @ w["output"], jnp.stack(shares)


def mlp(w, h):
    return jax.nn.gelu(h @ w["up"], approximate=False) @ w["down"]


def layer(net, w, h, last, zeros=(0.0, 0.0)):
    """Return the next stream, the two branches (or one) and the shares."""
    options, size = str(net.family), WIDTH // HEADS
    divisor = size if "mup" in options else math.sqrt(size)
    n = lambda x: norm(x, "rms" if "rms" in options else "layer")  # noqa: E731
    arrangement = net.family.arrangement
    if arrangement in ("attention", "skip"):
        out, shares = attention(w, h, divisor)
        return (h + out if arrangement == "skip" else out), [out], shares
    if arrangement == "pre":
        one, shares = attention(w, n(h), divisor)
        one = one + zeros[0]
        two = mlp(w, n(h + one)) + zeros[1]
        h = h + one + two
        return (n(h) if last else h), [one, two], shares
    alpha = (2 * net.depth) ** 0.25 if arrangement == "deepnorm" else 1
    one, shares = attention(w, h, divisor)
    one = one + zeros[0]
    middle = n(alpha * h + one)
    two = mlp(w, middle) + zeros[1]
    return n(alpha * middle + two), [one, two], shares


ARRANGED = [f"arrangement={name}" for name in get_args(Arrangement)]


@pytest.mark.parametrize("options", [*ARRANGED, "scheme=gpt2", "scheme=mup", "norm=rms"])
def test_each_layer_is_that_of_a_plain_transformer(options):
    net = network(options, depth=2)
    h, steps = layers_of(net, KEY, batch=BATCH)
    for k, (step, w) in enumerate(zip(steps, weights(net), strict=True)):
        expected, *_ = layer(net, w, h, last=k == 1)
        h = step(h)
        np.testing.assert_allclose(h, expected, atol=2e-5)


def unrolled(net: pp.Network):
    """Signals, branches, shares, and gradients of each by `jax.grad`."""
    feed = Feed(net, KEY, None, "gaussian", BATCH, 0.5, "gaussian")
    start, target = (a.reshape(BATCH, TOKENS, WIDTH) for a in (feed.inputs(0), feed.target(0)))
    zero = jnp.zeros_like(start)

    def value(weights, zeros, branch_zeros):
        signals, branches, shares = [start + zeros[0]], [], []
        for k, (w, at) in enumerate(zip(weights, branch_zeros, strict=True)):
            h, own, share = layer(net, w, signals[-1], k == DEPTH - 1, at)
            signals.append(h + zeros[k + 1])
            branches.append(own)
            shares.append(share)
        return jnp.sum(signals[-1] * target), (signals, branches, shares)

    run = jax.jit(jax.grad(value, argnums=(0, 1, 2), has_aux=True))
    return run(weights(net), [zero] * (DEPTH + 1), [[zero, zero]] * DEPTH)


def log_q(arrays) -> np.ndarray:
    return np.log10([np.mean(np.square(np.asarray(a, np.float64))) for a in arrays])


def entropy(share: np.ndarray) -> float:
    share = np.asarray(share, np.float64)
    return float(np.mean(-np.sum(share * np.log(share), axis=-1)) / np.log(share.shape[-1]))


def test_signals_and_gradients_equal_those_of_a_plain_transformer():
    net = network("scheme=gpt2")  # of each other arrangement: `test_contract.py`
    names = ("query", "key", "value", "output", "up", "down")
    branches = ("attention_branch", "mlp_branch")
    places = [*(f"{n}_gradient" for n in (*names, *branches)), *branches]
    wanted = ("q", "attention_entropy", "weight_gradient_q", *(f"{p}_q" for p in places))
    record = pp.measure(net, KEY, seeds=1, batch=BATCH, measures=wanted).isel(seed=0)
    (dw, dh, db), (signals, out, shares) = unrolled(net)
    np.testing.assert_allclose(record.log10_forward_q, log_q(signals), atol=2e-5)
    np.testing.assert_allclose(record.log10_backward_q, log_q(dh), atol=1e-4)
    for name in names:
        found = record[f"log10_{name}_gradient_q"][1:]
        np.testing.assert_allclose(found, log_q([own[name] for own in dw]), atol=1e-4)
    every = [jnp.concatenate([a.ravel() for a in own.values()]) for own in dw]
    np.testing.assert_allclose(record.log10_weight_gradient_q[1:], log_q(every), atol=1e-4)
    for k, branch in enumerate(branches):
        forward, backward = (log_q([own[k] for own in a]) for a in (out, db))
        np.testing.assert_allclose(record[f"log10_{branch}_q"][1:], forward, atol=1e-4)
        np.testing.assert_allclose(record[f"log10_{branch}_gradient_q"][1:], backward, atol=1e-4)
    np.testing.assert_allclose(record.attention_entropy[1:], [*map(entropy, shares)], atol=1e-5)


def test_entropy_is_one_of_equal_and_zero_of_one_hot_attention():
    net = pp.Network(1, WIDTH, f"transformer({SIZES},arrangement=attention)")
    inits = ["zeros", "xavier_normal", "1e4*xavier_normal"]
    options = {"key": KEY, "seeds": 1, "batch": BATCH, "measures": ("attention_entropy",)}
    found = pp.sweep(net, init=inits, **options).attention_entropy.values[:, 0, 0, 1]
    np.testing.assert_allclose(found[[0, 2]], [1, 0], atol=1e-6)
    assert 0.5 < found[1] < 0.95


def test_attention_alone_makes_tokens_equal_and_starves_the_queries():
    """Dong et al. (2021), arXiv:2103.03404: the mean cosine of another draw at these sizes was
    .470, .99982, 1.0000 in layers 1 to 3. From layer 4 on the gradient is float32's rounding:
    equal tokens give the scores none. 16 seeds of another key: cosines of 0.416 ± 0.038 (sd)
    in layer 1 and at least 0.9996 in layer 2, a fall of 7.6 ± 0.24 decades in rms; the bounds
    below are 4.4 and 6.6 sd away, and fail with probability below 2e-5 per seed."""
    net = pp.Network(6, 128, "transformer(arrangement=attention)", init="xavier_normal")
    measures = ("forward_token_correlation", "query_gradient_q")
    record = pp.measure(net, KEY, seeds=2, batch=2, measures=measures)
    cosine = record.forward_token_correlation.values
    assert abs(cosine[:, 0]).max() < 0.05 and cosine[:, 1].min() > 0.25
    assert cosine[:, 1].max() < 0.6 and cosine[:, 2].min() > 0.99
    query = record.log10_query_gradient_q.values / 2
    assert (query[:, 6] - query[:, 1]).max() < -6


def test_tokens_that_become_alike_are_named_and_those_of_a_healthy_twin_are_not():
    found = {}
    for arrangement in ("attention", "pre"):
        net = pp.Network(6, 32, f"transformer(arrangement={arrangement})", init="xavier_normal")
        chosen = ("forward_q", "backward_q", "forward_token_correlation")
        record = pp.measure(net, KEY, seeds=4, batch=8, measures=chosen)
        found[arrangement] = next(f for f in pp.judge(record) if f.direction == "forward")
    alike = found["attention"]
    assert (alike.verdict, alike.layer) == (pp.Verdict.COLLAPSING, 2)
    assert "between positions of an input is 0.99" in alike.reason
    assert found["pre"].verdict is not pp.Verdict.COLLAPSING


def test_gpt2_scaling_bounds_the_growth_of_the_stream():
    """GPT-2's 0.02 at width 768 is sigma_w² = 768 * 0.02² = 0.3072, here at width 64. An MLP adds
    ratio sigma_w²/(2L) sigma_w²/2 with ReLU, so all L of them 0.0944, whatever L is. 12 sets
    of 4 seeds: 0.999 ± 0.012 (sd) of that, and the stream grew by 1.02 ± 0.10 times what the
    branches add, since stream and branch are not quite orthogonal. Both tolerances are more than
    5 sd, failing with probability below 1e-6."""
    depth = 8
    family = "transformer(scheme=gpt2,tokens=16)"
    net = pp.Network(depth, 64, family, "relu", init=f"normal({math.sqrt(0.3072 / 64)})")
    names = ("forward_q", "attention_branch_q", "mlp_branch_q")
    record = pp.measure(net, KEY, seeds=4, batch=4, measures=names)
    stream, *branches = (10 ** record[f"log10_{n}"].mean("seed").values for n in names)
    assert branches[1][1:].sum() == pytest.approx(4 * 0.3072**2 / 4, rel=0.08)
    added = (branches[0] + branches[1])[1:depth].sum()
    assert stream[depth - 1] - stream[0] == pytest.approx(added, rel=0.55)
    assert stream[depth] == pytest.approx(1, abs=1e-3)  # the last norm


def test_heads_that_do_not_divide_the_width_are_refused_when_made():
    with pytest.raises(UnusableInput, match="heads must divide the width, got 5 for 12"):
        pp.Network(2, 12, "transformer(heads=5)")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"tokens": 0}, "tokens must be a whole number of at least 1"),
        ({"ratio": 1.5}, "ratio must be a whole number"),
        ({"arrangement": "between"}, "arrangement must be one of pre, post, deepnorm"),
        ({"scheme": "gpt3"}, "scheme must be one of standard, gpt2, mup"),
        ({"norm_at": "after"}, "norm stands where its arrangement says"),
    ],
)
def test_unusable_options_are_named(options, said):
    with pytest.raises(UnusableInput, match=said):
        Transformer(**options)


@pytest.mark.parametrize("arrangement", ["pre", "post", "deepnorm"])
def test_the_last_gradient_is_phi2_over_the_stream(arrangement):
    """Per token E phi^2 over the second moment before the last norm, of a Gaussian cotangent."""
    depth, batch, tokens, phi2 = 6, 8, 16, 0.2  # E phi^2 of ReLU behind 2/(n + 4n)
    places = ("forward", "mlp_branch", "attention_branch", "down_gradient")
    family = f"transformer(arrangement={arrangement},tokens={tokens})"
    net = pp.Network(depth, 64, family, init="xavier_normal")
    record = pp.measure(net, KEY, seeds=8, batch=batch, measures=[f"{p}_q" for p in places])
    signal, mlp, attention, squared = (10 ** record[f"log10_{p}_q"].mean("seed") for p in places)
    before = {"post": 1, "pre": signal[-2] + attention[-1], "deepnorm": (2 * depth) ** 0.5}
    if arrangement == "deepnorm":
        phi2 *= (8 * depth) ** -0.5
    stream = before[arrangement] + mlp[-1]
    np.testing.assert_allclose(squared[-1], phi2 * batch * tokens / stream, rtol=0.2)


@pytest.mark.parametrize(("arrangement", "exponent"), [("pre", -0.5), ("post", 0.0)])
def test_the_last_gradient_of_a_loss_against_depth(arrangement, exponent):
    """Xiong et al. (2020): L^-1/2 with the norm before, constant after; to ±0.1.

    The mean over 12 seeds is known to 0.03, and the exponents found are -0.47 and 0.04.
    """
    data = {"inputs": jax.random.normal(KEY, (4, 4 * 64)), "labels": np.arange(4)}
    last = []
    for depth in (6, 24):
        family = f"transformer(arrangement={arrangement},tokens=4)"
        net = pp.Network(depth, 64, family, init="xavier_normal")
        options = {"seeds": 12, "loss": "cross_entropy", "measures": ("down_gradient_q",)}
        record = pp.measure(net, KEY, **data, **options)
        last.append(float(record.log10_down_gradient_q.mean("seed")[-1]) / 2)
    assert (last[1] - last[0]) / np.log10(24 / 6) == pytest.approx(exponent, abs=0.1)
