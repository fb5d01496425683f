"""Models with one fault in them, at graded strength, each with its healthy twin.

A builder takes the strength in units of its threshold; 0 is the healthy twin. What is there or not
there, such as a layer of zeros, is there from 1 on. The threshold of a kind is written beside its
builder: where the rules' own numbers say that a fault begins, or where training begins to suffer.
"""

import jax
import jax.numpy as jnp

from corpus import data
from corpus.planting import (
    ANY,
    BATCH,
    CULPRIT,
    FINE,
    STEEP,
    VANISHED,
    WIDTH,
    branches,
    kernels,
    layer,
    net,
    plant,
    residual,
    stack,
    zeros,
)


@plant("one layer too small", "linen equinox keras", "departing vanishing", layer(5), sign=-1)
@plant("one layer too large", "function nnx", "departing exploding", layer(5), sign=1)
def one_scaled(framework, k, sign):
    """Threshold: 1.5 decades of a second moment up, or 4 down."""
    weights = kernels(12)
    weights[CULPRIT] *= 10 ** (sign * (STEEP if sign > 0 else VANISHED) * k / 2)
    return stack(framework, zeros(weights))


@plant("all layers too large", "haiku", "exploding", ANY, sign=1)
@plant("all layers too small", "equinox", "vanishing", ANY, sign=-1)
def all_scaled(framework, k, sign):
    """Threshold: 2.6 decades over twelve layers."""
    weights = kernels(12)
    return stack(framework, zeros([w * 10 ** (sign * FINE * k / 24) for w in weights]))


@plant("sigmoids", "linen keras", "vanishing collapsing", ANY + "|logistic|sigmoid")
def sigmoids(framework, k):
    """Threshold: three Glorot layers, each of which costs the gradient 1.2 decades."""
    if k == 0:
        return stack(framework, zeros(kernels(7)))
    return stack(framework, zeros(kernels(max(2, round(3 * k)) + 1, 1.0)), jax.nn.sigmoid)


@plant("branches without a scale", "function haiku", "exploding", ANY + "|add")
def unscaled_branches(framework, k):
    """Threshold: nine blocks, each of which doubles the variance."""
    blocks = max(4, round(9 * k)) or 18
    return residual(framework, zeros(branches(blocks)), lambda _: 1.0 if k else blocks**-0.5)


@plant("one branch without its scale", "linen equinox", "departing exploding", layer(10, 11))
def forgotten_scale(framework, k):
    """Threshold: the branch is too large by 1.5 decades."""
    weights, times = branches(12), 10 ** (STEEP * k / 2)
    own = lambda block: (times if block == CULPRIT else 1.0) * 12**-0.5  # noqa: E731
    return residual(framework, zeros(weights), own)


def attend(dense, x, first, times=1.0):
    """One head: queries, keys and values are the layers `first` to `first + 2`."""
    q, k, v = (dense(first + i, x) for i in range(3))
    scores = jnp.einsum("...td,...sd->...ts", q, k) * (times / x.shape[-1] ** 0.5)
    return jax.nn.softmax(scores) @ v


def rms_norm(x):
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)


QUERIES_AND_KEYS = layer(0, 1, 3, 4, 6, 7, 9, 10)


@plant("scores too large", "function linen equinox", "saturated", QUERIES_AND_KEYS + "|softmax")
def one_hot_attention(framework, k):
    """Threshold: scores of deviation 4, as without 1/sqrt(d) at d = 16; at 2 it is d = 64."""

    def forward(dense, x):
        for block in range(4):
            x = x + attend(dense, rms_norm(x), 3 * block, 4.0 * k or 1.0)
        return x

    x = data.vectors(WIDTH, 8 * 16).reshape(8, 16, WIDTH)
    return net(framework, zeros(kernels(12, 1.0)), forward, x)


@plant("a layer of zeros", "nnx keras", "dead untrained", layer(5), graded=False)
def zero_layer(framework, k):
    weights = kernels(12)
    weights[CULPRIT] *= k == 0
    return stack(framework, zeros(weights))


@plant("a branch of zeros", "function linen", "dead untrained", layer(10, 11), graded=False)
def zero_branch(framework, k):
    weights = branches(12)
    weights[10], weights[11] = weights[10] * (k == 0), weights[11] * (k == 0)
    return residual(framework, zeros(weights), lambda _: 12**-0.5)


