r"""Singular values of input–output Jacobians, measured and expected.

Theory (Pennington et al., 2017, 2018; Tao, 2011): for L layers at a fixed point, $J J^T$ is a free
product, whose spectrum has mean $\chi_1^L$, relative variance
$L(\mu_2/\mu_1^2 - 1 - s_1)$ with $\mu_k = E\phi'^{2k}$ and $s_1 = -1$ for Gaussian weights, 0 for
orthogonal ones, and the upper edge $\min_z \lambda(z)$ of

$$\lambda = \frac{1+y}{y}\,(\sigma_w^2\,y\,z)^L \text{ (Gaussian)},\quad
\frac{1+y}{y}\left(\frac{\sigma_w^2\,y\,z}{1+y}\right)^L \text{ (orthogonal)},\quad
y = E\frac{\phi'^2}{z - \phi'^2},\ z > \sup\phi'^2.$$
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate import gauss
from propagate.activations import Activation, activation
from propagate.meanfield import Phi
from propagate.network import Network
from propagate.registry import check_count
from propagate.sweep import layers_of
from propagate.types import Array, UnusableInput

DENSE = 2**24  # entries of a Jacobian that is formed as a whole
FAR = 1e6  # where a slope is looked at that may be unbounded
ISOMETRIC = 1.0  # relative variance of squared singular values, below which all are of one size


class Spectrum(NamedTuple):
    """What free probability expects of the squared singular values of L layers.

    Attributes:
        mean: of the squares, chi_1^L.
        variance: of the squares, divided by the squared mean.
        edge: the largest square, in the limit of wide layers; inf if phi' is unbounded.
    """

    mean: float
    variance: float
    edge: float

    @property
    def isometric(self) -> bool:
        """Dynamical isometry: squared singular values spread by less than their mean."""
        return self.variance < ISOMETRIC


def spectrum(
    phi: Phi, depth: int, sigma_w2: float, *, q: float = 1.0, orthogonal: bool = False
) -> Spectrum:
    """Return the spectrum that L layers at second moment q have in the limit of large width.

    Args:
        phi: an activation.
        depth: L.
        sigma_w2: variance of a weight times fan_in.
        q: second moment of the pre-activations, in every layer.
        orthogonal: whether weights are orthogonal times sigma_w rather than Gaussian.

    Raises:
        UnusableInput: depth is not a count, or q or sigma_w2 is not positive and finite.

    Example:
        >>> spectrum("identity", 8, 1.0).variance, round(spectrum("identity", 1, 1.0).edge, 6)
        (8.0, 4.0)
    """
    own = activation(phi)
    check_count("depth", depth)
    if not (0 < q < math.inf and 0 < sigma_w2 < math.inf):
        raise UnusableInput(f"q and sigma_w2 must be positive, got {q} and {sigma_w2}")
    at = gauss.moments(own, q)
    mu_1, mu_2 = float(at["slope2"][0]), float(at["slope4"][0])
    spread = mu_2 / mu_1**2 - (1 if orthogonal else 0)
    edge = _edge(own, depth, sigma_w2, q, orthogonal)
    return Spectrum(_exp(depth * math.log(sigma_w2 * mu_1)), depth * spread, edge)


def _edge(phi: Activation, depth: int, sigma_w2: float, q: float, orthogonal: bool) -> float:
    from scipy.optimize import minimize_scalar  # slow to load

    root = np.array([[math.sqrt(q)]])
    z, weight = gauss.nodes(root, np.asarray(gauss.kinks(phi))[None, :])
    squares = gauss.evaluate(phi, root * z).slope ** 2
    top = float(squares.max())
    far = FAR * (1 + math.sqrt(q)) * np.array([-1.0, 1.0])
    if not float((gauss.evaluate(phi, far).slope ** 2).max()) <= 1.5 * top:
        return math.inf

    def log_edge(log_above: float) -> float:
        above = math.exp(log_above)
        y = float(np.sum(weight * squares / (top * (1 + above) - squares)))
        step = math.log(sigma_w2 * y * top * (1 + above) / (1 + y if orthogonal else 1))
        return math.log1p(y) - math.log(y) + depth * step

    found = minimize_scalar(
        log_edge, bounds=(-32.0, 25.0), method="bounded", options={"xatol": 1e-10}
    )
    return _exp(min(float(found.fun), log_edge(-32.0)))


def _exp(log: float) -> float:
    """Return e^log, inf beyond float64."""
    return math.exp(log) if log < 709 else math.inf


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
    if rows * columns > DENSE:
        raise UnusableInput(
            f"a Jacobian of {rows} x {columns} is too large to be formed; pass largest=10"
        )
    jacobian = jax.jit(jax.jacrev(run) if rows < columns else jax.jacfwd(run))(flat)
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
    """
    if net.law.data_scaled:
        raise UnusableInput(f"{net.law.name} depends on the data, which a Jacobian has none of")
    first, last = layers or (0, net.depth)
    if not 0 <= first < last <= net.depth:
        raise UnusableInput(f"layers must be two of 0 … {net.depth}, in order, got {layers}")
    inputs, steps = layers_of(net, key, batch=1)

    def run(h: Array, start: int, stop: int) -> Array:
        for step in steps[start:stop]:
            h = step(h)
        return h

    return singular_values(lambda h: run(h, first, last), run(inputs, 0, first), largest=largest)
