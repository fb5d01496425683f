r"""One layer at a time: the signal of wide layers, and the constants of width-1/n theory.

$K'$, the second moment of the next h given this one, is a mean over n units. Its logarithm has the
variance $v = (E\phi^4/(E\phi^2)^2 - 1)/n$, of which a later layer remembers $p = d\ln q'/d\ln q$.
Going back, a layer multiplies by $\chi(K)$ times a mean of $\phi'^2(W^T\delta)^2$, of variance
$(3E\phi'^4/(E\phi'^2)^2 - 1)/n$. The inputs of a batch share weights: how far a mean over them
varies depends on their correlation c, which itself varies over draws. Orthogonal weights keep
norms, which takes the Gaussian's own 2 away from each.

`through_layer` is called along the stack, from `Signal` to `Signal`; `last_preactivation` ends it.
For a positively homogeneous phi the moments of the logarithm are exact (`log_mean_square`).
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from propagate.activations import Activation, ActivationLike, activation
from propagate.theory import gauss, mean_field
from propagate.types import UnusableInput

LOG_STEP = 1e-4  # of ln q, for derivatives of expectations
LEAST = 1e-140  # second moment: its square is still a float64


class LayerVariances(NamedTuple):
    r"""A layer's weights.

    Attributes:
        sigma_w2: $\sigma_w^2$ = fan_in·Var W; `sigma_b2`: $\sigma_b^2$ = Var b.
        fan_in, fan_out: units before and after it.
        orthogonal: whether the weights keep norms.
    """

    sigma_w2: float
    sigma_b2: float
    fan_in: int
    fan_out: int
    orthogonal: bool


class Preactivation(NamedTuple):
    r"""What theory says of a layer's h.

    Attributes:
        q: $E h^2$; `apart`: 1 - c of two inputs.
        second: $E\phi^2$.
        own: n times the variance of $\ln\frac1n\sum h_i^2$ about ln K: 2, or 0 for orthogonal
            weights; `own_shared`: the covariance of two inputs', own·c².
        units: n.
    """

    q: float
    apart: float
    second: float
    own: float
    own_shared: float
    units: int


class LayerTheory(NamedTuple):
    r"""What theory says of the map from a layer's h to the next layer's.

    Attributes:
        start: h itself.
        chi: $\chi = \sigma_w^2 E\phi'^2\,n_{out}/n_{in}$, the factor on a gradient's second moment.
        memory: $p = d\ln q'/d\ln q$; `curve`: $(q^2/q')\,d^2q'/dq^2$.
        chi_memory: $d\ln E\phi'^2/d\ln q$; `chi_curve`: its derivative by ln q.
        forward, backward: n·variance of the logarithm of a forward and a backward factor of one
            input; `..._shared`: n·covariance of two inputs'.
        mixed: n·covariance of the two factors of one input; `mixed_shared`: of two inputs.
        lean: n·(mean + half the variance) of the logarithm of a forward factor.
    """

    start: Preactivation
    chi: float
    memory: float
    curve: float
    chi_memory: float
    chi_curve: float
    forward: float
    forward_shared: float
    backward: float
    backward_shared: float
    mixed: float
    mixed_shared: float
    lean: float


class Signal(NamedTuple):
    """The signal that reaches a layer.

    Attributes:
        q: second moment of h; `apart`: 1 - c of two inputs.
        c_variance: of c over draws of the weights.
        drawn: whether h is drawn, as an input is, rather than made by weights that may keep norms.
    """

    q: float
    apart: float
    c_variance: float = 0.0
    drawn: bool = True


class _Products(NamedTuple):
    r"""Means for two inputs, with $x = \phi(h)/\sqrt{E\phi^2}$, $d = \phi'(h)/\sqrt{E\phi'^2}$ and
    y, e the same of the second input."""

    forward: float  # E x^2 y^2
    backward: float  # E d^2 e^2
    mixed: float  # E (d^2 y^2 + e^2 x^2)/2
    cubic: float  # E x y (x^2 + y^2)
    product: float  # E x y
    slopes: float  # E d e


def preactivation(units: int, orthogonal: bool, signal: Signal, second: float) -> Preactivation:
    r"""Return what is said of h, of variance own = 2 about K and covariance own·c² of two inputs.

    Args:
        units: n.
        orthogonal: whether the weights around h keep norms: own = 0.
        signal: h.
        second: $E\phi^2$.
    """
    own = 0.0 if orthogonal else 2.0
    shared = own * (1 - _rms_apart(signal)) ** 2
    return Preactivation(signal.q, signal.apart, second, own, shared, units)


def last_preactivation(
    phi: Activation, units: int, orthogonal: bool, signal: Signal
) -> Preactivation:
    r"""Return `preactivation` of the last layer, at $E\phi^2$ of its q."""
    second = float(gauss.moments(phi, signal.q)["second"][0])
    return preactivation(units, orthogonal, signal, second)


def _rms_apart(signal: Signal) -> float:
    r"""Return $1 - \sqrt{c^2 + \operatorname{Var} c}$, at most 1."""
    return 1 - min(1.0, math.sqrt((1 - signal.apart) ** 2 + signal.c_variance))


def through_layer(
    phi: Activation, weights: LayerVariances, signal: Signal, gradient_c2: float
) -> tuple[LayerTheory, Signal]:
    r"""Return a layer's theory, and the signal that reaches the next.

    $q' = \sigma_w^2 E\phi^2 + \sigma_b^2$; weights have the share
    $s = \sigma_w^2 E\phi^2/q'$ of it, so that $v_{forward} = s^2(E\phi^4/(E\phi^2)^2 - 1)$, and
    $\operatorname{Var} c' = (\partial c'/\partial c)^2\operatorname{Var} c + s^2 v_c/n$.

    Args:
        phi: what acts on h.
        weights: what follows it.
        signal: h itself.
        gradient_c2: mean squared cosine of the gradients of two inputs.

    Raises:
        UnusableInput: the next layer's second moment is zero, or beyond what a float64 squares.
    """
    found, slopes, after = _through_layer(phi, weights, signal)
    kept = 2.0 if weights.orthogonal else 0.0
    shared = (1 + 2 * gradient_c2) * slopes - 1 - kept * gradient_c2
    return found._replace(backward_shared=shared), after


@functools.lru_cache(maxsize=2**14)  # layers alike: of a deep stack that has settled, of equal laws
def _through_layer(
    phi: Activation, weights: LayerVariances, signal: Signal
) -> tuple[LayerTheory, float, Signal]:
    r"""Return a layer's theory without `backward_shared`, $E d^2e^2$, and the next signal."""
    n, sw2, q = weights.fan_in, weights.sigma_w2, signal.q
    rms_apart = _rms_apart(signal)
    around = gauss.moment_points(phi, q * np.exp([-LOG_STEP, 0.0, LOG_STEP]))
    pairs = [gauss.pair_points(phi, q, apart) for apart in (rms_apart, signal.apart)]
    values = gauss.evaluate_all(phi, around.h, *(points.h for points in pairs))
    near = around.moments(values[0])
    at = {name: float(values[1]) for name, values in near.items()}
    after = sw2 * at["second"] + weights.sigma_b2
    if not LEAST < after < 1 / LEAST:
        raise UnusableInput(
            f"theory follows second moments from {LEAST:g} to {1 / LEAST:g}, a layer has {after:g}"
        )
    share, kept = sw2 * at["second"] / after, 2.0 if weights.orthogonal else 0.0
    held = 0.0 if signal.drawn else kept
    one = _of_one(at)
    two = _of_two(at, pairs[0], values[1]) if rms_apart else one
    forward, shared, lean = _of_logarithm(phi, n, one.forward - 1, two.forward - 1)
    c2, memory = (1 - rms_apart) ** 2, sw2 * q * at["growth"] / after
    log_chi = np.log(near["slope2"])
    found = LayerTheory(
        start=preactivation(n, weights.orthogonal, signal, at["second"]),
        chi=sw2 * weights.fan_out / n * at["slope2"],
        memory=memory,
        curve=sw2 * q * float(near["growth"][2] - near["growth"][0]) / (2 * LOG_STEP) / after,
        chi_memory=float(log_chi[2] - log_chi[0]) / (2 * LOG_STEP),
        chi_curve=float(log_chi[2] - 2 * log_chi[1] + log_chi[0]) / LOG_STEP**2,
        forward=max(forward * share**2 - held * memory**2, 0.0),
        forward_shared=max(shared * share**2 - held * memory**2 * c2, 0.0),
        backward=3 * one.backward - 1 - kept,
        backward_shared=math.nan,
        mixed=(one.mixed - 1) * share,
        mixed_shared=(two.mixed - 1) * share,
        lean=lean * share,
    )
    dc_dc = sw2 * two.slopes * at["slope2"] * q / after
    c_variance = dc_dc**2 * signal.c_variance + _of_cosine(one, two) * share**2 / n
    # the c-map, as `mean_field.c_map` has it
    distance = float(pairs[1].average(mean_field.square_distance, values[2])) / 2
    apart = mean_field.after_weights(sw2, weights.sigma_b2, at["second"], distance)[1]
    return found, two.backward, Signal(after, apart, c_variance, drawn=False)


