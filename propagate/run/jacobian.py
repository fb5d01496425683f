"""Jacobians as measured: singular values, and norms of the part behind each layer.

Of any function, of a function that is given layer by layer, or of a random stack. What theory
expects of them: `jacobian_spectrum`, and `expected_norms`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.checks import check_count, random_key
from propagate.network import Network
from propagate.run.dispatch import lapack_on_one_thread
from propagate.run.layerwise import layers_of as layers_of
from propagate.theory.jacobian_spectrum import Spectrum as Spectrum
from propagate.theory.jacobian_spectrum import density as density
from propagate.theory.jacobian_spectrum import spectrum as spectrum
from propagate.theory.predict import log10_gradient, through_stack
from propagate.types import Array, UnusableInput

Layer = Callable[[Array], Array]
DENSE = 2**24  # entries of a Jacobian that is formed as a whole
PROBES = 64  # cotangents that are drawn where there are too many


def singular_values(
    fn: Callable[[Array], Array], x: Array, *, largest: int | None = None
) -> np.ndarray:
    """Return the singular values of the Jacobian of `fn` at one input, in decreasing order.

    Args:
        fn: from an array to an array, of any shapes.
        x: where.
        largest: only so many, by products with vectors (Lanczos); all by default, which forms
            the Jacobian and is refused beyond 2^24 entries.

    Raises:
        UnusableInput: the Jacobian is too large to be formed, or has not so many values.

    Example:
        >>> singular_values(lambda x: jnp.array([[3.0, 0.0], [0.0, 4.0]]) @ x, jnp.ones(2)).tolist()
        [4.0, 3.0]
    """
    flat = jnp.ravel(x)
    run = lambda v: jnp.ravel(fn(v.reshape(jnp.shape(x))))  # noqa: E731
    rows, columns = jax.eval_shape(run, flat).size, flat.size
    if largest is not None:
        check_count("largest", largest)
        if largest >= min(rows, columns):
            raise UnusableInput(f"largest must be below {min(rows, columns)}, got {largest}")
        return _lanczos(run, flat, rows, largest)
    _check_size(rows, columns)
    return _svd(jax.jit(jax.jacrev(run) if rows < columns else jax.jacfwd(run))(flat))


def _check_size(rows: int, columns: int) -> None:
    if rows * columns > DENSE:
        raise UnusableInput(
            f"a Jacobian of {rows} x {columns} is too large to be formed; pass largest=10"
        )


def _svd(jacobian: Array) -> np.ndarray:
    return np.linalg.svd(np.asarray(jacobian, np.float64), compute_uv=False)


def _lanczos(run: Callable[[Array], Array], x: Array, rows: int, largest: int) -> np.ndarray:
    from scipy.sparse.linalg import LinearOperator, svds  # slow to load

    _, forward = jax.linearize(run, x)
    _, back = jax.vjp(run, x)
    push, pull = jax.jit(forward), jax.jit(lambda v: back(v)[0])
    as_given = lambda v: jnp.asarray(np.ravel(v), x.dtype)  # noqa: E731
    products: dict[str, Any] = {
        "matvec": lambda v: np.asarray(push(as_given(v)), np.float64),
        "rmatvec": lambda v: np.asarray(pull(as_given(v)), np.float64),
        "dtype": np.float64,
    }
    operator: Any = LinearOperator((rows, x.size), **products)
    start = np.random.default_rng(0).normal(size=min(rows, x.size))
    return np.sort(svds(operator, largest, v0=start, return_singular_vectors=False))[::-1]


def of_network(
    net: Network, key: Array, *, layers: tuple[int, int] | None = None, largest: int | None = None
) -> np.ndarray:
    """Return the singular values of a range of layers of a random stack.

    Args:
        net: a stack; its draws are those of `measure` with the same key, seed 0.
        key: for weights and the input.
        layers: from h of the first to h of the second; the whole stack by default.
        largest: only so many.

    Raises:
        UnusableInput: the layers are not two of the stack's, in order, or the weights need data.

    Example:
        >>> net = Network(depth=3, width=8, activation="identity", init="orthogonal")
        >>> of_network(net, jax.random.key(0)).round(3).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    first, last = layers or (0, net.depth)
    if not 0 <= first < last <= net.depth:
        raise UnusableInput(f"layers must be two of 0 … {net.depth}, in order, got {layers}")
    ends = net.shapes[first][0], net.shapes[last - 1][1]
    columns, rows = (math.prod(net.family.signal(units)) for units in ends)
    if largest is None:
        _check_size(rows, columns)
    parts, h = layers_and_input(net, key)
    here = _along(parts[:first])(h)
    own = parts[first:last]
    if largest is not None:
        return singular_values(_along(own), here, largest=largest)
    end, pulls = _pulls(own, here)
    cotangents = _unit_cotangents(end)
    for pull in reversed(pulls):  # layer by layer: a program of all of them is slow to compile
        cotangents = _back(pull, cotangents)
    return _svd(cotangents)


