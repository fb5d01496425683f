"""Twelve-layer networks with one fault in layer or block 5, and healthy twins, in every framework.

The plain ones are ReLU networks of width 64 with He weights and a linear last layer. The residual
ones are $x + a W_2 relu(W_1 x)$ with $a = 1/sqrt(12)$, which multiplies the variance by e.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp

DEPTH, WIDTH, BATCH, CULPRIT = 12, 64, 64, 5
FRAMEWORKS = ("function", "linen", "nnx", "equinox", "haiku", "keras")
FAULTS = ("scaled", "residual", "sigmoid", "dead")
HEALTHY = dict.fromkeys(FAULTS) | {"residual": "residual_healthy"}  # fault: twin


def build(framework, fault):
    """Return (model, inputs, options, path): what `pure` takes, and the culprit's weight."""
    index = 2 * CULPRIT + 1 if residual(fault) else CULPRIT
    inputs = (jax.random.normal(jax.random.key(1), (BATCH, WIDTH)),)
    model, more_inputs, options, path = _BUILDERS[framework](fault, weights(fault))
    return model, (*more_inputs, *inputs), options, path.format(index)


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


def _function(fault, weights):
    params = {"layers": [{"kernel": w, "bias": b} for w, b in weights]}

    def model(params, x):
        layers = params["layers"]
        return forward(lambda i, x: x @ layers[i]["kernel"] + layers[i]["bias"][None], x, fault)

    return model, (params,), {}, "layers.{}.kernel"


def _linen(fault, weights):
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return forward(lambda i, x: nn.Dense(WIDTH, name=f"layer_{i}")(x), x, fault)

    params = {f"layer_{i}": {"kernel": w, "bias": b} for i, (w, b) in enumerate(weights)}
    return Net(), (), {"variables": {"params": params}}, "layer_{}.kernel"


def _nnx(fault, weights):
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in weights])

        def __call__(self, x):
            return forward(lambda i, x: self.layers[i](x), x, fault)

    net = Net(nnx.Rngs(0))
    for layer, (w, b) in zip(net.layers, weights, strict=True):
        layer.kernel, layer.bias = nnx.Param(w), nnx.Param(b)
    return net, (), {}, "layers.{}.kernel"


def _equinox(fault, weights):
    import equinox as eqx

    class Net(eqx.Module):
        layers: list

        def __call__(self, x):
            return forward(lambda i, x: self.layers[i](x), x, fault)

    def linear(w, b):
        layer = eqx.nn.Linear(WIDTH, WIDTH, key=jax.random.key(0))
        return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (w.T, b))

    return Net([linear(w, b) for w, b in weights]), (), {"vmap": True}, "layers.{}.weight"


def _haiku(fault, weights):
    import haiku as hk

    def net(x):
        return forward(lambda i, x: hk.Linear(WIDTH, name=f"layer_{i}")(x), x, fault)

    params = {f"layer_{i}": {"w": w, "b": b} for i, (w, b) in enumerate(weights)}
    return hk.transform(net), (), {"variables": params}, "layer_{}.w"


def _keras(fault, weights):
    import keras

    layers = [keras.layers.Dense(WIDTH, name=f"layer_{i}") for i in range(len(weights))]
    inputs = keras.Input((WIDTH,))
    outputs = forward(lambda i, x: layers[i](x), inputs, fault, keras.ops)
    for layer, pair in zip(layers, weights, strict=True):
        layer.set_weights(pair)
    return keras.Model(inputs, outputs), (), {}, "layer_{}.kernel"


_BUILDERS = {
    "function": _function,
    "linen": _linen,
    "nnx": _nnx,
    "equinox": _equinox,
    "haiku": _haiku,
    "keras": _keras,
}
