r"""How far a layer of n units wanders from the infinite-width limit: width-1/n theory.

$K_{l+1}$, the second moment of $h_{l+1}$ given the layer below, is a mean over n units. Its
logarithm wanders by $v = (E\phi^4/(E\phi^2)^2 - 1)/n$ in variance, and a wander is remembered as
far as $p = d\ln q'/d\ln q$ lets it. Going back, a step is $\chi(K)$ times a mean of
$\phi'^2(W^T\delta)^2$, which wanders by $(3E\phi'^4/(E\phi'^2)^2 - 1)/n$. The inputs of a batch
share weights: a mean over them wanders as far as their correlation, itself wandering about c, says.
Orthogonal weights keep norms, which takes the Gaussian's own 2 away from each.

Every constant is an expectation of `gauss`; for a positively homogeneous phi the moments of the
logarithm are exact (`meanfield.fluctuation`). Hanin & Nica (2018), arXiv:1812.05994; Roberts et al.
(2022), arXiv:2106.10165; the feedback of K on gradients and the mean over a batch are our own.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from propagate.activations import Activation, ActivationLike, activation
from propagate.theory import gauss, mean_field
from propagate.types import UnusableInput

STEP = 1e-4  # of ln q, for derivatives of expectations
LEAST = 1e-140  # second moment: its square is still a float64
CURVED = 0.1  # largest curvature times variance at which a map still counts as a line
CORRELATED = ("forward", "backward", "mixed", "cubic", "product", "slopes")


class Law(NamedTuple):
    """A layer's weights: fan_in·Var W, Var b, fan_in, fan_out, and whether they keep norms."""

    sigma_w2: float
    sigma_b2: float
    fan_in: int
    fan_out: int
    orthogonal: bool


class Place(NamedTuple):
    """What theory says of a layer's h.

    Attributes:
        q: second moment of h; `apart`: 1 - c of two inputs.
        second: E phi^2.
        own: n·v that a mean of h^2 has about K; `own_shared`: of two inputs.
        units: n.
    """

    q: float
    apart: float
    second: float
    own: float
    own_shared: float
    units: int


class Step(NamedTuple):
    """What theory says of the step from a layer's h to the next layer's.

    Attributes:
        start: h itself.
        chi: the factor on a gradient's second moment.
        memory: p = d ln q'/d ln q; `curve`: q^2/q' d^2q'/dq^2.
        bend: d ln E phi'^2/d ln q; `bend2`: its derivative.
        forward, backward: n·v of one input; `..._shared`: of two.
        mixed: n·covariance of the two means, of one input and of two.
        lean: n·(mean + half the variance) of the logarithm of a forward step.
    """

    start: Place
    chi: float
    memory: float
    curve: float
    bend: float
    bend2: float
    forward: float
    forward_shared: float
    backward: float
    backward_shared: float
    mixed: float
    mixed_shared: float
    lean: float


class Wander(NamedTuple):
    """Variance of a logarithm in each layer, the shift of its mean, and whether 1/n theory holds:
    whether the logarithm of q' is a line in that of q over what q wanders."""

    variance: np.ndarray
    shift: np.ndarray
    holds: np.ndarray


class State(NamedTuple):
    """The signal that reaches a layer: q, 1 - c, the variance of c over draws, and whether h itself
    is drawn, as an input is, rather than made by weights that may keep its norm."""

    q: float
    apart: float
    wander: float = 0.0
    drawn: bool = True


def place(phi: Activation, units: int, orthogonal: bool, at: State, second: float) -> Place:
    """Return what is said of h, whose E phi^2 is `second`; `orthogonal`: the weights around it."""
    own = 0.0 if orthogonal else 2.0
    shared = own * (1 - _effective(at)) ** 2
    return Place(at.q, at.apart, second, own, shared, units)


def end(phi: Activation, units: int, orthogonal: bool, at: State) -> Place:
    """Return the last place, from which there is no step."""
    second = float(gauss.moments(phi, at.q)["second"][0])
    return place(phi, units, orthogonal, at, second)


def _effective(at: State) -> float:
    """Return 1 - the root mean square of c, which wanders about its mean."""
    return 1 - min(1.0, math.sqrt((1 - at.apart) ** 2 + at.wander))