def layers_and_input(net: Network, key: Array) -> tuple[list[Layer], Array]:
    """Return the layers of a random stack, from h to the next h, and an input, one of a batch.

    The draws are those of `measure` with the same key, seed 0.

    Raises:
        UnusableInput: the weights need data.
    """
    if net.init.data_scaled:
        raise UnusableInput(f"{net.init.name} depends on the data, which a Jacobian has none of")
    with lapack_on_one_thread():  # many small orthogonal matrices: threads only wait
        inputs, steps = jax.block_until_ready(layers_of(net, key, batch=1))
    return [lambda h, step=step: step(h[None])[0] for step in steps], inputs[0]


def _along(layers: Sequence[Layer]) -> Layer:
    def run(h: Array) -> Array:
        for layer in layers:
            h = layer(h)
        return h

    return run


class Norms(NamedTuple):
    """Norms of the Jacobians from each of L + 1 places to the last.

    Attributes:
        log10: of the squared Frobenius norm divided by the units at the place, shape (L + 1,).
        error: one standard error, in decades; 0 where all cotangents were used.
    """

    log10: np.ndarray
    error: np.ndarray


def partial_norms(
    layers: Sequence[Layer],
    x: Array,
    *,
    probes: int | None = None,
    key: Array | None = None,
) -> Norms:
    r"""Return $\|\partial h_L/\partial h_l\|_F^2/n_l$ at one input, for every place l.

    It is the second moment at $h_l$ of a gradient that is unit Gaussian at the output, on average.

    Args:
        layers: a function, split: each takes an array to the next one's, of any shapes.
        x: $h_0$.
        probes: unit Gaussian cotangents to draw (Hutchinson); by default there is one for each
            unit of the output, which is exact, or 64 where these would take more than 2^24 numbers.
        key: for the probes.

    Raises:
        UnusableInput: no layers, or probes without a key.

    Example:
        >>> halve = lambda h: h / 2
        >>> partial_norms([halve, halve], jnp.ones(3)).log10.round(3).tolist()
        [-1.204, -0.602, 0.0]

    Reference:
        Doshi et al. (2021), arXiv:2111.12143.
    """
    if not layers:
        raise UnusableInput("a function that is split into layers is required, got none")
    h, pulls = _pulls(layers, x)
    if probes is None and h.size * max(h.size, jnp.size(x)) > DENSE:
        probes = PROBES
    if probes is None:
        g = _unit_cotangents(h)
    else:
        check_count("probes", probes, 2)
        g = jax.random.normal(random_key(key), (probes, *h.shape), h.dtype)
    log_scale = 0.0
    found = [_norm(g, log_scale, probes)]
    for pull in reversed(pulls):
        g = _back(pull, g)
        largest = float(jnp.max(jnp.abs(g)))
        if 0 < largest < math.inf:  # so that squares stay within the dtype
            g, log_scale = g / largest, log_scale + math.log10(largest)
        found.append(_norm(g, log_scale, probes))
    return Norms(*np.array(found[::-1]).T)


def _pulls(layers: Sequence[Layer], x: Array) -> tuple[Array, list[Callable[[Array], Any]]]:
    """Return the output, and what takes a cotangent back through each layer."""
    pulls, h = [], jnp.asarray(x)
    for layer in layers:
        h, pull = jax.vjp(layer, h)
        pulls.append(pull)
    return h, pulls


def _unit_cotangents(h: Array) -> Array:
    """Return a cotangent for each unit of the output, (units, *shape)."""
    return jnp.eye(h.size, dtype=h.dtype).reshape(-1, *h.shape)


def _back(pull: Callable[[Array], Any], g: Array) -> Array:
    """Return cotangents, stacked in front, before a layer."""
    return jax.vmap(lambda v: pull(v)[0])(g)


def _norm(g: Array, log_scale: float, probes: int | None) -> tuple[float, float]:
    """Return log10 of the squared norm per unit, and its standard error over the probes."""
    squares = np.mean(np.square(np.asarray(g, np.float64)).reshape(len(g), -1), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = float(np.log10(squares.mean() if probes else squares.sum())) + 2 * log_scale
        error = squares.std(ddof=1) / math.sqrt(len(g)) / squares.mean() / math.log(10)
    return log, float(error) if probes else 0.0


def expected_norms(net: Network, *, q: float = 1.0) -> np.ndarray:
    r"""Return log10 of what theory expects of `partial_norms`, shape (L + 1,).

    $E\|\partial h_L/\partial h_l\|_F^2/n_l = \prod_{k>l}\chi_k$ over draws of wide layers.

    Args:
        net: a plain stack that `predict` covers.
        q: second moment of the input.

    Raises:
        UnusableInput: not covered by theory.

    Example:
        >>> net = Network(depth=2, width=16, activation="identity", init=(2.0, 0.0))
        >>> expected_norms(net).round(2).tolist()  # 4^2, 4 and 1
        [1.2, 0.6, 0.0]
    """
    if str(net.family) != "mlp":
        raise UnusableInput(f"plain mlp stacks are covered, got {net.family}: see predict")
    return log10_gradient(through_stack(net, q, 1.0)[0])
