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
from dense_nets import build

from corpus import data

WIDTH, BATCH, CULPRIT = 64, 64, 5
FINE, STEEP, VANISHED = 2.6, 1.5, 4.0
"""Decades over the whole depth that are fine, and by which one layer may differ."""


def layer(*numbers):
    """Return a pattern for the names of some layers' parameters and sites."""
    return rf"\blayers?[._]({'|'.join(map(str, numbers))})\b"


def net(framework, weights, forward, x, **options):
    """Return a model of one framework with weights [(kernel, bias)]; kernels act from the right."""
    model, inputs, own = build(framework, weights, forward)
    return model, (*inputs, x), own | options


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