@plant("dead ReLUs", "equinox keras", "dead", layer(5))
def dead_units(framework, k):
    """Threshold: a bias of -4, three deviations of the signal: most units are 0 on 64 inputs."""
    weights = zeros(kernels(12))
    weights[CULPRIT] = weights[CULPRIT][0], jnp.full(WIDTH, -4.0 * k)
    return stack(framework, weights)


@plant("one saturated tanh", "function haiku", "saturated departing exploding", layer(5))
def saturated_layer(framework, k):
    """Threshold: inputs of tanh of deviation 7, where three quarters have almost no slope."""
    weights = kernels(8, 1.0)
    weights[CULPRIT] *= 14.0 * k or 1.0
    return stack(framework, zeros(weights), jnp.tanh)


@plant("saturated tanhs", "nnx", "saturated exploding", ANY + "|tanh")
def saturated_stack(framework, k):
    """Threshold: as above, in every layer."""
    return stack(framework, zeros(kernels(8, (7.5 * k or 1.0) ** 2)), jnp.tanh)


@plant("constant weights", "function nnx", "symmetric", layer(5), graded=False)
def constant_weights(framework, k):
    weights = kernels(12)
    if k:
        weights[CULPRIT] = jnp.full((WIDTH, WIDTH), 1.5 / WIDTH)
    return stack(framework, zeros(weights))


ROOTS = {
    "norm": lambda x, small: jnp.sqrt(jnp.sum(x**2, -1, keepdims=True) + small),
    "deviation": lambda x, small: jnp.sqrt(jnp.var(x, -1, keepdims=True) + small),
    "where": lambda x, small: jnp.where(
        x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0) if small else jax.nn.relu(x)), 0.0
    ),
}
PLACE = r"sqrt|norm|std|var|where|" + layer(3)


@plant("NaN gradients", "function linen", "non-finite overflowed", PLACE, False, root="norm")
@plant("NaN behind where", "equinox", "non-finite overflowed", PLACE, False, root="where")
@plant("NaN of a deviation", "haiku", "non-finite overflowed", PLACE, False, root="deviation")
def nan_gradient(framework, k, root):
    end = ROOTS[root]
    small = 0.0 if k else 1e-3
    change = lambda i, x: end(x, small) if i == 3 else x  # noqa: E731
    model, (*params, x), options = stack(framework, zeros(kernels(4)), change=change)
    return model, (*params, x.at[0].set(0.0)), options


@plant("float16 flushes the gradient", "function linen", "underflowed", "")
def flushed(framework, k):
    """Threshold: a fifth of the output's gradients are flushed to zero."""
    scale = 10 ** (-2.0 - k) if k else 100.0
    half = kernels(8, dtype=jnp.float16)
    loss = lambda out, _: scale * jnp.mean(out.astype(jnp.float32) ** 2)  # noqa: E731
    model, (*params, _), options = stack(framework, zeros(half))
    x = data.vectors(WIDTH, 512).astype(jnp.float16)
    return model, (*params, x), options | {"loss": loss}


@plant("attention alone", "function equinox", "collapsing", ANY + "|softmax|dot")
def attention_alone(framework, k):
    """Threshold: three layers without skips (Dong et al., 2021, arXiv:2103.03404)."""
    count = max(2, round(3 * k)) if k else 6

    def forward(dense, x):
        for block in range(count):
            h = attend(dense, rms_norm(x), 3 * block)
            x = h if k else x + h
        return x

    x = data.vectors(WIDTH, 8 * 16).reshape(8, 16, WIDTH)
    return net(framework, zeros(kernels(3 * count, 1.0)), forward, x)


@plant("oversmoothed graph", "function linen", "collapsing", ANY + "|dot|relu")
def oversmoothed(framework, k):
    """Threshold: six graph convolutions, on a graph that mixes by a factor of about 0.6 each."""
    own = data.ring_graph(32, 160) + jnp.eye(32)
    norm = jax.lax.rsqrt(own.sum(1))
    a = norm[:, None] * own * norm
    count = max(2, round(6 * k))

    def forward(dense, x):
        for i in range(count):
            x = jax.nn.relu(a @ dense(i, x))
        return dense(count, x)

    return net(framework, zeros(kernels(count + 1)), forward, data.vectors(WIDTH, 32))