def step(phi: Activation, law: Law, at: State, gradient_c2: float) -> tuple[Step, State]:
    """Return a layer's step, and what reaches the next.

    Args:
        phi: what acts on h.
        law: the weights after it.
        at: h itself.
        gradient_c2: mean squared cosine of the gradients of two inputs.

    Raises:
        UnusableInput: the next layer's second moment is zero, or beyond what a float64 squares.
    """
    n, sw2 = law.fan_in, law.sigma_w2
    near = gauss.moments(phi, at.q * np.exp([-STEP, 0.0, STEP]))
    second, slope2, growth = (float(near[k][1]) for k in ("second", "slope2", "growth"))
    after = sw2 * second + law.sigma_b2
    if not LEAST < after < 1 / LEAST:
        raise UnusableInput(
            f"theory follows second moments from {LEAST:g} to {1 / LEAST:g}, a layer has {after:g}"
        )
    share, kept = sw2 * second / after, 2.0 if law.orthogonal else 0.0
    held = 0.0 if at.drawn else kept
    effective = _effective(at)
    one, two = (_relative(phi, at.q, e, second, slope2) for e in (0.0, effective))
    forward, shared, lean = _of_logarithm(phi, n, one["forward"] - 1, two["forward"] - 1)
    c2, memory = (1 - effective) ** 2, sw2 * at.q * growth / after
    logs = np.log(near["slope2"])
    found = Step(
        start=place(phi, n, law.orthogonal, at, second),
        chi=sw2 * law.fan_out / n * slope2,
        memory=memory,
        curve=sw2 * at.q * float(near["growth"][2] - near["growth"][0]) / (2 * STEP) / after,
        bend=float(logs[2] - logs[0]) / (2 * STEP),
        bend2=float(logs[2] - 2 * logs[1] + logs[0]) / STEP**2,
        forward=max(forward * share**2 - held * memory**2, 0.0),
        forward_shared=max(shared * share**2 - held * memory**2 * c2, 0.0),
        backward=3 * one["backward"] - 1 - kept,
        backward_shared=(1 + 2 * gradient_c2) * two["backward"] - 1 - kept * gradient_c2,
        mixed=(one["mixed"] - 1) * share,
        mixed_shared=(two["mixed"] - 1) * share,
        lean=lean * share,
    )
    apart = mean_field.c_map(phi, sw2, law.sigma_b2, at.q, at.apart) if at.apart else 0.0
    slope = sw2 * two["slopes"] * slope2 * at.q / after
    wander = slope**2 * at.wander + _of_cosine(one, two) * share**2 / n
    return found, State(after, apart, wander, drawn=False)


def _of_logarithm(
    phi: Activation, units: int, alone: float, shared: float
) -> tuple[float, float, float]:
    """Return n·v of one input and of two, and n·lean: exact for a homogeneous phi."""
    if not phi.homogeneous:
        return alone, shared, 0.0
    mean, variance = fluctuation(phi, units)
    exact = units * variance
    return exact, shared * exact / alone, units * (mean + variance / 2)


def _relative(
    phi: Activation, q: float, apart: float, second: float, slope2: float
) -> dict[str, float]:
    """Return the means of products of two inputs' values, of unit second moments, 1 - c apart."""

    def products(a: gauss.Values, b: gauss.Values) -> np.ndarray:
        (x, dx), (y, dy) = ((v.phi / second**0.5, v.slope / slope2**0.5) for v in (a, b))
        mixed = ((dx * y) ** 2 + (dy * x) ** 2) / 2
        cubic = x * y * (x**2 + y**2)
        return np.stack([(x * y) ** 2, (dx * dy) ** 2, mixed, cubic, x * y, dx * dy])

    if apart:
        values = gauss.average_pair(phi, products, q, apart)
    else:
        values = gauss.average(phi, lambda z, at: products(at, at), np.array([q]))[:, 0]
    return dict(zip(CORRELATED, map(float, values), strict=True))


def _of_cosine(one: dict[str, float], two: dict[str, float]) -> float:
    """Return n times the variance of the cosine of two inputs' values over n units."""
    c = two["product"]
    fresh = two["forward"] * (1 + c * c / 2) + c * c / 2 * one["forward"] - c * two["cubic"]
    return max(fresh, 0.0)


def _of_batch(alone: float, shared: float, batch: int) -> float:
    """Return the variance of a mean over inputs, from that of one and the covariance of two."""
    return alone / batch + shared * (1 - 1 / batch)


