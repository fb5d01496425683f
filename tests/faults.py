"""Twelve-layer networks with one fault in layer or block 5, and healthy twins, in every framework.

The plain ones are ReLU networks of width 64 with He weights and a linear last layer. The residual
ones are $x + a W_2 relu(W_1 x)$ with $a = 1/sqrt(12)$, which multiplies the variance by e.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import dense_nets
import jax
import jax.numpy as jnp

DEPTH, WIDTH, BATCH, CULPRIT = 12, 64, 64, 5
FRAMEWORKS = ("function", "linen", "nnx", "equinox", "haiku", "keras")
FAULTS = ("scaled", "residual", "sigmoid", "dead")
# A rule reads a record, whose activations two ways of writing name: jax.nn's and Keras's. The other
# frameworks differ in their paths and in the jaxpr around a layer, in a chain or in a branch.
PLANTED = [
    (framework, fault)
    for framework in FRAMEWORKS
    for fault in (FAULTS if framework in ("function", "keras") else ("scaled", "residual"))
]
HEALTHY = dict.fromkeys(FAULTS) | {"residual": "residual_healthy"}  # fault: twin


def build(framework, fault):
    """Return (model, inputs, options, path): what `pure` takes, and the culprit's weight."""
    index = 2 * CULPRIT + 1 if residual(fault) else CULPRIT
    inputs = (jax.random.normal(jax.random.key(1), (BATCH, WIDTH)),)
    if framework == "keras":
        return _keras(fault, weights(fault)), inputs, {}, PATHS[framework].format(index)
    run = lambda dense, x: forward(dense, x, fault)  # noqa: E731
    model, more_inputs, options = dense_nets.build(framework, weights(fault), run)
    return model, (*more_inputs, *inputs), options, PATHS[framework].format(index)


def residual(fault):
    return fault in ("residual", "residual_healthy")


def weights(fault):
    """(kernel, bias) of every linear map, two to a residual block; kernels act from the right."""
    keys = jax.random.split(jax.random.key(0), 2 * DEPTH if residual(fault) else DEPTH)
    gains = [2.0, 1.0] * DEPTH if residual(fault) else [2.0] * DEPTH
    kernels = [
        jax.random.normal(key, (WIDTH, WIDTH)) * (gain / WIDTH) ** 0.5
        for key, gain in zip(keys, gains, strict=False)
    ]
    biases = [jnp.zeros(WIDTH)] * len(kernels)
    if fault == "scaled":
        kernels[CULPRIT] *= 0.1
    if fault == "dead":
        biases[CULPRIT] = jnp.full(WIDTH, -20.0)
    return list(zip(kernels, biases, strict=True))


def forward(dense, x, fault, nn=jax.nn):
    """`dense(i, x)` is the i-th linear map of a framework."""
    if residual(fault):
        for block in range(DEPTH):
            forgets = fault == "residual" and block == CULPRIT
            branch = dense(2 * block + 1, nn.relu(dense(2 * block, x)))
            x = x + branch * (1.0 if forgets else DEPTH**-0.5)
        return x
    for layer in range(DEPTH - 1):
        phi = nn.sigmoid if fault == "sigmoid" and layer == CULPRIT else nn.relu
        x = phi(dense(layer, x))
    return dense(DEPTH - 1, x)


def _keras(fault, weights):
    """Return a functional model, whose variables have no path but their layers'."""
    import keras

    layers = [keras.layers.Dense(WIDTH, name=f"layer_{i}") for i in range(len(weights))]
    inputs = keras.Input((WIDTH,))
    outputs = forward(lambda i, x: layers[i](x), inputs, fault, keras.ops)
    for layer, pair in zip(layers, weights, strict=True):
        layer.set_weights(pair)
    return keras.Model(inputs, outputs)


PATHS = {
    "function": "layers.{}.kernel",
    "linen": "layer_{}.kernel",
    "nnx": "layers.{}.kernel",
    "equinox": "layers.{}.weight",
    "haiku": "layer_{}.w",
    "keras": "layer_{}.kernel",
}
