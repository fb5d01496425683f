"""Healthy models of Equinox, of flowjax and in plain functions, as their authors write them.

Every builder returns `(model, inputs, options)`, as in `keras_and_haiku`.
"""

import itertools
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import zoo

from corpus import data

MODELS = {
    "equinox MLP": zoo.equinox_mlp,
    "equinox LSTM scan": zoo.lstm_scan,
    "function tanh MLP": zoo.raw_jax,
}
MAPPED = {"vmap": True}
HE, GLOROT = jax.nn.initializers.he_normal(), jax.nn.initializers.glorot_normal()
LECUN = jax.nn.initializers.lecun_normal()


def example(name):
    """Register a builder under a name; it takes an endless stream of keys."""

    def add(build):
        def made():
            return build(iter(jax.random.split(data.KEY, 200)))

        MODELS[name] = made
        return build

    return add


def stacked(keys, sizes, init):
    """Return weights and zero biases of a stack of linear maps."""
    pairs = itertools.pairwise(sizes)
    return [{"w": init(next(keys), pair), "b": jnp.zeros(pair[1])} for pair in pairs]


def linear(p, x):
    return x @ p["w"] + p["b"]


def mlp(params, x, phi=jax.nn.relu):
    for p in params[:-1]:
        x = phi(linear(p, x))
    return linear(params[-1], x)


def rms_norm(x):
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)


@example("equinox MNIST CNN")
def _(keys):
    """docs.kidger.site/equinox/examples/mnist: one convolution, sigmoid between linear maps."""
    pool = [eqx.nn.MaxPool2d(kernel_size=2), jax.nn.relu, jnp.ravel]
    layers = [eqx.nn.Conv2d(1, 3, kernel_size=4, key=next(keys)), *pool]
    layers += [eqx.nn.Linear(1728, 512, key=next(keys)), jax.nn.sigmoid]
    layers += [eqx.nn.Linear(512, 64, key=next(keys)), jax.nn.relu]
    layers += [eqx.nn.Linear(64, 10, key=next(keys)), jax.nn.log_softmax]
    net = eqx.nn.Sequential([x if isinstance(x, eqx.Module) else eqx.nn.Lambda(x) for x in layers])
    x = data.digits().transpose(0, 3, 1, 2)
    return net, (x,), MAPPED | data.classified()


@example("equinox GRU classifier")
def _(keys):
    """docs.kidger.site/equinox/examples/train_rnn: which way a spiral turns."""

    class RNN(eqx.Module):
        cell: eqx.nn.GRUCell
        linear: eqx.nn.Linear
        bias: jax.Array

        def __call__(self, x):
            step = lambda h, x: (self.cell(x, h), None)  # noqa: E731
            h, _ = jax.lax.scan(step, jnp.zeros(self.cell.hidden_size), x)
            return jax.nn.sigmoid(self.linear(h) + self.bias)

    net = RNN(
        eqx.nn.GRUCell(2, 16, key=next(keys)),
        eqx.nn.Linear(16, 1, use_bias=False, key=next(keys)),
        jnp.zeros(1),
    )
    return net, (data.sequences(16, 2, 32),), MAPPED


@example("equinox MLP-mixer")
def _(keys):
    """docs.kidger.site/equinox/examples/score_based_diffusion."""

    class Block(eqx.Module):
        patch: eqx.nn.MLP
        hidden: eqx.nn.MLP
        norm1: eqx.nn.LayerNorm
        norm2: eqx.nn.LayerNorm

        def __call__(self, y):
            y = y + jax.vmap(self.patch)(self.norm1(y))
            y = y.T
            y = y + jax.vmap(self.hidden)(self.norm2(y))
            return y.T

    class Mixer(eqx.Module):
        conv_in: eqx.nn.Conv2d
        conv_out: eqx.nn.ConvTranspose2d
        blocks: list
        norm: eqx.nn.LayerNorm

        def __call__(self, y):
            t = jnp.full((1, 28, 28), 0.3)
            y = self.conv_in(jnp.concatenate([y, t]))
            shape = y.shape
            y = y.reshape(shape[0], -1)
            for block in self.blocks:
                y = block(y)
            return self.conv_out(self.norm(y).reshape(shape))

    def block():
        shape, depth1 = (64, 49), {"depth": 1}
        return Block(
            eqx.nn.MLP(49, 49, 256, **depth1, key=next(keys)),
            eqx.nn.MLP(64, 64, 256, **depth1, key=next(keys)),
            eqx.nn.LayerNorm(shape),
            eqx.nn.LayerNorm(shape[::-1]),
        )

    net = Mixer(
        eqx.nn.Conv2d(2, 64, 4, stride=4, key=next(keys)),
        eqx.nn.ConvTranspose2d(64, 1, 4, stride=4, key=next(keys)),
        [block() for _ in range(4)],
        eqx.nn.LayerNorm((64, 49)),
    )
    return net, (data.images(28, 1).transpose(0, 3, 1, 2),), MAPPED


