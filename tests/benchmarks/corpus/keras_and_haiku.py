"""Healthy published models of Keras, KerasHub, Haiku and Flax at their defaults, small.

Every builder returns `(model, inputs, options)`, to be called as
`pp.diagnose(model, *inputs, key=key, **options)`.
"""

import os
from functools import partial

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import zoo

from corpus import data

TRAINING = {"kwargs": {"training": True}}


def application(name, size=64, feed=data.images, **options):
    import keras

    keras.utils.set_random_seed(0)
    net = getattr(keras.applications, name)
    shape = {"input_shape": (size, size, 3), "classes": 10, "classifier_activation": None}
    model = net(weights=None, **shape, **options)
    return model, (feed(size),), TRAINING | data.classified()


def hub(name, inputs=("token_ids", "padding_mask"), **options):
    """A transformer of KerasHub with 2 layers of width 32."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    size = {"vocabulary_size": 64, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64}
    model = getattr(keras_hub.models, name)(**size | options)
    ones = jnp.ones((data.BATCH, data.LENGTH), jnp.int32)
    feeds = {n: ones * 0 if "segment" in n else ones for n in inputs}
    feeds |= {n: data.tokens() for n in inputs if n.endswith("token_ids")}
    return model, (feeds,), TRAINING


def hub_images(name, **options):
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    return getattr(keras_hub.models, name)(**options), (data.images(32),), TRAINING


GROUPED = {"num_query_heads": 4, "num_key_value_heads": 2}
HEADS = {"num_heads": 4}
BOTH = ("encoder_token_ids", "encoder_padding_mask", "decoder_token_ids", "decoder_padding_mask")
SEGMENTS = ("token_ids", "segment_ids", "padding_mask")
KERAS_EXAMPLES = {}


def keras_example(build):
    """Register a model that a Keras tutorial builds layer by layer."""

    def made():
        import keras

        keras.utils.set_random_seed(0)
        return build(keras, keras.layers)

    KERAS_EXAMPLES[f"keras {build.__name__.replace('_', ' ')}"] = made
    return made


@keras_example
def MNIST_convnet(keras, layers):
    """keras.io/examples/vision/mnist_convnet."""
    net = [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()]
    net += [layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    net += [layers.Dropout(0.5), layers.Dense(10)]
    return keras.Sequential(net), (data.digits(),), TRAINING | data.classified()


@keras_example
def bidirectional_LSTM(keras, layers):
    """keras.io/examples/nlp/bidirectional_lstm_imdb."""
    lstm = lambda **options: layers.Bidirectional(layers.LSTM(64, **options))  # noqa: E731
    net = [layers.Embedding(64, 128), lstm(return_sequences=True), lstm(), layers.Dense(10)]
    return keras.Sequential(net), (data.tokens(32),), TRAINING | data.classified()


@keras_example
def autoencoder(keras, layers):
    """keras.io/examples/vision/autoencoder."""
    conv, up = partial(layers.Conv2D, padding="same"), layers.Conv2DTranspose
    net = [conv(32, 3, activation="relu"), layers.MaxPooling2D(padding="same")]
    net += [conv(32, 3, activation="relu"), layers.MaxPooling2D(padding="same")]
    net += [up(32, 3, strides=2, activation="relu", padding="same") for _ in range(2)]
    net += [conv(1, 3)]
    loss = {"loss": data.binary_cross_entropy, "labels": data.digits()}
    return keras.Sequential(net), (data.digits(),), TRAINING | loss


@keras_example
def DCGAN_discriminator(keras, layers):
    """keras.io/examples/generative/dcgan_overriding_train_step."""
    net = []
    for width in (64, 128, 128):
        net += [layers.Conv2D(width, 4, strides=2, padding="same"), layers.LeakyReLU(0.2)]
    net += [layers.Flatten(), layers.Dropout(0.2), layers.Dense(1)]
    loss = {"loss": data.binary_cross_entropy, "labels": jnp.ones((data.BATCH, 1))}
    return keras.Sequential(net), (data.images(64),), TRAINING | loss


@keras_example
def DCGAN_generator(keras, layers):
    net = [layers.Dense(8 * 8 * 128), layers.Reshape((8, 8, 128))]
    for width in (128, 256, 512):
        net += [layers.Conv2DTranspose(width, 4, strides=2, padding="same"), layers.LeakyReLU(0.2)]
    net += [layers.Conv2D(3, 5, padding="same", activation="sigmoid")]
    return keras.Sequential(net), (data.vectors(128, data.BATCH),), TRAINING


@keras_example
def Xception_UNet(keras, layers):
    """keras.io/examples/vision/oxford_pets_image_segmentation, two of its four levels."""
    inputs = keras.Input((32, 32, 3))
    norm, relu = layers.BatchNormalization, layers.ReLU
    x = relu()(norm()(layers.Conv2D(32, 3, strides=2, padding="same")(inputs)))
    before = x
    for width in (64, 128):
        for _ in range(2):
            x = norm()(layers.SeparableConv2D(width, 3, padding="same")(relu()(x)))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        before = layers.Conv2D(width, 1, strides=2, padding="same")(before)
        x = before = layers.add([x, before])
    for width in (128, 64, 32):
        for _ in range(2):
            x = norm()(layers.Conv2DTranspose(width, 3, padding="same")(relu()(x)))
        x = layers.UpSampling2D(2)(x)
        before = layers.Conv2D(width, 1, padding="same")(layers.UpSampling2D(2)(before))
        x = before = layers.add([x, before])
    outputs = layers.Conv2D(3, 3, padding="same")(x)
    labels = jax.random.randint(jax.random.key(6), (data.BATCH, 32, 32), 0, 3)
    options = {"loss": data.cross_entropy, "labels": labels}
    return keras.Model(inputs, outputs), (data.images(32),), TRAINING | options


HAIKU = {}


def haiku_example(build):
    """Register a Haiku model; `build(hk)` returns (function, inputs, options)."""

    def made():
        import haiku as hk

        forward, inputs, options = build(hk)
        return hk.transform_with_state(forward), inputs, options

    HAIKU[f"haiku {build.__name__.replace('_', ' ')}"] = made
    return made


@haiku_example
def LeNet_300_100(hk):
    """examples/mnist.py."""
    net = lambda x: hk.Sequential([hk.Flatten(), hk.nets.MLP([300, 100, 10])])(x)  # noqa: E731
    return net, (data.digits(),), data.classified()


@haiku_example
def VAE(hk):
    """examples/vae.py: latents 10, hidden 512."""

    def forward(x):
        h = jax.nn.relu(hk.Linear(512)(hk.Flatten()(x)))
        mean, log_stddev = hk.Linear(10)(h), hk.Linear(10)(h)
        z = mean + jnp.exp(log_stddev) * jax.random.normal(hk.next_rng_key(), mean.shape)
        logits = hk.Linear(784)(jax.nn.relu(hk.Linear(512)(z)))
        stddev = jnp.exp(log_stddev)
        kl = 0.5 * jnp.sum(-2 * log_stddev - 1.0 + stddev**2 + mean**2, -1)
        return logits.reshape(x.shape), kl

    loss = lambda out, x: data.binary_cross_entropy(out[0], x) + out[1].mean()  # noqa: E731
    return forward, (data.digits(),), {"loss": loss, "labels": data.digits()}


@haiku_example
def VQVAE(hk):
    """examples/vqvae_example.ipynb: encoder, residual stack, quantiser, decoder; CIFAR-10."""

    def stack(h):
        for _ in range(2):
            r = hk.Conv2D(32, 3)(jax.nn.relu(h))
            h = h + hk.Conv2D(128, 1)(jax.nn.relu(r))
        return jax.nn.relu(h)

    def forward(x):
        h = jax.nn.relu(hk.Conv2D(64, 4, stride=2)(x))
        h = stack(hk.Conv2D(128, 3)(jax.nn.relu(hk.Conv2D(128, 4, stride=2)(h))))
        quantiser = hk.nets.VectorQuantizer(64, 512, commitment_cost=0.25)
        codes = quantiser(hk.Conv2D(64, 1)(h), is_training=True)
        h = stack(hk.Conv2D(128, 3)(codes["quantize"]))
        h = jax.nn.relu(hk.Conv2DTranspose(64, 4, stride=2)(h))
        return hk.Conv2DTranspose(3, 4, stride=2)(h), codes["loss"]

    loss = lambda out, x: jnp.mean((out[0] - x) ** 2) / 0.06 + out[1]  # noqa: E731
    x = data.images(32) * 0.25
    return forward, (x,), {"loss": loss, "labels": x}


@haiku_example
def char_LSTM(hk):
    """examples/char_lstm: one-hot characters, two LSTMs of 256 with skip connections."""

    def forward(words):
        x = jax.nn.one_hot(words.T, 64)
        core = hk.DeepRNN([hk.LSTM(128), jax.nn.relu, hk.LSTM(128), hk.nets.MLP([128, 64])])
        out, _ = hk.dynamic_unroll(core, x, core.initial_state(words.shape[0]))
        return out.swapaxes(0, 1)

    return forward, (data.tokens(),), data.next_token()


@haiku_example
def transformer(hk):
    """examples/transformer/model.py: pre-LN, weights of variance 2 / layers."""

    def forward(words):
        init = hk.initializers.VarianceScaling(2 / 3)
        norm = lambda x: hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)  # noqa: E731
        x = hk.Embed(64, 64, w_init=hk.initializers.TruncatedNormal(stddev=0.02))(words)
        x += hk.get_parameter("at", x.shape[1:], init=hk.initializers.TruncatedNormal(stddev=0.02))
        mask = jnp.tril(jnp.ones((1, 1, x.shape[1], x.shape[1])))
        for _ in range(3):
            attend = hk.MultiHeadAttention(4, 16, model_size=64, w_init=init)
            h = norm(x)
            x += hk.dropout(hk.next_rng_key(), 0.1, attend(h, h, h, mask=mask))
            wide = jax.nn.gelu(hk.Linear(256, w_init=init)(norm(x)))
            x += hk.dropout(hk.next_rng_key(), 0.1, hk.Linear(64, w_init=init)(wide))
        return hk.Linear(64)(norm(x))

    return forward, (data.tokens(),), data.next_token()


@haiku_example
def IMPALA(hk):
    """examples/impala/haiku_nets.py: the shallow Atari net, with policy and value."""

    def forward(x):
        for width, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = jax.nn.relu(hk.Conv2D(width, size, stride, padding="VALID")(x))
        h = jax.nn.relu(hk.Linear(256)(hk.Flatten()(x)))
        return hk.Linear(6)(h), hk.Linear(1)(h)

    return forward, (jnp.clip(0.5 + 0.25 * data.images(64, 4), 0.0, 1.0),), {}


def haiku_images(name, **options):
    model, _, _ = zoo.haiku_net(name, **options)
    return model, (data.images(32), True), data.classified()


HUB = {
    "BERT": partial(hub, "BertBackbone", SEGMENTS, **HEADS),
    "ALBERT": partial(hub, "AlbertBackbone", SEGMENTS, embedding_dim=16, **HEADS),
    "DistilBERT": partial(hub, "DistilBertBackbone", **HEADS),
    "RoBERTa": partial(hub, "RobertaBackbone", **HEADS),
    "GPT-2": partial(hub, "GPT2Backbone", **HEADS),
    "GPT-NeoX": partial(hub, "GPTNeoXBackbone", **HEADS),
    "OPT": partial(hub, "OPTBackbone", **HEADS),
    "BLOOM": partial(hub, "BloomBackbone", **HEADS),
    "FNet": partial(hub, "FNetBackbone", ("token_ids", "segment_ids")),
    "Llama": partial(hub, "LlamaBackbone", **GROUPED),
    "Mistral": partial(hub, "MistralBackbone", **GROUPED),
    "Mixtral": partial(hub, "MixtralBackbone", num_experts=4, **GROUPED),
    "Gemma": partial(hub, "GemmaBackbone", head_dim=8, **GROUPED),
    "Qwen3": partial(hub, "Qwen3Backbone", head_dim=8, **GROUPED),
    "T5": partial(hub, "T5Backbone", BOTH, **HEADS),
    "ViT": partial(
        hub_images,
        "ViTBackbone",
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=64,
    ),
    "ResNetV2": partial(
        hub_images,
        "ResNetBackbone",
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[2, 2],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        use_pre_activation=True,
        image_shape=(32, 32, 3),
    ),
}
RESCALED = ("MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0", "EfficientNetV2B0")
APPLICATIONS = ("MobileNet", "MobileNetV2", *RESCALED, "VGG16", "ResNet50", "ResNet50V2")
HEAVY = {
    "haiku MobileNetV1": partial(haiku_images, "MobileNetV1"),
    "haiku ResNet18": partial(haiku_images, "ResNet18"),
    "haiku ResNet34, V2": partial(haiku_images, "ResNet34", resnet_v2=True),
    "haiku ResNet50": partial(haiku_images, "ResNet50"),
    **{
        f"keras {name}": partial(
            application, name, feed=data.pixels if name in RESCALED else data.images
        )
        for name in APPLICATIONS
    },
    "keras ConvNeXtTiny": partial(application, "ConvNeXtTiny", feed=data.pixels),
    "keras Xception": partial(application, "Xception", size=71),
    "keras InceptionV3": partial(application, "InceptionV3", size=75),
    "keras NASNetMobile": partial(application, "NASNetMobile", size=32),
    "keras DenseNet121": partial(application, "DenseNet121", size=32),
}
"""Models of hundreds of sites, whose operations take from half a minute to minutes to compile."""
MODELS = KERAS_EXAMPLES | HAIKU | {f"keras hub {n}": build for n, build in HUB.items()} | HEAVY
