"""Published models that nobody here wrote, small enough to compile at once.

Every builder returns `(model, inputs, options)`, to be called as `pure(model, *inputs, **options)`.
"""

import os
from functools import partial

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp

KEY = jax.random.key(0)
IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((2, 16), jnp.int32)
VECTORS = jax.ShapeDtypeStruct((8, 16), jnp.float32)


def equinox_mlp():
    import equinox as eqx

    return eqx.nn.MLP(16, 10, width_size=32, depth=4, key=KEY), (VECTORS,), {"vmap": True}


def linen_transformer():
    """Pre-LN (Xiong et al., 2020, arXiv:2002.04745), scanned over 4 rematerialised blocks."""
    import flax.linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
            h = nn.gelu(nn.Dense(128)(nn.LayerNorm()(x)))
            return x + nn.Dense(32)(h), None

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(64, 32)(tokens) + nn.Embed(16, 32)(jnp.arange(16))
            layers = nn.scan(
                nn.remat(Block, prevent_cse=False),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=4,
            )
            x, _ = layers()(x, None)
            return nn.Dense(64)(nn.LayerNorm()(x))

    return Transformer(), (TOKENS,), {}


def nnx_cnn():
    from flax import nnx

    class CNN(nnx.Module):
        def __init__(self, rngs):
            self.conv1 = nnx.Conv(3, 8, kernel_size=(3, 3), rngs=rngs)
            self.norm1 = nnx.BatchNorm(8, rngs=rngs)
            self.conv2 = nnx.Conv(8, 16, kernel_size=(3, 3), rngs=rngs)
            self.norm2 = nnx.BatchNorm(16, rngs=rngs)
            self.linear = nnx.Linear(8 * 8 * 16, 10, rngs=rngs)

        def __call__(self, x):
            pool = partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))
            x = pool(nnx.relu(self.norm1(self.conv1(x))))
            x = pool(nnx.relu(self.norm2(self.conv2(x))))
            return self.linear(x.reshape(len(x), -1))

    return CNN(nnx.Rngs(0)), (IMAGES,), {}


def haiku_net(name, **options):
    """Return a published net, or one of another length where options say so."""
    import haiku as hk

    def forward(images, is_training):
        return getattr(hk.nets, name)(num_classes=10, **options)(images, is_training)

    return hk.transform_with_state(forward), (IMAGES, True), {}


def keras_net(name, short=False):
    """Return a published net, or with the fewest blocks that have all its parts."""
    import keras

    keras.utils.set_random_seed(0)
    net = _short(name) if short else getattr(keras.applications, name)
    model = net(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None)
    return model, (IMAGES,), {"kwargs": {"training": True}}


def _short(name):
    from keras.src.applications import convnext, efficientnet_v2, resnet

    def two_stages(x):
        x = resnet.stack_residual_blocks_v2(x, 64, 2, name="conv2")
        return resnet.stack_residual_blocks_v2(x, 128, 2, stride1=1, name="conv3")

    return {
        "ResNet50V2": partial(resnet.ResNet, two_stages, preact=True, use_bias=True),
        "EfficientNetV2B0": partial(
            efficientnet_v2.EfficientNetV2,
            width_coefficient=1.0,
            depth_coefficient=0.1,
            default_size=224,
            blocks_args=efficientnet_v2.DEFAULT_BLOCKS_ARGS["efficientnetv2-b0"],
        ),
        "ConvNeXtTiny": partial(convnext.ConvNeXt, [1] * 4, [96, 192, 384, 768]),
    }[name]


def keras_hub_bert(layers=2):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    model = keras_hub.models.BertBackbone(
        vocabulary_size=64,
        num_layers=layers,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=16,
    )
    inputs = {"token_ids": TOKENS, "segment_ids": jnp.zeros((2, 16), jnp.int32)}
    inputs["padding_mask"] = jnp.ones((2, 16), jnp.int32)
    return model, (inputs,), {"kwargs": {"training": True}}


def flowjax_flow(layers=4):
    """Masked autoregressive flow (Papamakarios et al., 2017, arXiv:1705.07057)."""
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow

    flow = masked_autoregressive_flow(
        KEY, base_dist=Normal(jnp.zeros(4)), flow_layers=layers, nn_width=16
    )
    return (lambda flow, x: flow.log_prob(x)), (flow, jax.ShapeDtypeStruct((8, 4), "float32")), {}


def lstm_scan():
    import equinox as eqx

    def last_state(cell, sequences):
        def run(sequence):
            start = jnp.zeros(cell.hidden_size), jnp.zeros(cell.hidden_size)
            return jax.lax.scan(lambda state, x: (cell(x, state), None), start, sequence)[0][0]

        return jax.vmap(run)(sequences)

    cell = eqx.nn.LSTMCell(16, 32, key=KEY)
    return last_state, (cell, jax.ShapeDtypeStruct((8, 20, 16), jnp.float32)), {}


def raw_jax():
    def forward(params, x):
        for w, b in zip(params["w"], params["b"], strict=True):
            x = jnp.tanh(x @ w + b)
        return x @ params["out"]

    keys = jax.random.split(KEY, 6)
    weights = [jax.random.normal(key, (16, 16)) / 4 for key in keys]
    params = {"w": weights[:5], "b": [jnp.zeros(16)] * 5, "out": weights[5]}
    return forward, (params, VECTORS), {}


ZOO = {
    "equinox MLP": equinox_mlp,
    "linen transformer": linen_transformer,
    "nnx CNN": nnx_cnn,
    "haiku ResNet50": partial(haiku_net, "ResNet50"),
    "haiku MobileNetV1": partial(haiku_net, "MobileNetV1"),
    "keras ResNet50V2": partial(keras_net, "ResNet50V2"),
    "keras EfficientNetV2B0": partial(keras_net, "EfficientNetV2B0"),
    "keras ConvNeXtTiny": partial(keras_net, "ConvNeXtTiny"),
    "keras hub transformer": keras_hub_bert,
    "flowjax flow": flowjax_flow,
    "LSTM scan": lstm_scan,
    "raw JAX": raw_jax,
}
# The same with each kind of block once: compiled in a third of the time.
SHORT = ZOO | {
    "haiku ResNet50": partial(haiku_net, "ResNet", blocks_per_group=(1, 1, 1, 1)),
    "haiku MobileNetV1": partial(
        haiku_net, "MobileNetV1", strides=(1, 2, 1, 2), channels=(64, 128, 128, 256)
    ),
    "keras ResNet50V2": partial(keras_net, "ResNet50V2", short=True),
    "keras EfficientNetV2B0": partial(keras_net, "EfficientNetV2B0", short=True),
    "keras ConvNeXtTiny": partial(keras_net, "ConvNeXtTiny", short=True),
    "keras hub transformer": partial(keras_hub_bert, layers=1),
    "flowjax flow": partial(flowjax_flow, layers=2),
}