@plant("inputs become alike", "haiku", "collapsing vanishing", ANY + "|tanh")
def alike(framework, k):
    """Threshold: five layers of variance 0.5 with biases of variance 1."""
    count = max(2, round(5 * k)) if k else 10
    biases = jax.random.normal(jax.random.key(7), (count, WIDTH)) * (k > 0)
    weights = kernels(count, 0.5 if k else 1.5)
    return stack(framework, list(zip(weights, biases, strict=True)), jnp.tanh)


CUTS = {
    "stop": jax.lax.stop_gradient,
    "round": lambda x: jnp.round(8 * x) / 8,
    "argmax": lambda x: jax.nn.one_hot(x.argmax(-1), WIDTH) * 8.0,
}
BEFORE = layer("[0-5]") + "|round|stop|argmax|floor"


@plant("a stopped gradient", "nnx haiku", "untrained", BEFORE, False, cut="stop")
@plant("a rounded signal", "function", "untrained", BEFORE, False, cut="round")
@plant("an argmax inside", "equinox", "untrained", BEFORE, False, cut="argmax")
def cut_off(framework, k, cut):
    change = lambda i, x: CUTS[cut](x) if k and i == CULPRIT else x  # noqa: E731
    return stack(framework, zeros(kernels(12)), change=change)


@plant("raw inputs", "linen keras", "", r"input|data|^x\b|" + layer(0))
def raw_inputs(framework, k):
    """Threshold: an rms of 12, so that pixels from 0 to 255 are at twice that."""
    pixels = jax.random.uniform(data.KEY, (BATCH, WIDTH)) * (3**0.5 * 12.2**k)
    x = pixels if k else data.vectors(WIDTH, BATCH)

    def forward(dense, x):
        return dense(3, jax.nn.relu(dense(2, jax.nn.relu(dense(1, jax.nn.relu(dense(0, x)))))))

    weights = kernels(4)
    weights[3] = weights[3][:, :10] * 0.5**0.5
    return net(framework, zeros(weights), forward, x, **data.classified(BATCH))


@plant("a deep net without norms", "keras haiku", "vanishing", ANY + "|relu")
def without_norms(framework, k):
    """Threshold: nine ReLU layers of variance 1/n, which halve the signal."""
    change = (lambda i, x: x) if k else lambda i, x: rms_norm(x)
    return stack(framework, zeros(kernels(max(5, round(9 * k)) if k else 18, 1.0)), change=change)


@plant(
    "a call that multiplies",
    "function equinox",
    "exploding departing",
    layer(2, 3) + "|solve",
)
def unopened(framework, k):
    """Threshold: 2.6 decades, a factor of 20."""

    @jax.custom_vjp
    def solve(x):
        return jnp.tanh(x)

    factor = 10 ** (FINE * k / 2)
    solve.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (factor * g * (1 - jnp.tanh(x) ** 2),))
    change = lambda i, x: solve(x) if i == 2 else x  # noqa: E731
    return stack(framework, zeros(kernels(6)), change=change)


@plant("an exploding recurrence", "function linen keras", "exploding", r"rnn|cell|recurrent|hh")
def recurrence(framework, k):
    """Threshold: 2.6 decades over sixty steps of h = g Q h + U x with an orthogonal Q."""
    g, x, same = 10 ** (FINE * k / 120), data.sequences(60, 8), lambda x: x
    orthogonal = jax.nn.initializers.orthogonal(g)
    if framework == "linen":
        import flax.linen as nn

        cell = nn.SimpleCell(WIDTH, activation_fn=same, recurrent_kernel_init=orthogonal)
        return nn.RNN(cell, name="rnn"), (x,), {}
    if framework == "keras":
        import keras

        init = keras.initializers.Orthogonal(g, seed=0)
        options = {"activation": "linear", "recurrent_initializer": init}
        return keras.Sequential([keras.layers.SimpleRNN(WIDTH, **options)]), (x,), {}

    def model(params, x):
        step = lambda h, x: (h @ params["hh"] + x @ params["xh"],) * 2  # noqa: E731
        return jax.lax.scan(step, jnp.zeros((len(x), WIDTH)), x.swapaxes(0, 1))[0]

    xh = jax.random.normal(data.KEY, (8, WIDTH)) / 8**0.5
    return model, ({"hh": orthogonal(data.KEY, (WIDTH, WIDTH)), "xh": xh}, x), {}
