"""What planted faults are built with: one forward pass in six frameworks, and their register.

`net(framework, weights, forward, x)` returns `(model, inputs, options)`; `forward(dense, x)` calls
the i-th linear map as `dense(i, x)`. Its parameters are called `layers.i.kernel`, `layer_i.w` and
so on, as frameworks do: `layer(i)` is a pattern for all of them.
"""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp

from corpus import data

WIDTH, BATCH, CULPRIT = 64, 64, 5
FINE, STEEP, VANISHED = 2.6, 1.5, 4.0
"""Decades over the whole depth that are fine, and by which one layer may differ."""


def layer(*numbers):
    """Return a pattern for the names of some layers' parameters and sites."""
    return rf"\blayers?[._]({'|'.join(map(str, numbers))})\b"


def net(framework, weights, forward, x, **options):
    """Return a model of one framework with weights [(kernel, bias)]; kernels act from the right."""
    model, inputs, own = _BUILDERS[framework](weights, forward)
    return model, (*inputs, x), own | options


def _function(weights, forward):
    params = {"layers": [{"kernel": w, "bias": b} for w, b in weights]}

    def model(params, x):
        layers = params["layers"]
        return forward(lambda i, x: x @ layers[i]["kernel"] + layers[i]["bias"], x)

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


def zeros(kernels):
    """Return the kernels with biases of zero."""
    return [(w, jnp.zeros(w.shape[1], w.dtype)) for w in kernels]


ANY = layer(r"\d+")


class Fault(NamedTuple):
    """A planted fault.

    Attributes:
        kind: what is wrong, one of about fifteen.
        build: from the strength, in thresholds, to `(model, inputs, options)`.
        verdicts: words that are right; empty where any is.
        place: a pattern for the site or the parameter of the finding.
        graded: whether strengths differ; else it is only there, or not.
    """

    kind: str
    build: Callable
    verdicts: tuple[str, ...]
    place: str
    graded: bool = True

    def strengths(self, wanted: list[float]) -> list[float]:
        """Return those of the wanted strengths at which it is a model of its own."""
        return wanted if self.graded else [k for k in wanted if k in (0, 2)]


FAULTS: dict[str, Fault] = {}


def plant(kind, frameworks, verdicts, place, graded=True, **options):
    """Register `build(framework, strength, **options)` for each framework."""

    def add(build):
        for framework in frameworks.split():
            made = functools.partial(build, framework, **options)
            words = tuple(verdicts.split())
            FAULTS[f"{kind}, {framework}"] = Fault(kind, made, words, place, graded)
        return build

    return add


def kernels(count, gain=2.0, width=WIDTH, dtype=jnp.float32):
    """Return Gaussian kernels of variance gain / width."""
    keys = jax.random.split(data.KEY, count)
    return [
        (jax.random.normal(k, (width, width)) * (gain / width) ** 0.5).astype(dtype) for k in keys
    ]


def stack(framework, weights, phi=jax.nn.relu, change=lambda i, x: x, **options):
    """Return a plain stack whose last layer is linear; `change(i, x)` acts behind layer i."""

    def forward(dense, x):
        for i in range(len(weights)):
            x = change(i, dense(i, x))
            x = x if i == len(weights) - 1 else phi(x)
        return x

    return net(framework, weights, forward, data.vectors(WIDTH, BATCH), **options)


def residual(framework, weights, scale=lambda block: 1.0):
    """Return x + scale W2 relu(W1 x)."""

    def forward(dense, x):
        for block in range(len(weights) // 2):
            branch = dense(2 * block + 1, jax.nn.relu(dense(2 * block, x)))
            x = x + scale(block) * branch
        return x

    return net(framework, weights, forward, data.vectors(WIDTH, BATCH))


def branches(blocks):
    """Return kernels of branches that are as large as what comes in."""
    return [w * g for w, g in zip(kernels(2 * blocks), (1.0, 0.5**0.5) * blocks, strict=True)]
