r"""How far a layer of n units wanders from the infinite-width limit: width-1/n theory.

$K_{l+1}$, the second moment of $h_{l+1}$ given the layer below, is a mean over n units. Its logarithm
wanders by $v = (E\phi^4/(E\phi^2)^2 - 1)/n$ in variance, and a wander is remembered as far as
$p = d\ln q'/d\ln q$ lets it. Going back, a step is $\chi(K)$ times a mean of $\phi'^2(W^T\delta)^2$,
which wanders by $(3E\phi'^4/(E\phi'^2)^2 - 1)/n$. The inputs of a batch share weights: a mean over
them wanders as far as their correlation, itself wandering about c, says. Orthogonal weights keep
norms, which takes the Gaussian's own 2 away from each.

Every constant is an expectation of `gauss`; for a positively homogeneous phi the logarithm's moments
are exact (`meanfield.fluctuation`).
"""

import math
from typing import NamedTuple

import numpy as np

from propagate import gauss, meanfield
from propagate.activations import Activation

STEP = 1e-4  # of ln q, for derivatives of expectations
CORRELATED = ("forward", "backward", "mixed", "cubic", "product", "slopes")


class Law(NamedTuple):
    """A layer's weights: fan_in·Var W, Var b, fan_in, fan_out, and whether they keep norms."""

    sigma_w2: float
    sigma_b2: float
    fan_in: int
    fan_out: int
    orthogonal: bool


class Step(NamedTuple):
    """What theory says of a layer's h and of the step from it to the next layer's.

    Attributes:
        q: second moment of h; `apart`: 1 - c of two inputs.
        second: E phi^2; `chi`: the factor on a gradient's second moment.
        memory: p = d ln q'/d ln q; `curve`: q^2/q' d^2q'/dq^2.
        bend: d ln E phi'^2/d ln q; `bend2`: its derivative.
        forward, backward: n·v of one input; `..._shared`: of two.
        mixed: n·covariance of the two means, of one input and of two.
        lean: n·(mean + half the variance) of the logarithm of a forward step.
        own: n·v that a mean of h^2 has about K; `own_shared`: of two inputs.
        units: n.
    """

    q: float
    apart: float
    second: float
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
    own: float
    own_shared: float
    units: int


class Wander(NamedTuple):
    """Variance of a logarithm in each layer, and the shift of its mean."""

    variance: np.ndarray
    shift: np.ndarray


class State(NamedTuple):
    """The signal that reaches a layer: q, 1 - c, and the variance of c over draws."""

    q: float
    apart: float
    wander: float = 0.0


def step(phi: Activation, law: Law, at: State, gradient_c2: float) -> tuple[Step, State]:
    """Return a layer's step, and what reaches the next.

    Args:
        phi: what acts on h.
        law: the weights after it.
        at: h itself.
        gradient_c2: mean squared cosine of the gradients of two inputs.
    """
    n, sw2 = law.fan_in, law.sigma_w2
    near = gauss.moments(phi, at.q * np.exp([-STEP, 0.0, STEP]))
    second, slope2, growth = (float(near[k][1]) for k in ("second", "slope2", "growth"))
    after = sw2 * second + law.sigma_b2
    share, kept = sw2 * second / after, 2.0 if law.orthogonal else 0.0
    effective = 1 - min(1.0, math.sqrt((1 - at.apart) ** 2 + at.wander))
    one, two = (_expectations(phi, at.q, e) for e in (0.0, effective))
    forward = one["forward"] / second**2 - 1
    shared = two["forward"] / second**2 - 1
    lean = 0.0
    if phi.homogeneous:
        mean, variance = meanfield.fluctuation(phi, n)
        shared *= n * variance / forward
        forward, lean = n * variance, n * (mean + variance / 2)
    c2 = (1 - effective) ** 2
    logs = np.log(near["slope2"])
    found = Step(
        q=at.q,
        apart=at.apart,
        second=second,
        chi=sw2 * law.fan_out / n * slope2,
        memory=sw2 * at.q * growth / after,
        curve=sw2 * at.q * float(near["growth"][2] - near["growth"][0]) / (2 * STEP) / after,
        bend=float(logs[2] - logs[0]) / (2 * STEP),
        bend2=float(logs[2] - 2 * logs[1] + logs[0]) / STEP**2,
        forward=(forward - kept) * share**2,
        forward_shared=(shared - kept * c2) * share**2,
        backward=3 * one["backward"] / slope2**2 - 1 - kept,
        backward_shared=(1 + 2 * gradient_c2) * two["backward"] / slope2**2
        - 1
        - kept * gradient_c2,
        mixed=(one["mixed"] / slope2 / second - 1) * share,
        mixed_shared=(two["mixed"] / slope2 / second - 1) * share,
        lean=lean * share,
        own=2.0 - kept,
        own_shared=(2.0 - kept) * c2,
        units=n,
    )
    return found, _next(phi, law, at, two, second, after)