@example("equinox vision transformer")
def _(keys):
    """docs.kidger.site/equinox/examples/vision_transformer: patches of 4, pre-LN, dropout."""

    class Block(eqx.Module):
        norm1: eqx.nn.LayerNorm
        norm2: eqx.nn.LayerNorm
        attention: eqx.nn.MultiheadAttention
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __call__(self, x):
            h = jax.vmap(self.norm1)(x)
            x = x + self.attention(h, h, h)
            h = jax.vmap(self.up)(jax.vmap(self.norm2)(x))
            return x + jax.vmap(self.down)(jax.nn.gelu(h))

    class ViT(eqx.Module):
        patch: eqx.nn.Linear
        places: jax.Array
        cls: jax.Array
        blocks: list
        head: eqx.nn.Sequential

        def __call__(self, x):
            x = x.reshape(3, 8, 4, 8, 4).transpose(1, 3, 0, 2, 4).reshape(64, -1)
            x = jnp.concatenate([self.cls, jax.vmap(self.patch)(x)]) + self.places
            for block in self.blocks:
                x = block(x)
            return self.head(x[0])

    def block():
        return Block(
            eqx.nn.LayerNorm(64),
            eqx.nn.LayerNorm(64),
            eqx.nn.MultiheadAttention(4, 64, key=next(keys)),
            eqx.nn.Linear(64, 128, key=next(keys)),
            eqx.nn.Linear(128, 64, key=next(keys)),
        )

    head = eqx.nn.Sequential([eqx.nn.LayerNorm(64), eqx.nn.Linear(64, 10, key=next(keys))])
    cls, places = (jax.random.normal(next(keys), shape) for shape in ((1, 64), (65, 64)))
    net = ViT(eqx.nn.Linear(48, 64, key=next(keys)), places, cls, [block() for _ in range(4)], head)
    return net, (data.images(32).transpose(0, 3, 1, 2),), MAPPED | data.classified()


