"""What the models of the calibration are fed: small inputs, scaled as their authors scale them."""

import functools

import jax
import jax.numpy as jnp

KEY = jax.random.key(0)
BATCH, CLASSES, VOCABULARY, LENGTH = 8, 10, 64, 16


@functools.cache
def images(size: int, channels: int = 3, batch: int = BATCH) -> jax.Array:
    """Return smooth images with some noise, of mean 0 and variance 1 over all of them."""
    smooth, noise = jax.random.split(jax.random.key(1))
    coarse = jax.random.normal(smooth, (batch, 4, 4, channels))
    shape = (batch, size, size, channels)
    x = jax.image.resize(coarse, shape, "cubic") + 0.2 * jax.random.normal(noise, shape)
    return (x - x.mean()) / x.std()


def pixels(size: int) -> jax.Array:
    """Return the images as they are stored, from 0 to 255."""
    return jnp.clip(127.5 + 60.0 * images(size), 0.0, 255.0)


@functools.cache
def digits(size: int = 28, batch: int = BATCH) -> jax.Array:
    """Return scanned digits from 0 to 1, (batch, size, size, 1)."""
    from sklearn.datasets import load_digits

    small = jnp.asarray(load_digits().images[:batch], "float32")[..., None] / 16.0
    return jnp.clip(jax.image.resize(small, (batch, size, size, 1), "linear"), 0.0, 1.0)


def vectors(width: int, batch: int = 64) -> jax.Array:
    """Return Gaussian vectors."""
    return jax.random.normal(jax.random.key(2), (batch, width))


def points(width: int, batch: int = 64) -> jax.Array:
    """Return coordinates between -1 and 1."""
    return jax.random.uniform(jax.random.key(2), (batch, width), minval=-1.0, maxval=1.0)


def tokens(length: int = LENGTH, batch: int = BATCH) -> jax.Array:
    """Return words of a sentence."""
    return jax.random.randint(jax.random.key(3), (batch, length), 0, VOCABULARY)


def sequences(length: int, width: int, batch: int = BATCH) -> jax.Array:
    """Return time series: sums of sines, of variance 1."""
    phase, speed = jax.random.uniform(jax.random.key(4), (2, batch, 1, width))
    t = jnp.arange(length)[None, :, None]
    return jnp.sqrt(2.0) * jnp.sin(6.28 * phase + (0.1 + speed) * t)


def ring_graph(nodes: int = 32, more: int = 32) -> jax.Array:
    """Return the adjacency matrix of a ring with random edges across it."""
    a = jnp.roll(jnp.eye(nodes), 1, 0)
    ends = jax.random.randint(jax.random.key(5), (2, more), 0, nodes)
    a = a.at[ends[0], ends[1]].set(1.0)
    return jnp.clip((a + a.T) * (1 - jnp.eye(nodes)), 0.0, 1.0)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean loss of a classifier."""
    logs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.sum(logs * jax.nn.one_hot(labels, logits.shape[-1]), -1))


def binary_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return the sum over pixels, mean over inputs, of the loss of a decoder."""
    each = jax.nn.softplus(logits) - logits * target
    return jnp.sum(each) / len(logits)


def classified(batch: int = BATCH, classes: int = CLASSES) -> dict:
    """Return the options of `diagnose` for a classifier: its loss and random labels."""
    labels = jax.random.randint(jax.random.key(6), (batch,), 0, classes)
    return {"loss": cross_entropy, "labels": labels}


def next_token(length: int = LENGTH) -> dict:
    """Return the options of `diagnose` for a language model."""
    return {"loss": cross_entropy, "labels": jnp.roll(tokens(length), -1, 1)}