def _of_logarithm(
    phi: Activation, units: int, alone: float, shared: float
) -> tuple[float, float, float]:
    r"""Return n·v of one input and of two, and n·lean = n·(mean + v/2).

    To first order v = alone/n and the mean is -v/2; exact for a homogeneous phi
    (`log_mean_square`), where shared keeps its ratio to alone.
    """
    if not phi.homogeneous:
        return alone, shared, 0.0
    mean, variance = log_mean_square(phi, units)
    exact = units * variance
    return exact, shared * exact / alone, units * (mean + variance / 2)


def _of_one(at: dict[str, float]) -> _Products:
    r"""Return the means of products of one input with itself, x = y and d = e."""
    x4, d4 = at["fourth"] / at["second"] ** 2, at["slope4"] / at["slope2"] ** 2
    mixed = at["mixed"] / at["second"] / at["slope2"]
    return _Products(x4, d4, mixed, 2 * x4, 1.0, 1.0)


def _of_two(at: dict[str, float], points: gauss.PairPoints, values: gauss.Values) -> _Products:
    r"""Return the means of products of two inputs' values, from phi at the points of both."""
    rms, rms_slope = math.sqrt(at["second"]), math.sqrt(at["slope2"])

    def products(a: gauss.Values, b: gauss.Values) -> np.ndarray:
        """Return what `_Products` names, stacked in front."""
        (x, d), (y, e) = ((v.phi / rms, v.slope / rms_slope) for v in (a, b))
        xy, de, x2, y2 = x * y, d * e, x * x, y * y
        return np.stack([xy**2, de**2, (d * d * y2 + e * e * x2) / 2, xy * (x2 + y2), xy, de])

    return _Products(*map(float, points.average(products, values)))


