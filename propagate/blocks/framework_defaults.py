"""What PyTorch, Keras, Flax and Haiku draw the weights of recurrent layers from, by default."""

import math
from typing import Literal, NamedTuple

import jax

from propagate.distributions import ORTHOGONAL, Base
from propagate.initializers import Initializer, Scale, initializer
from propagate.types import Array

Defaults = Literal["none", "torch", "keras", "flax", "haiku"]


class _Inits(NamedTuple):
    """What a framework draws: weights on the input, on the state, biases, and a forget bias."""

    input: Initializer
    recurrent: Initializer
    bias: float = 0.0  # factor on the bias of the first; PyTorch adds two
    forget: float = 0.0


def framework_inits(defaults: Defaults, gates: int) -> _Inits:
    """Return what a framework draws for a cell of so many gates: 1 an RNN, 3 a GRU, 4 an LSTM.

    Source: the frameworks' own code.
    """
    return {"torch": _torch, "keras": _keras, "flax": _flax, "haiku": _haiku}[defaults](gates)


def _torch(gates: int) -> _Inits:
    return _Inits(initializer("torch"), initializer("torch"), bias=math.sqrt(2))


def _keras(gates: int) -> _Inits:
    """Keras draws one (n, gates·n) matrix for all gates: here, the share of one gate."""
    glorot = math.sqrt(2 / (1 + gates)) * initializer("keras")
    return _Inits(glorot, _block_of(gates), forget=float(gates == 4))


def _block_of(gates: int) -> Initializer:
    def sample(key: Array, shape: tuple[int, ...], dtype) -> Array:
        wide = jax.nn.initializers.orthogonal()(key, (shape[0], gates * shape[1]), dtype)
        return wide[:, : shape[1]]

    base = Base(f"orthogonal_of_{gates}", sample, lambda n, m: (0.0, 1 / (gates * m)))
    return Initializer(base.name, base if gates > 1 else ORTHOGONAL, Scale(1.0))


def _flax(gates: int) -> _Inits:
    return _Inits(initializer("flax"), initializer("orthogonal"))


def _haiku(gates: int) -> _Inits:
    """One Linear on (x, h), of twice the fan_in, in an LSTM; two in an RNN; the GRU's are
    truncated normals whose variance is put right."""
    if gates == 3:
        return _Inits(initializer("flax"), initializer("flax"))
    linear = (math.sqrt(0.5) if gates == 4 else 1.0) * initializer("haiku")
    return _Inits(linear, linear, forget=float(gates == 4))
