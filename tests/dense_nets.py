"""One forward pass of linear maps in six frameworks, with given weights.

`forward(dense, x)` calls the i-th linear map as `dense(i, x)`. Parameters are called
`layers.i.kernel`, `layer_i.w` and so on, as frameworks do.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax


def build(framework, weights, forward):
    """Return (model, inputs, options) with weights [(kernel, bias)], which act from the right."""
    return _BUILDERS[framework](weights, forward)


def _function(weights, forward):
    params = {"layers": [{"kernel": w, "bias": b} for w, b in weights]}

    def model(params, x):
        layers = params["layers"]
        return forward(
            lambda i, x: x @ layers[i]["kernel"] + layers[i]["bias"][(None,) * (x.ndim - 1)], x
        )

    return model, (params,), {}


def _linen(weights, forward):
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            # dtype=None: computed in the dtype of input and weights, half precision included
            layers = [nn.Dense(w.shape[1], name=f"layer_{i}") for i, (w, _) in enumerate(weights)]
            return forward(lambda i, x: layers[i](x), x)

    params = {f"layer_{i}": {"kernel": w, "bias": b} for i, (w, b) in enumerate(weights)}
    return Net(), (), {"variables": {"params": params}}


def _nnx(weights, forward):
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(*w.shape, rngs=rngs) for w, _ in weights])

        def __call__(self, x):
            return forward(lambda i, x: self.layers[i](x), x)

    made = Net(nnx.Rngs(0))
    for one, (w, b) in zip(made.layers, weights, strict=True):
        one.kernel, one.bias = nnx.Param(w), nnx.Param(b)
    return made, (), {}


def _equinox(weights, forward):
    import equinox as eqx

    class Net(eqx.Module):
        layers: list

        def __call__(self, x):
            def dense(i, x):  # a Linear takes vectors
                flat = x.reshape(-1, x.shape[-1])
                return jax.vmap(self.layers[i])(flat).reshape(*x.shape[:-1], -1)

            return forward(dense, x)

    def linear(w, b):
        made = eqx.nn.Linear(*w.shape, key=jax.random.key(0))
        return eqx.tree_at(lambda layer: (layer.weight, layer.bias), made, (w.T, b))

    return Net([linear(w, b) for w, b in weights]), (), {"vmap": True}


def _haiku(weights, forward):
    import haiku as hk

    def net(x):
        layers = [hk.Linear(w.shape[1], name=f"layer_{i}") for i, (w, _) in enumerate(weights)]
        return forward(lambda i, x: layers[i](x), x)

    params = {f"layer_{i}": {"w": w, "b": b} for i, (w, b) in enumerate(weights)}
    return hk.transform(net), (), {"variables": params}


def _keras(weights, forward):
    import keras

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = [
                keras.layers.Dense(w.shape[1], name=f"layer_{i}")
                for i, (w, _) in enumerate(weights)
            ]

        def call(self, x):
            return forward(lambda i, x: self.dense[i](x), x)

    made = Net()
    for one, (w, b) in zip(made.dense, weights, strict=True):
        one.build((None, w.shape[0]))
        one.set_weights([w, b])
    made.built = True
    return made, (), {}


_BUILDERS = {
    "function": _function,
    "linen": _linen,
    "nnx": _nnx,
    "equinox": _equinox,
    "haiku": _haiku,
    "keras": _keras,
}