def _of_cosine(one: _Products, two: _Products) -> float:
    r"""Return $v_c$, n times the variance of the cosine of two inputs' values over n units.

    Derived here, from $\hat c = \sum x y/\sqrt{\sum x^2\sum y^2}$ to first order:
    $v_c = E x^2y^2\,(1 + c^2/2) + \tfrac12c^2 E x^4 - c\,E xy(x^2 + y^2)$.
    """
    c = two.product
    fresh = two.forward * (1 + c * c / 2) + c * c / 2 * one.forward - c * two.cubic
    return max(fresh, 0.0)


@functools.lru_cache(maxsize=256)
def log_mean_square(phi: ActivationLike, units: int) -> tuple[float, float]:
    r"""Return the exact mean and variance of ln of $\sum_i \phi(z_i)^2/(n E\phi^2)$ over n units.

    Derived here: with E ~ Exp(1) and S the sum, ln E - ln S is above u with probability
    $E e^{-e^u S} = (E e^{-e^u\phi(z)^2})^n$, and has mean $-\gamma - E\ln S$ and variance
    $\pi^2/6 + \operatorname{Var}\ln S$. For a positively homogeneous phi,
    $E e^{-t\phi^2} = \tfrac12\sum_\pm(1 + 2t\,\phi(\pm1)^2)^{-1/2}$. Given that S > 0.

    Args:
        phi: an activation.
        units: n.

    Raises:
        UnusableInput: phi is not positively homogeneous.

    Example:
        >>> log_mean_square("identity", 10)[1]
        0.2213229...
    """
    phi = activation(phi)
    if not phi.homogeneous:
        raise UnusableInput(f"{phi.name} is not positively homogeneous: its logarithm has no law")
    u = np.arange(-math.log(units) - 45, 80, 0.05)  # a smooth density: sums converge at once
    squares = gauss.evaluate(phi, np.array([-1.0, 1.0])).phi ** 2
    scale = np.exp(u)[:, None] * squares
    laplace = np.mean((1 + 2 * scale) ** -0.5, axis=1)
    density = laplace ** (units - 1) * np.mean(scale * (1 + 2 * scale) ** -1.5, axis=1)
    density /= density.sum()
    mean = float((u * density).sum())
    variance = float(((u - mean) ** 2 * density).sum())
    log_s = -float(np.euler_gamma) - mean
    return log_s - math.log(units * float(squares.mean())), variance - math.pi**2 / 6
