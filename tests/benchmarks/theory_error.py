"""Theory against simulation, operation by operation, over a broad random range of settings.

    python tests/benchmarks/theory_error.py [settings of each operation, 100 by default]

Relative errors of the variance after an operation and of a gradient's second moment before it,
p50/p90/p99 over settings in percent, beside those that a published study of the same operations
reports for its own formulas (Kedia et al., 2024, arXiv:2403.09635). Every setting is simulated
until the standard errors of both are below the share that `PRECISION` names, or `MOST` numbers
have been drawn. Their medians are in the last column.
"""

import platform
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.theory.operations import norms, rules, signal
from propagate.theory.operations.signal import Signal

MOST = 3e10  # numbers drawn for a setting
CHUNK = 2**24  # numbers drawn in one call
LENGTHS, WIDTHS, HEADS = (32, 64, 128, 256, 512), (64, 128, 256, 512, 1024), (16, 32, 64, 128, 256)
ROWS, UNITS = 64, 1024  # of a draw of an elementwise operation


class Setting(NamedTuple):
    """An operation, what comes in, and one draw of it.

    Attributes:
        operation: the rule.
        x: moments of its input.
        shape: of the input: positions and units.
        apply: from the input, arrays of unit Gaussians and numbers to the output.
        drawn: shapes of those arrays.
        numbers: variances of weights.
    """

    operation: signal.Operation
    x: Signal
    shape: tuple[int, int]
    apply: Callable[..., jax.Array]
    drawn: tuple[tuple[int, ...], ...] = ()
    numbers: tuple[float, ...] = ()


class Measured(NamedTuple):
    """A mean over draws and its standard error."""

    value: float
    error: float


def pick(rng: np.random.Generator, values: tuple[int, ...], most: int | None = None) -> int:
    """Return one of the values."""
    return int(rng.choice([v for v in values if most is None or v <= most]))