def _expectations(phi: Activation, q: float, apart: float) -> dict[str, float]:
    """Return the means of products of two inputs' values, 1 - c apart."""

    def products(a: gauss.Values, b: gauss.Values) -> np.ndarray:
        x, y = a.phi, b.phi
        mixed = ((a.slope * y) ** 2 + (b.slope * x) ** 2) / 2
        cubic = x * y * (x**2 + y**2)
        return np.stack([(x * y) ** 2, (a.slope * b.slope) ** 2, mixed, cubic, x * y, a.slope * b.slope])

    values = gauss.average_pair(phi, products, q, apart)
    return dict(zip(CORRELATED, map(float, values), strict=True))


def _next(
    phi: Activation, law: Law, at: State, two: dict[str, float], second: float, after: float
) -> State:
    """Return the state of the next layer; the wander of c is that of a ratio of means."""
    apart = at.apart
    if apart:
        apart = meanfield.c_map(phi, law.sigma_w2, law.sigma_b2, at.q, apart)
    share = law.sigma_w2 * second / after
    c = two["product"] / second
    ends = gauss.moments(phi, at.q)["fourth"][0] / second**2
    fresh = two["forward"] / second**2 * (1 + c * c / 2) + c * c / 2 * ends
    fresh = max(fresh - c * two["cubic"] / second**2, 0.0) * share**2 / law.fan_in
    slope = law.sigma_w2 * two["slopes"] * at.q / after
    return State(after, apart, slope**2 * at.wander + fresh)


def _of_batch(alone: float, shared: float, batch: int) -> float:
    """Return the variance of a mean over inputs, from that of one and the covariance of two."""
    return alone / batch + shared * (1 - 1 / batch)


def forward(steps: list[Step], batch: int) -> Wander:
    """Return how ln K wanders in each layer, the first of which is given."""
    variance, single, mean, lean = [0.0], [0.0], [0.0], [0.0]
    for s in steps[:-1]:
        fresh = _of_batch(s.forward, s.forward_shared, batch) / s.units
        mean.append(s.memory * mean[-1] + s.curve * single[-1] / 2)
        lean.append(s.memory * lean[-1] + s.lean / s.units * fresh / max(s.forward / s.units, 1e-300))
        single.append(s.memory**2 * single[-1] + s.forward / s.units)
        variance.append(s.memory**2 * variance[-1] + fresh)
    shift = np.array(mean) + np.array(lean) - np.array(variance) / 2
    return Wander(np.array(variance), shift)


def measured(steps: list[Step], kernel: Wander, batch: int) -> Wander:
    """Return how ln of the mean of h^2 wanders, which is K's and what it wanders about K."""
    own = np.array([_of_batch(s.own, s.own_shared, batch) / s.units for s in steps])
    own[0] = 2 / batch / steps[0].units  # the input is drawn, whatever the weights are
    return Wander(kernel.variance + own, kernel.shift - own / 2)


def backward(steps: list[Step], batch: int) -> Wander:
    """Return how ln of a gradient's second moment wanders at each layer."""
    kernel, alone = forward(steps, batch), forward(steps, 1)
    variance, single = _sum_back(steps, kernel, batch), _sum_back(steps, alone, 1)
    each = [
        s.bend * alone.shift[k] + s.bend2 * alone.variance[k] / 2 - s.backward / s.units / 2
        for k, s in enumerate(steps[:-1])
    ]
    mean = np.append(np.cumsum(each[::-1])[::-1], 0.0)
    return Wander(variance, mean + (single - variance) / 2)


def _sum_back(steps: list[Step], kernel: Wander, batch: int) -> np.ndarray:
    """Return the variance of the sum of the steps back to each layer."""
    taken = steps[:-1]
    full = np.diag(
        [_of_batch(s.backward, s.backward_shared, batch) / s.units for s in taken]
    )
    for j, s in enumerate(taken):
        full[j, j] += s.bend**2 * kernel.variance[j]
        later = s.bend * s.memory * kernel.variance[j]
        later += _of_batch(s.mixed, s.mixed_shared, batch) / s.units
        for k in range(j + 1, len(taken)):
            full[j, k] = full[k, j] = taken[k].bend * later
            later *= taken[k].memory
    return np.maximum([full[j:, j:].sum() for j in range(len(steps))], 0)
