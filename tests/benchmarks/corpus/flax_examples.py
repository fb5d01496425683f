"""Healthy models of Flax Linen, NNX and Equinox, written as their authors' examples write them.

Every builder returns `(model, inputs, options)`, as in `healthy_models`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import zoo
from flax import nnx

from corpus import data

MODELS = {"linen transformer, scanned": zoo.linen_transformer, "nnx CNN": zoo.nnx_cnn}
TRAIN = {"kwargs": {"train": True}}


def example(name):
    """Register a builder under a name."""

    def add(build):
        MODELS[name] = build
        return build

    return add


@example("linen MNIST CNN")
def _():
    """flax/examples/mnist."""

    class CNN(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in (32, 64):
                x = nn.relu(nn.Conv(width, (3, 3))(x))
                x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
            x = nn.relu(nn.Dense(256)(x.reshape(len(x), -1)))
            return nn.Dense(10)(x)

    return CNN(), (data.digits(),), data.classified()


@example("linen VAE")
def _():
    """flax/examples/vae: 784-500-20-500-784."""

    class VAE(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.relu(nn.Dense(500, name="fc1")(x))
            mean, logvar = nn.Dense(20, name="fc2_mean")(h), nn.Dense(20, name="fc2_logvar")(h)
            noise = jax.random.normal(self.make_rng("dropout"), mean.shape)
            z = mean + noise * jnp.exp(0.5 * logvar)
            logits = nn.Dense(784, name="fc2")(nn.relu(nn.Dense(500, name="fc1_out")(z)))
            return logits, -0.5 * jnp.sum(1 + logvar - mean**2 - jnp.exp(logvar), -1)

    x = data.digits().reshape(data.BATCH, -1)
    loss = lambda out, x: data.binary_cross_entropy(out[0], x) + out[1].mean()  # noqa: E731
    return VAE(), (x,), {"loss": loss, "labels": x}


@example("linen LSTM text classifier")
def _():
    """flax/examples/sst2: embedding, BiLSTM, attention over keys, MLP."""

    class Classifier(nn.Module):
        @nn.compact
        def __call__(self, words):
            x = nn.Embed(64, 300, embedding_init=nn.initializers.normal(0.1))(words)
            h = nn.Bidirectional(nn.RNN(nn.LSTMCell(128)), nn.RNN(nn.LSTMCell(128)))(x)
            keys = nn.Dense(256, use_bias=False, name="keys")(h)
            scores = nn.Dense(1, use_bias=False, name="energy")(jnp.tanh(keys))
            context = jnp.sum(nn.softmax(scores, 1) * h, 1)
            return nn.Dense(2)(jnp.tanh(nn.Dense(256)(context)))

    return Classifier(), (data.tokens(),), data.classified(classes=2)


@example("linen seq2seq")
def _():
    """flax/examples/seq2seq: LSTM encoder and decoder on one-hot characters."""

    class Seq2seq(nn.Module):
        @nn.compact
        def __call__(self, questions, answers):
            cell = lambda: nn.LSTMCell(128)  # noqa: E731
            carry, _ = nn.RNN(cell(), return_carry=True)(jax.nn.one_hot(questions, 64))
            out = nn.RNN(cell())(jax.nn.one_hot(answers, 64), initial_carry=carry)
            return nn.Dense(64)(out)

    return Seq2seq(), (data.tokens(), data.tokens()), data.next_token()


@example("linen transformer LM")
def _():
    """flax/examples/lm1b: pre-LN, logits from the transposed embedding over sqrt(width)."""

    class LM(nn.Module):
        @nn.compact
        def __call__(self, words):
            embed = nn.Embed(64, 64, embedding_init=nn.initializers.normal(1.0))
            x = embed(words)
            t, k = jnp.arange(words.shape[1])[:, None], jnp.arange(32)[None]
            angle = t * 10000.0 ** (-k / 32)
            x += jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
            init = nn.initializers.xavier_uniform()
            for _ in range(3):
                h = nn.LayerNorm()(x)
                heads = nn.MultiHeadDotProductAttention(4, use_bias=False, kernel_init=init)
                x += heads(h, mask=nn.make_causal_mask(words))
                h = nn.relu(nn.Dense(256, kernel_init=init)(nn.LayerNorm()(x)))
                x += nn.Dense(64, kernel_init=init)(h)
            return embed.attend(nn.LayerNorm()(x)) / 8.0

    return LM(), (data.tokens(),), data.next_token()


@example("linen PixelCNN")
def _():
    """Gated masked convolutions with residual blocks (van den Oord et al., 2016)."""

    class Masked(nn.Module):
        width: int
        own: bool

        @nn.compact
        def __call__(self, x):
            kernel = (self.width, x.shape[-1])
            mask = jnp.ones((3, 3, *kernel[::-1])).at[2:].set(0).at[1, 1 + self.own :].set(0)
            return nn.Conv(self.width, (3, 3), mask=mask)(x)

    class PixelCNN(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = Masked(32, False)(x)
            for _ in range(4):
                a, b = jnp.split(Masked(64, True)(nn.elu(h)), 2, -1)
                h += nn.Conv(32, (1, 1))(jnp.tanh(a) * nn.sigmoid(b))
            return nn.Conv(1, (1, 1))(nn.elu(h))

    loss = {"loss": data.binary_cross_entropy, "labels": data.digits()}
    return PixelCNN(), (data.digits(),), loss


@example("linen ResNet18")
def _():
    """flax/examples/imagenet: the last norm of a branch starts at zero."""

    class Block(nn.Module):
        width: int
        stride: int

        @nn.compact
        def __call__(self, x, train):
            norm = lambda **o: nn.BatchNorm(use_running_average=not train, momentum=0.9, **o)  # noqa: E731
            conv = lambda *a: nn.Conv(self.width, *a, use_bias=False)  # noqa: E731
            h = nn.relu(norm()(conv((3, 3), self.stride)(x)))
            h = norm(scale_init=nn.initializers.zeros)(conv((3, 3))(h))
            if x.shape != h.shape:
                x = norm()(conv((1, 1), self.stride)(x))
            return nn.relu(x + h)

    class ResNet(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Conv(32, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
            for stage in range(4):
                for block in range(2):
                    x = Block(32 * 2**stage, 1 + (stage > 0 and block == 0))(x, train)
            return nn.Dense(10)(x.mean((1, 2)))

    return ResNet(), (data.images(32),), TRAIN | data.classified()


@example("linen actor-critic")
def _():
    """flax/examples/ppo: the Atari net, with log probabilities and a value."""

    class ActorCritic(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
                x = nn.relu(nn.Conv(width, (size, size), (stride, stride))(x / 1.0))
            x = nn.relu(nn.Dense(512)(x.reshape(len(x), -1)))
            return nn.log_softmax(nn.Dense(4)(x)), nn.Dense(1)(x)

    return ActorCritic(), (jnp.clip(0.5 + 0.25 * data.images(32, 4), 0.0, 1.0),), {}


@example("linen graph net")
def _():
    """flax/examples/ogbg_molpcba: message passing, written on edge lists."""

    class GraphNet(nn.Module):
        @nn.compact
        def __call__(self, nodes, senders, receivers):
            h = nn.Dense(64)(nodes)
            for _ in range(3):
                messages = nn.relu(nn.Dense(64)(jnp.concatenate([h[senders], h[receivers]], -1)))
                summed = jax.ops.segment_sum(messages, receivers, len(h))
                own = nn.Dense(64)(nn.relu(nn.Dense(64)(jnp.concatenate([h, summed], -1))))
                h = nn.LayerNorm()(h + own)
            return nn.Dense(4)(h.mean(0, keepdims=True))

    ends = jnp.nonzero(data.ring_graph(32))
    model = lambda v, x: GraphNet().apply(v, x, *ends)  # noqa: E731
    variables = GraphNet().init(data.KEY, data.vectors(16, 32), *ends)
    return model, (variables, data.vectors(16, 32)), {}


@example("linen MLP-Mixer")
def _():
    """google-research/vision_transformer, models_mixer.py."""

    class Mixer(nn.Module):
        @nn.compact
        def __call__(self, x):
            mlp = lambda x, n: nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(n)(x)))  # noqa: E731
            x = nn.Conv(64, (4, 4), (4, 4), name="stem")(x)
            x = x.reshape(len(x), -1, 64)
            for _ in range(4):
                x += mlp(nn.LayerNorm()(x).swapaxes(1, 2), 32).swapaxes(1, 2)
                x += mlp(nn.LayerNorm()(x), 128)
            h = nn.LayerNorm()(x).mean(1)
            return nn.Dense(10, kernel_init=nn.initializers.zeros, name="head")(h)

    return Mixer(), (data.images(32),), data.classified()


@example("nnx MNIST CNN")
def _():
    """flax.readthedocs.io, mnist_tutorial: batch norm and dropout."""

    class CNN(nnx.Module):
        def __init__(self, *, rngs):
            self.conv1 = nnx.Conv(1, 32, kernel_size=(3, 3), rngs=rngs)
            self.norm1 = nnx.BatchNorm(32, rngs=rngs)
            self.dropout1 = nnx.Dropout(0.025, rngs=rngs)
            self.conv2 = nnx.Conv(32, 64, kernel_size=(3, 3), rngs=rngs)
            self.norm2 = nnx.BatchNorm(64, rngs=rngs)
            self.linear1 = nnx.Linear(3136, 256, rngs=rngs)
            self.dropout2 = nnx.Dropout(0.025, rngs=rngs)
            self.linear2 = nnx.Linear(256, 10, rngs=rngs)

        def __call__(self, x):
            pool = lambda x: nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2))  # noqa: E731
            x = pool(nnx.relu(self.norm1(self.dropout1(self.conv1(x)))))
            x = pool(nnx.relu(self.norm2(self.conv2(x)))).reshape(len(x), -1)
            return self.linear2(nnx.relu(self.dropout2(self.linear1(x))))

    return CNN(rngs=nnx.Rngs(0)), (data.digits(),), data.classified()


class _Block(nnx.Module):
    """A block of miniGPT and of the vision transformer, flax.readthedocs.io and jax-ai-stack."""

    def __init__(self, width, rngs, pre, causal):
        self.attend = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)
        self.pre, self.causal = pre, causal

    def __call__(self, x):
        mask = jnp.tril(jnp.ones((x.shape[1],) * 2)) if self.causal else None
        mlp = lambda x: self.down(nnx.gelu(self.up(x)))  # noqa: E731
        if self.pre:
            x = x + self.attend(self.norm1(x), mask=mask)
            return x + mlp(self.norm2(x))
        x = self.norm1(x + self.attend(x, mask=mask))
        return self.norm2(x + mlp(x))


@example("nnx miniGPT")
def _():
    """jax-ai-stack's JAX_for_LLM_pretraining: post-LN blocks."""

    class MiniGPT(nnx.Module):
        def __init__(self, rngs):
            self.words, self.places = nnx.Embed(64, 64, rngs=rngs), nnx.Embed(16, 64, rngs=rngs)
            self.blocks = nnx.List([_Block(64, rngs, False, True) for _ in range(3)])
            self.out = nnx.Linear(64, 64, rngs=rngs)

        def __call__(self, words):
            x = self.words(words) + self.places(jnp.arange(words.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.out(x)

    return MiniGPT(nnx.Rngs(0)), (data.tokens(),), data.next_token()


@example("nnx vision transformer")
def _():
    class ViT(nnx.Module):
        def __init__(self, rngs):
            self.patches = nnx.Conv(3, 64, kernel_size=(8, 8), strides=(8, 8), rngs=rngs)
            self.places = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 17, 64)))
            self.cls = nnx.Param(jnp.zeros((1, 1, 64)))
            self.blocks = nnx.List([_Block(64, rngs, True, False) for _ in range(3)])
            self.norm, self.out = nnx.LayerNorm(64, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, x):
            x = self.patches(x).reshape(len(x), -1, 64)
            x = jnp.concatenate([jnp.broadcast_to(self.cls[...], (len(x), 1, 64)), x], 1)
            x += self.places[...]
            for block in self.blocks:
                x = block(x)
            return self.out(self.norm(x)[:, 0])

    return ViT(nnx.Rngs(0)), (data.images(32),), data.classified()


@example("nnx GRU forecaster")
def _():
    class Forecaster(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(nnx.GRUCell(4, 64, rngs=rngs), rngs=rngs)
            self.out = nnx.Linear(64, 4, rngs=rngs)

        def __call__(self, x):
            return self.out(self.rnn(x))

    return Forecaster(nnx.Rngs(0)), (data.sequences(40, 4),), {}