def forward(steps: list[Step], batch: int) -> Wander:
    """Return how ln K wanders in each layer, the first of which is given."""
    variance, alone, mean, lean, holds = [0.0], [0.0], [0.0], [0.0], [True]
    for s in steps:
        fresh = _of_batch(s.forward, s.forward_shared, batch)
        lost = s.lean * fresh / s.forward if s.forward > 0 else 0.0
        mean.append(s.memory * mean[-1] + s.curve * alone[-1] / 2)
        lean.append(s.memory * lean[-1] + lost / s.start.units)
        holds.append(holds[-1] and (abs(s.curve) + abs(s.bend)) * alone[-1] < CURVED)
        alone.append(s.memory**2 * alone[-1] + s.forward / s.start.units)
        variance.append(s.memory**2 * variance[-1] + fresh / s.start.units)
    shift = np.array(mean) + np.array(lean) - np.array(variance) / 2
    return Wander(np.array(variance), shift, np.array(holds))


def measured(places: list[Place], kernel: Wander, batch: int) -> Wander:
    """Return how ln of the mean of h^2 wanders, which is K's and what it wanders about K."""
    own = np.array([_of_batch(p.own, p.own_shared, batch) / p.units for p in places])
    alike = (1 - places[0].apart) ** 2  # the input is drawn, whatever the weights are
    own[0] = 2 * _of_batch(1.0, alike, batch) / places[0].units
    return Wander(kernel.variance + own, kernel.shift - own / 2, kernel.holds)


def backward(steps: list[Step], units: int, batch: int) -> Wander:
    """Return how ln of a gradient's second moment wanders at each layer, the last of `units`."""
    kernel, alone = forward(steps, batch), forward(steps, 1)
    variance, single = _sum_back(steps, kernel, batch), _sum_back(steps, alone, 1)
    each = [
        s.bend * alone.shift[k] + s.bend2 * alone.variance[k] / 2 - s.backward / s.start.units / 2
        for k, s in enumerate(steps)
    ]
    mean = np.append(np.cumsum(each[::-1])[::-1], 0.0)
    variance += 2 / batch / units  # the cotangent is drawn as well
    single += 2 / units
    mean -= 1 / units
    holds = np.full(len(steps) + 1, kernel.holds.all())
    return Wander(variance, mean + (single - variance) / 2, holds)


def _sum_back(steps: list[Step], kernel: Wander, batch: int) -> np.ndarray:
    """Return the variance of the sum of the steps back to each layer."""
    full = np.diag([_of_batch(s.backward, s.backward_shared, batch) / s.start.units for s in steps])
    for j, s in enumerate(steps):
        full[j, j] += s.bend**2 * kernel.variance[j]
        later = s.bend * s.memory * kernel.variance[j]
        later += _of_batch(s.mixed, s.mixed_shared, batch) / s.start.units
        for k in range(j + 1, len(steps)):
            full[j, k] = full[k, j] = steps[k].bend * later
            later *= steps[k].memory
    return np.maximum([full[j:, j:].sum() for j in range(len(steps) + 1)], 0)


@functools.lru_cache(maxsize=256)
def fluctuation(phi: ActivationLike, units: int) -> tuple[float, float]:
    r"""Return the exact mean and variance of ln of $\sum_i \phi(z_i)^2/(n E\phi^2)$ over n units.

    With E ~ Exp(1) and S the sum, ln E - ln S is above u with probability
    $E e^{-e^u S} = (E e^{-\phi(e^{u/2}z)^2})^n$ for a positively homogeneous phi, and has mean
    $-\gamma - E\ln S$ and variance $\pi^2/6 + \operatorname{Var}\ln S$. Given that S > 0.

    Raises:
        UnusableInput: phi is not positively homogeneous.

    Example:
        >>> fluctuation("identity", 10)[1]
        0.2213229...
    """
    own = activation(phi)
    if not own.homogeneous:
        raise UnusableInput(f"{own.name} is not positively homogeneous: its logarithm has no law")
    u = np.arange(-math.log(units) - 45, 80, 0.05)  # a smooth density: sums converge at once
    alone = gauss.average(own, lambda z, at: np.exp(-(at.phi**2)), np.exp(u))
    fading = gauss.average(own, lambda z, at: at.phi**2 * np.exp(-(at.phi**2)), np.exp(u))
    density = alone ** (units - 1) * fading
    density /= density.sum()
    mean = float((u * density).sum())
    variance = float(((u - mean) ** 2 * density).sum())
    log_s = -float(np.euler_gamma) - mean
    expected = math.log(units * float(gauss.moments(own)["second"][0]))
    return log_s - expected, variance - math.pi**2 / 6