def spread(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number that is uniform in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def incoming(rng: np.random.Generator, *, mean: float = 0.0, correlation: float = 0.0) -> Signal:
    """Return moments: variance 0.1 to 10, |mean| and correlation up to what is said."""
    variance = spread(rng, 0.1, 10)
    off = rng.uniform(-mean, mean) * variance**0.5
    return Signal(off, variance, float(rng.uniform(0, correlation)))


def linear(rng: np.random.Generator) -> Setting:
    """fan_in, fan_out 64-1024, 32-128 positions, correlation 0-0.9, sigma_w^2 0.1-10"""
    n, m = pick(rng, WIDTHS), pick(rng, WIDTHS)
    rule = rules.Linear(n, m, spread(rng, 0.1, 10))
    x = incoming(rng, correlation=0.9)
    shape = pick(rng, LENGTHS, 128), n
    return Setting(rule, x, shape, _linear, ((n, m),), (rule.sigma_w2 / n,))


def _linear(x: jax.Array, drawn: Any, numbers: Any) -> jax.Array:
    return x @ drawn[0] * numbers[0] ** 0.5


def elementwise(name: str) -> Callable[[np.random.Generator], Setting]:
    """Return the settings of an activation."""

    def settings(rng: np.random.Generator) -> Setting:
        rule = rules.Nonlinearity(name)
        return Setting(rule, incoming(rng, mean=1.0), (ROWS, UNITS), _APPLY[name])

    settings.__doc__ = "mean within 1 standard deviation of 0"
    return settings


_APPLY: dict[str, Callable[..., jax.Array]] = {
    "relu": lambda x, *_: jax.nn.relu(x),
    "gelu": lambda x, *_: jax.nn.gelu(x, approximate=False),
}


def layer_norm(rng: np.random.Generator) -> Setting:
    """64-1024 units, mean within 1 standard deviation of 0"""
    n = pick(rng, WIDTHS)
    x = incoming(rng, mean=1.0)
    return Setting(norms.LayerNorm(n), x, (ROWS * UNITS // n, n), _layer_norm)


def _layer_norm(x: jax.Array, *_: Any) -> jax.Array:
    apart = x - x.mean(-1, keepdims=True)
    return apart * jax.lax.rsqrt(jnp.mean(apart**2, -1, keepdims=True) + 1e-5)


def rms_norm(rng: np.random.Generator) -> Setting:
    """64-1024 units, mean 0"""
    n = pick(rng, WIDTHS)
    return Setting(norms.RMSNorm(n), incoming(rng), (ROWS * UNITS // n, n), _rms_norm)


def _rms_norm(x: jax.Array, *_: Any) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)


def dropout(rng: np.random.Generator) -> Setting:
    """keep 0.4-1, mean within 1 standard deviation of 0"""
    keep = float(rng.uniform(0.4, 1))
    x, shape = incoming(rng, mean=1.0), (ROWS, UNITS)
    return Setting(rules.Dropout(keep), x, shape, _dropout, (shape,), (keep,))


def _dropout(x: jax.Array, drawn: Any, numbers: Any) -> jax.Array:
    chance = jax.scipy.stats.norm.cdf(drawn[0])
    return jnp.where(chance < numbers[0], x / numbers[0], 0)


def softmax(rng: np.random.Generator) -> Setting:
    """over 32-512 entries"""
    n = pick(rng, LENGTHS)
    return Setting(rules.Softmax(n), incoming(rng), (ROWS * UNITS // n, n), _softmax)


def _softmax(x: jax.Array, *_: Any) -> jax.Array:
    return jax.nn.softmax(x)


def attention(rng: np.random.Generator) -> Setting:
    """32-512 positions, width 64-1024, head 16-256, correlation 0-0.9, sigma_w^2 0.25-2 each"""
    length, d = pick(rng, LENGTHS), pick(rng, WIDTHS)
    head = pick(rng, HEADS, d)
    rule = rules.Attention(length, d, head, *(spread(rng, 0.25, 2) for _ in "qkvo"))
    sigmas = (rule.sigma_q2, rule.sigma_k2, rule.sigma_v2, rule.sigma_o2)
    drawn = (*((d, head),) * 3, (head, d))
    x, shape = incoming(rng, correlation=0.9), (length, d)
    fans = tuple(s / size[0] for s, size in zip(sigmas, drawn, strict=True))
    return Setting(rule, x, shape, _attention, drawn, fans)


def _attention(x: jax.Array, drawn: Any, numbers: Any) -> jax.Array:
    q, k, v, o = (w * variance**0.5 for w, variance in zip(drawn, numbers, strict=True))
    scores = (x @ q) @ (x @ k).T / q.shape[-1] ** 0.5
    return jax.nn.softmax(scores) @ (x @ v) @ o


SETTINGS: dict[str, Callable[[np.random.Generator], Setting]] = {
    "Linear": linear,
    "ReLU": elementwise("relu"),
    "GELU": elementwise("gelu"),
    "LayerNorm": layer_norm,
    "RMSNorm": rms_norm,
    "Dropout": dropout,
    "Softmax": softmax,
    "Attention, one head": attention,
}
PUBLISHED = {
    "Linear": ("0.4/1.4/2.8", "0.2/1.0/2.2"),
    "ReLU": ("0.5/1.9/3.4", "0.6/1.5/2.6"),
    "GELU": ("0.2/0.6/1.3", "0.2/0.6/1.1"),
    "LayerNorm": ("–", "0.4/1.5/3.2"),
    "Softmax": ("0.2/0.9/4.0", "0.1/0.6/4.5"),
    "Attention, one head": ("1.4/4.1/7.8", "2.2/13.3/44.5"),
}
PRECISION = dict.fromkeys(SETTINGS, 5e-4)
PRECISION |= {"Linear": 3e-3, "Softmax": 8e-4, "Attention, one head": 7e-3}


@jax.jit(static_argnames=("shape", "drawn", "apply"))
def draws(
    keys: jax.Array, x: Signal, numbers: Any, *, shape: Any, drawn: Any, apply: Any
) -> tuple[jax.Array, ...]:
    """Return, for each key, E y, E y^2 and E y y' of the output, and E g^2 of the gradient."""

    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        sizes = (*drawn, shape[-1:], shape)
        keys = jax.random.split(key, len(sizes) + 1)
        *weights, together, alone = (
            jax.random.normal(k, size) for k, size in zip(keys[1:], sizes, strict=True)
        )
        together = jnp.broadcast_to(together, shape)
        unit = x.correlation**0.5 * together + (1 - x.correlation) ** 0.5 * alone
        signal = x.mean + x.variance**0.5 * unit
        y, pull = jax.vjp(lambda x: apply(x, weights, numbers), signal)
        (g,) = pull(jax.random.normal(keys[0], y.shape))
        pairs = jnp.mean(jnp.sum(y, axis=0) ** 2 - jnp.sum(y**2, axis=0))
        shared = pairs / (len(y) * (len(y) - 1))
        return jnp.mean(y), jnp.mean(y**2), shared, jnp.mean(g**2)

    return jax.lax.map(one, keys)


def some(setting: Setting, key: jax.Array) -> np.ndarray:
    """Return `draws` of as many keys as one call takes."""
    keys = jax.random.split(key, int(np.clip(CHUNK / _size(setting), 16, 4096)))
    options = {"shape": setting.shape, "drawn": setting.drawn, "apply": setting.apply}
    return np.array(draws(keys, setting.x, setting.numbers, **options), float)


def _size(setting: Setting) -> int:
    """Return how many numbers a draw takes."""
    return sum(int(np.prod(shape)) for shape in (setting.shape, setting.shape, *setting.drawn))


def simulate(
    setting: Setting, key: jax.Array, precision: float, most: float = MOST
) -> tuple[Measured, Measured]:
    """Draw until both standard errors are below `precision` times the means."""
    seen: list[Any] = []
    while True:
        seen.append(some(setting, jax.random.fold_in(key, len(seen))))
        first, second, _, gradient = np.concatenate(seen, axis=1)
        # of the variance, by the rule for a function of means
        around = second - 2 * first.mean() * first + first.mean() ** 2
        found = [_mean(around), _mean(gradient)]
        if all(m.error < precision * m.value for m in found) or len(first) * _size(setting) > most:
            return found[0], found[1]


def _mean(values: np.ndarray) -> Measured:
    return Measured(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5))


def expected(setting: Setting) -> tuple[float, float]:
    """Return what theory says of both."""
    return setting.operation.forward(setting.x).variance, setting.operation.backward(setting.x)


def percentiles(values: Any) -> str:
    """Return p50/p90/p99 in percent."""
    return "/".join(f"{v:.2f}" for v in 100 * np.percentile(values, (50, 90, 99)))


def row(name: str, settings: int, seed: int = 0) -> tuple[str, dict[str, float]]:
    """Return a row of the table, and the medians and 99th percentiles in it, in percent."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    errors, noise = [], []
    for k in range(settings):
        setting = SETTINGS[name](rng)
        theory = expected(setting)
        found = simulate(setting, jax.random.fold_in(key, k), PRECISION[name])
        errors.append([abs(m.value / t - 1) for m, t in zip(found, theory, strict=True)])
        noise.append([m.error / t for m, t in zip(found, theory, strict=True)])
    forward, backward = (percentiles([e[k] for e in errors]) for k in range(2))
    typical = "/".join(f"{v:.2f}" for v in 100 * np.median(noise, axis=0))
    published = PUBLISHED.get(name, ("–", "–"))
    text = f"| {name} | {forward} | {published[0]} | {backward} | {published[1]} | {typical} |"
    p50, p99 = 100 * np.percentile(errors, (50, 99), axis=0)
    found = {"variance p50": p50[0], "variance p99": p99[0]}
    found |= {"gradient p50": p50[1], "gradient p99": p99[1]}
    return text, {f"{name}: {what}, %": float(value) for what, value in found.items()}


def main() -> None:
    """Print the ranges and the table."""
    import history  # here, since the tests use this file as a module of a package

    settings = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    jax.config.update("jax_default_prng_impl", "rbg")  # faster
    print(f"Python {platform.python_version()}, jax {jax.__version__}, {settings} settings each\n")
    print("Var x 0.1-10, uniform in its logarithm as variances of weights are; and")
    for name, draw in SETTINGS.items():
        print(f"{name}: {draw.__doc__}")
    print("\n| operation | variance | published | gradient | published | standard error |")
    print("|---|---|---|---|---|---|")
    start = time.perf_counter()
    numbers = {"settings": float(settings)}
    for name in SETTINGS:
        text, found = row(name, settings)
        print(text, flush=True)
        numbers |= found
    history.append("theory_error", numbers)
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
