"""What JAX is asked of an activation: phi and its derivatives in float64, and where they jump.

`evaluate` gives phi and phi', in blocks of one size, so that an activation is compiled once.
`kinks` are stated in the table of activations; those of any other function are searched for, with
phi'' beside the two. Both work in float64 whatever the user's flags.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.activations import ACTIVATIONS, Activation
from propagate.types import Elementwise

BLOCK = 4096  # points that are evaluated at a time
OPTIMISED = {"xla_backend_optimization_level": 3}  # XLA's default, whatever its flags say
SEARCHED = 32.0  # kinks are looked for in [-SEARCHED, SEARCHED]
SPACING = 1 / 64  # of the points between which jumps are looked for


class Values(NamedTuple):
    """phi(h), its slope phi'(h), and h itself, in one shape."""

    phi: np.ndarray
    slope: np.ndarray
    h: np.ndarray


def evaluate(phi: Activation, h: np.ndarray) -> Values:
    """Return phi(h) and phi'(h) in float64, in the shape of h."""
    if phi.homogeneous:
        slope = np.where(np.asarray(h) > 0, *reversed(_both_slopes(phi)))
        return Values(slope * h, slope, np.asarray(h))
    return _evaluated(phi, h)


def evaluate_all(phi: Activation, *h: np.ndarray) -> list[Values]:
    """Return `evaluate` of several arrays, at one go."""
    ends = np.cumsum([0, *map(np.size, h)])
    at = evaluate(phi, np.concatenate([np.ravel(one) for one in h]))
    return [
        Values(*(values[a:b].reshape(np.shape(one)) for values in at))
        for one, (a, b) in zip(h, itertools.pairwise(ends), strict=True)
    ]


@functools.lru_cache(maxsize=256)
def _both_slopes(phi: Activation) -> tuple[float, float]:
    """Return phi' of a positively homogeneous phi, below 0 and above."""
    below, above = _evaluated(phi, np.array([-1.0, 1.0])).slope
    return float(below), float(above)


def _evaluated(phi: Activation, h: np.ndarray) -> Values:
    """Return the same by JAX, in blocks."""
    size = int(np.size(h))
    padded = np.zeros(max(-(-size // BLOCK), 1) * BLOCK)
    padded[:size] = np.ravel(h)
    with _on_the_host():
        blocks = [_compiled(phi.fn)(block) for block in padded.reshape(-1, BLOCK)]
    value, slope = (
        np.concatenate([np.asarray(block[k]) for block in blocks])[:size].reshape(np.shape(h))
        for k in (0, 1)
    )
    return Values(value, slope, np.asarray(h))


@contextlib.contextmanager
def _on_the_host() -> Iterator[None]:
    """Compute in float64 on a CPU: for so few numbers, an accelerator compiles for seconds."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to have no CPU
        host = jax.local_devices()[0]
    with jax.enable_x64(True), jax.default_device(host):
        yield


@functools.lru_cache(maxsize=256)
def _compiled(fn: Elementwise) -> Callable[[np.ndarray], tuple[jax.Array, jax.Array]]:
    """Return h -> (phi, phi'); it is given `BLOCK` points each time, and so compiled once."""

    def values(h: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(fn, (h,), (jnp.ones_like(h),))

    return jax.jit(values, compiler_options=OPTIMISED)


def kinks(phi: Activation) -> tuple[float, ...]:
    """Return the h at which phi, phi' or phi'' jumps: as stated, or else found in [-32, 32]."""
    if phi.kinks or _in_table(phi):
        return phi.kinks
    return _found(phi)


def _in_table(phi: Activation) -> bool:
    make = ACTIVATIONS.get(phi.name)
    return make is not None and make() == phi


@functools.lru_cache(maxsize=256)
def _found(phi: Activation) -> tuple[float, ...]:
    """Bisect each interval over which a derivative changes by more than its neighbours do."""
    derivatives = _derivatives(phi.fn)
    grid = np.arange(-SEARCHED - 0.37 * SPACING, SEARCHED, SPACING)
    found: set[float] = set()
    for which, values in enumerate(derivatives(grid)):
        change = np.abs(np.diff(values))
        usual = np.median(
            np.lib.stride_tricks.sliding_window_view(np.pad(change, 4, "edge"), 9), -1
        )
        for k in np.flatnonzero(change > 4 * usual + 1e-9):
            kink = _bisect(lambda h, n=which: derivatives(h)[n], grid[k], grid[k + 1])
            if kink is not None:
                found.add(round(float(kink), 9) + 0.0)
    return tuple(sorted(found))


def _bisect(f: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float | None:
    """Return where f jumps between two points; None if it does not."""
    first = last = math.inf
    while high - low > 1e-11 * max(1.0, abs(low)):
        middle = (low + high) / 2
        values = f(np.array([low, middle, high]))
        left, right = abs(np.diff(values))
        low, high = (low, middle) if left >= right else (middle, high)
        last = max(left, right)
        first = last if first == math.inf else first
        if last < first / 8:  # f is steep, without a jump: what it changes by shrinks
            return None
    return (low + high) / 2 if last > 1e-9 else None


def _derivatives(fn: Elementwise) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return h -> [phi, phi', phi''] in float64, compiled once for every size that is asked."""
    first = lambda h: jax.jvp(fn, (h,), (jnp.ones_like(h),))  # noqa: E731

    @jax.jit
    def compiled(h: jax.Array) -> tuple[jax.Array, ...]:
        (phi, slope), (_, bend) = jax.jvp(first, (h,), (jnp.ones_like(h),))
        return phi, slope, bend

    def derivatives(h: np.ndarray) -> list[np.ndarray]:
        padded = np.zeros(round(2 * SEARCHED / SPACING) + 1)
        padded[: h.size] = h
        with _on_the_host():
            return [np.asarray(values)[: h.size] for values in compiled(padded)]

    return derivatives
