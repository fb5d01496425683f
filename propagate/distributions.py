"""What weights are drawn from, normal, uniform, orthogonal, …, and the scale of the draws."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from propagate import checks
from propagate.types import Array, Sampler, UnusableInput

TRUNCATED_STD = 0.87962566103423978  # of N(0, 1) cut at +-2
GROWTH = 3.4445, -4.7750, 2.0315  # Jordan et al. (2024): keeps [0, 1] within [0, 1.3]
Mode = Literal["constant", "fan_in", "fan_out", "fan_avg"]


@dataclass(frozen=True)
class Scale:
    """The factor gain / sqrt(n), where n is 1, fan_in, fan_out or their mean."""

    gain: float = 1.0
    mode: Mode = "constant"

    def __post_init__(self) -> None:
        checks.check_choice("mode", self.mode, Mode)
        if not isinstance(self.gain, (int, float)) or not math.isfinite(self.gain):
            raise UnusableInput(f"the scale of an initialiser must be a number, got {self.gain!r}")

    def __call__(self, fan_in: int, fan_out: int) -> float:
        """Return the factor for a matrix of shape (fan_in, fan_out)."""
        fan = {
            "constant": 1,
            "fan_in": fan_in,
            "fan_out": fan_out,
            "fan_avg": (fan_in + fan_out) / 2,
        }
        return self.gain / math.sqrt(fan[self.mode])


class Untuned(Scale):
    """A scale that follows from the activation, times `gain`; theory says which it is."""

    def __call__(self, fan_in: int, fan_out: int) -> float:
        """Raise `UnusableInput`: without an activation there is no scale."""
        raise UnusableInput(
            "the scale of a critical initialiser follows from the activation: it is only defined "
            "within a network; propagate.critical(activation) gives the numbers"
        )


@dataclass(frozen=True)
class Base:
    """A distribution of weight matrices of shape (fan_in, fan_out), before scaling.

    Attributes:
        name: its spelling.
        sample: the sampler, `(key, shape, dtype) -> array`, of shape (…, fan_in, fan_out).
        moments: mean and variance of an entry, as a function of (fan_in, fan_out).
            The default is (0, 1).
        check: raises `UnusableInput` for a shape that it cannot be drawn in.
    """

    name: str
    sample: Sampler
    moments: Callable[[int, int], tuple[float, float]] = lambda fan_in, fan_out: (0.0, 1.0)
    check: Callable[[tuple[int, ...]], None] = lambda shape: None

    @property
    def biases(self) -> "Base":
        """The distribution of the biases that go with such weights."""
        return self if self is UNIFORM else NORMAL


def _uniform(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return jax.random.uniform(key, shape, dtype, -math.sqrt(3.0), math.sqrt(3.0))


def _ones(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.ones(shape, dtype)


def _eye(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return _at_centre(jnp.eye(*shape[-2:], dtype=dtype), shape)


def _orthogonal(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draw from the Haar measure: a QR factorisation on a CPU, a polar one elsewhere.

    Both factors of a Gaussian matrix have that law. Products alone make the second, which an
    accelerator is fast at: 50 factorisations of 256 x 256 take it 48 ms by QR.
    """

    def polar(key: Array) -> Array:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = max(rows, columns), min(rows, columns)
        factor = polar_factor(jax.random.normal(key, tall, dtype))
        return (factor if rows >= columns else factor.T).reshape(shape)

    by_qr = lambda key: jax.nn.initializers.orthogonal()(key, shape, dtype)  # noqa: E731
    return jax.lax.platform_dependent(key, cpu=by_qr, default=polar)