@example("equinox diffusion U-Net")
def _(keys):
    """docs.kidger.site/equinox/examples/unet, two levels: group norm, SiLU, time embedding."""

    class Block(eqx.Module):
        norm1: eqx.nn.GroupNorm
        norm2: eqx.nn.GroupNorm
        conv1: eqx.nn.Conv2d
        conv2: eqx.nn.Conv2d
        time: eqx.nn.Linear
        skip: eqx.nn.Conv2d

        def __call__(self, x, t):
            h = self.conv1(jax.nn.silu(self.norm1(x)))
            h = h + self.time(jax.nn.silu(t))[:, None, None]
            h = self.conv2(jax.nn.silu(self.norm2(h)))
            return (h + self.skip(x)) / jnp.sqrt(2.0)

    def block(a, b):
        conv = partial(eqx.nn.Conv2d, kernel_size=3, padding=1)
        return Block(
            eqx.nn.GroupNorm(min(a // 4, 32), a),
            eqx.nn.GroupNorm(min(b // 4, 32), b),
            conv(a, b, key=next(keys)),
            conv(b, b, key=next(keys)),
            eqx.nn.Linear(64, b, key=next(keys)),
            eqx.nn.Conv2d(a, b, 1, key=next(keys)),
        )

    class UNet(eqx.Module):
        time: eqx.nn.MLP
        first: eqx.nn.Conv2d
        blocks: list
        down: eqx.nn.Conv2d
        up: eqx.nn.ConvTranspose2d
        last: list

        def __call__(self, x, t):
            angle = t * jnp.exp(-jnp.log(10000.0) * jnp.arange(16) / 15)
            t = self.time(jnp.concatenate([jnp.sin(angle), jnp.cos(angle)]))
            high = self.blocks[0](self.first(x), t)
            low = self.blocks[2](self.blocks[1](self.down(high), t), t)
            h = self.blocks[3](jnp.concatenate([self.up(low), high]), t)
            return self.last[1](jax.nn.silu(self.last[0](h)))

    net = UNet(
        eqx.nn.MLP(32, 64, 128, 1, activation=jax.nn.silu, key=next(keys)),
        eqx.nn.Conv2d(1, 32, 3, padding=1, key=next(keys)),
        [block(32, 32), block(32, 64), block(64, 64), block(96, 32)],
        eqx.nn.Conv2d(32, 32, 3, stride=2, padding=1, key=next(keys)),
        eqx.nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1, key=next(keys)),
        [eqx.nn.GroupNorm(8, 32), eqx.nn.Conv2d(32, 1, 3, padding=1, key=next(keys))],
    )
    times = jnp.linspace(0.0, 10.0, data.BATCH)
    return net, (data.images(16, 1).transpose(0, 3, 1, 2), times), MAPPED


@example("equinox neural CDE")
def _(keys):
    """docs.kidger.site/diffrax/examples/neural_cde, with Euler's steps in place of a solver."""

    class CDE(eqx.Module):
        initial: eqx.nn.MLP
        field: eqx.nn.MLP
        out: eqx.nn.Linear

        def __call__(self, path):
            def step(y, dx):
                return y + self.field(y).reshape(8, 3) @ dx, None

            y, _ = jax.lax.scan(step, self.initial(path[0]), jnp.diff(path, axis=0))
            return jax.nn.sigmoid(self.out(y))

    field = eqx.nn.MLP(8, 24, 64, 1, jax.nn.softplus, final_activation=jnp.tanh, key=next(keys))
    net = CDE(eqx.nn.MLP(3, 8, 64, 1, key=next(keys)), field, eqx.nn.Linear(8, 1, key=next(keys)))
    t = jnp.broadcast_to(jnp.linspace(0, 1, 40)[None, :, None], (32, 40, 1))
    return net, (jnp.concatenate([t, data.sequences(40, 2, 32)], -1),), MAPPED


@example("equinox neural ODE")
def _(keys):
    """docs.kidger.site/diffrax/examples/neural_ode, with Euler's steps."""
    field = eqx.nn.MLP(2, 2, 64, 2, activation=jax.nn.softplus, key=next(keys))
    step = lambda field, y, _: (y + 0.1 * field(y), y)  # noqa: E731
    solve = lambda field, y: jax.lax.scan(partial(step, field), y, None, 20)[1]  # noqa: E731
    model = lambda field, ys: jax.vmap(partial(solve, field))(ys)  # noqa: E731
    return model, (field, data.points(2)), {}


@example("equinox BERT block")
def _(keys):
    """docs.kidger.site/equinox/examples/bert: post-LN, embeddings normalised."""
    attend = eqx.nn.MultiheadAttention(
        4, 64, use_query_bias=True, use_key_bias=True, use_value_bias=True,
        use_output_bias=True, key=next(keys),
    )  # fmt: skip
    up, down = eqx.nn.Linear(64, 128, key=next(keys)), eqx.nn.Linear(128, 64, key=next(keys))
    embed = eqx.nn.Embedding(64, 64, key=next(keys))
    params = embed, attend, up, down, [eqx.nn.LayerNorm(64) for _ in range(3)]

    def one(params, words):
        embed, attend, up, down, norms = params
        x = jax.vmap(norms[0])(jax.vmap(embed)(words))
        x = jax.vmap(norms[1])(x + attend(x, x, x))
        return jax.vmap(norms[2])(x + jax.vmap(down)(jax.nn.gelu(jax.vmap(up)(x))))

    model = lambda params, words: jax.vmap(partial(one, params))(words)  # noqa: E731
    return model, (params, data.tokens()), {}


def flow(name, base=4, **options):
    import flowjax.flows
    from flowjax.distributions import Normal

    made = getattr(flowjax.flows, name)(data.KEY, base_dist=Normal(jnp.zeros(base)), **options)
    loss = {"loss": lambda log_prob, _: -log_prob.mean()}
    return lambda f, x: f.log_prob(x), (made, data.vectors(base)), loss


MODELS |= {
    "flowjax MAF": partial(flow, "masked_autoregressive_flow", flow_layers=4),
    "flowjax RealNVP": partial(flow, "coupling_flow", flow_layers=4),
    "flowjax planar flow": partial(flow, "planar_flow", width_size=16, depth=1),
    "flowjax spline flow": partial(flow, "triangular_spline_flow", flow_layers=4),
}