def polar_factor(a: Array) -> Array:
    r"""Return $U = A (A^T A)^{-1/2}$ of a Gaussian matrix (m, n) with m >= n.

    Every step multiplies X by an odd polynomial of its singular values, which all tend to 1. The
    first ten grow small values 3.44 times each; the Newton-Schulz iteration
    $X \to X (3 I - X^T X) / 2$ then squares what is left of the error.
    """
    eye, product = jnp.eye(a.shape[1], dtype=a.dtype), partial(jnp.matmul, precision="highest")

    def grow(_: int, x: Array) -> Array:
        gram = product(x.T, x)
        return product(x, GROWTH[0] * eye + GROWTH[1] * gram + GROWTH[2] * product(gram, gram))

    def refine(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, step = carry
        gram = product(x.T, x)
        return product(x, 1.5 * eye - 0.5 * gram), jnp.max(jnp.abs(gram - eye)), step + 1

    x = a / (1.02 * (math.sqrt(a.shape[0]) + math.sqrt(a.shape[1])))  # singular values below 1
    start = jax.lax.fori_loop(0, 10, grow, x), jnp.ones((), a.dtype), jnp.asarray(0)
    settled = lambda carry: (carry[1] > 1e-4) & (carry[2] < 60)  # noqa: E731
    return jax.lax.while_loop(settled, refine, start)[0]


def _delta_orthogonal(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return _at_centre(_orthogonal(key, shape[-2:], dtype), shape)


def _at_centre(tap: Array, shape: tuple[int, ...]) -> Array:
    """Return a kernel that is zero but for its middle tap."""
    middle = tuple((taps - 1) // 2 for taps in shape[:-2])
    return tap if not middle else jnp.zeros(shape, tap.dtype).at[middle].set(tap)


def _check_delta(shape: tuple[int, ...]) -> None:
    *taps, channels_in, channels_out = shape
    if taps and (channels_in > channels_out or any(k % 2 == 0 for k in taps)):
        raise UnusableInput(
            "delta_orthogonal needs odd kernels and no more inputs than outputs, got a kernel of "
            f"{' x '.join(map(str, taps))} from {channels_in} to {channels_out} channels"
        )


def _orthogonal_moments(fan_in: int, fan_out: int) -> tuple[float, float]:
    return 0.0, 1.0 / max(fan_in, fan_out)


def _eye_moments(fan_in: int, fan_out: int) -> tuple[float, float]:
    mean = 1.0 / max(fan_in, fan_out)
    return mean, mean * (1.0 - mean)


NORMAL = Base("normal", jax.nn.initializers.normal(1.0))
TRUNCATED = Base("truncated_normal", jax.nn.initializers.truncated_normal(1.0 / TRUNCATED_STD))
UNIFORM = Base("uniform", _uniform)
ORTHOGONAL = Base("orthogonal", _orthogonal, _orthogonal_moments)
DELTA = Base("delta_orthogonal", _delta_orthogonal, _orthogonal_moments, _check_delta)
ONES = Base("ones", _ones, lambda fan_in, fan_out: (1.0, 0.0))
EYE = Base("identity", _eye, _eye_moments)


@functools.cache  # one base per sparsity, so that equal initialisers share their draws
def sparse_base(sparsity: float) -> Base:
    """Return Gaussian columns, of which a share of the entries is zero.

    Args:
        sparsity: that share, in [0, 1); ceil(sparsity fan_in) entries of each column are zero.
    """

    def sample(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        values, order = jax.random.split(key)
        flat = (math.prod(shape[:-1]), shape[-1])
        rank = jnp.argsort(jax.random.uniform(order, flat), axis=0)
        kept = (rank >= math.ceil(sparsity * flat[0])).reshape(shape)
        return jnp.where(kept, jax.random.normal(values, shape, dtype), 0)

    def moments(fan_in: int, fan_out: int) -> tuple[float, float]:
        return 0.0, 1.0 - math.ceil(sparsity * fan_in) / fan_in

    return Base(f"sparse_{sparsity:g}", sample, moments)


def unknown_moments(fan_in: int, fan_out: int) -> tuple[float, float]:
    """Return NaN for the mean and the variance: those of a user's function are not known."""
    return math.nan, math.nan
