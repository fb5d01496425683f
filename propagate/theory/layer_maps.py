r"""What a layer makes of a signal, and of its gradient: normalised, residual, with dropout.

A signal is known by its second moment $q$ and by $1-c$ of two inputs, gradients by theirs: $p$, the
second moment, and $r$, the covariance of two inputs' gradients. Every kind of layer is a function
from $(q, 1-c)$ to a `Passage`: the next $(q, 1-c)$, and the 2 × 2 matrix `back` that takes $(p, r)$
at its end to those at its start. Passages follow one another (`chain`), and lie beside a skip
(`residual`), in the limit of wide layers:

$$q' = a^2 q + \alpha^2 q_f,\qquad p = (a^2 + \alpha^2\chi_f)\,p'.$$

A layer is $h' = W x + b$ with $x = \phi(h)$. Normalising before $\phi$ divides h by $\sqrt q$; a
layer norm takes away a mean over units as well, which is zero there, weights being centred. After
$\phi$ it is not: a layer norm leaves $(\phi - E\phi)/\sqrt{\operatorname{Var}\phi}$. What each
does to one direction out of n of a gradient is lost in the limit. Batch normalisation is exact at
every batch size (`batch_norm`), and needs the covariance r even for p.

Dropout divides what it keeps by ρ: the diagonal has $\sigma_w^2/\rho$, pairs have $\sigma_w^2$.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from propagate import checks
from propagate.activations import Activation, ActivationLike
from propagate.checks import check_choice
from propagate.theory import batch_norm, gauss, mean_field
from propagate.types import UnusableInput

Norm = Literal["rms", "layer", "batch"]


class Weights(NamedTuple):
    """A layer's weights.

    Attributes:
        sigma_w2: the variance of a weight, times fan_in.
        sigma_b2: the variance of a bias.
        keep: the share of x that dropout keeps.
        widen: fan_out/fan_in.
    """

    sigma_w2: float
    sigma_b2: float = 0.0
    keep: float = 1.0
    widen: float = 1.0


class Passage(NamedTuple):
    """A layer's end, seen from its start.

    Attributes:
        q: second moment of the signal at its end.
        apart: 1 - c of two inputs there.
        back: takes (p, r) of the gradients at its end to those at its start, shape (2, 2).
    """

    q: float
    apart: float
    back: np.ndarray

    @property
    def gradient(self) -> float:
        """The factor on the second moment of gradients that are independent between inputs."""
        return float(self.back[0, 0])


class _Within(NamedTuple):
    """x, what weights act on: E x^2, half the mean squared difference of two inputs' x, and what
    takes gradients at x to those at h."""

    second: float
    apart: float
    back: np.ndarray


def layer(
    phi: ActivationLike,
    weights: Weights,
    q: float,
    apart: float = 1.0,
    *,
    norm: Norm | None = None,
    after: bool = False,
    batch: float = math.inf,
) -> Passage:
    """Return what a layer makes of a signal: (norm,) phi (, norm), dropout, weights.

    Args:
        phi: an activation.
        weights: what follows it.
        q: second moment of h.
        apart: 1 - c of two inputs.
        norm: `"rms"`, `"layer"` or `"batch"`; none by default.
        after: whether it acts on phi(h) rather than on h.
        batch: how many inputs a batch norm sees, 4 or more.

    Raises:
        UnusableInput: a number out of its range; a norm of zeros, or of inputs that are the same;
            a batch norm after phi, which is not covered.

    Example:
        >>> layer("relu", Weights(2.0), 1.0).gradient
        1.0
        >>> round(layer("tanh", Weights(1.0), 1.0, norm="rms").gradient, 6)
        0.464403
    """
    own = mean_field.integrable(phi)
    checks.check_variances(sigma_w2=weights.sigma_w2, sigma_b2=weights.sigma_b2)
    checks.check_keep(weights.keep)
    if norm is not None:
        check_choice("norm", norm, Norm)
    _check(q, apart, norm)
    if norm == "batch":
        within = _batch(own, q * apart, batch, after)
    else:
        within = _units(own, q, apart, norm, after)
    ahead = mean_field.weighted(
        weights.sigma_w2, weights.sigma_b2, within.second, within.apart, weights.keep
    )
    factor = weights.sigma_w2 * weights.widen
    return Passage(*ahead, within.back * np.array([factor / weights.keep, factor]))


def _check(q: float, apart: float, norm: Norm | None) -> None:
    if not (0 <= q < math.inf and 0 <= apart <= 2):
        raise UnusableInput(f"q must be finite and not negative, 1 - c in [0, 2]: {q}, {apart}")
    if norm and not (q * apart if norm == "batch" else q):
        raise UnusableInput(
            f"a {norm} norm divides by zero: h must not be "
            + ("the same for all inputs" if norm == "batch" else "zero")
        )


def _units(phi: Activation, q: float, apart: float, norm: Norm | None, after: bool) -> _Within:
    """Normalise over units, or not at all."""
    size = q if norm and not after else 1.0
    alone = gauss.moments(phi, q / size)
    second, slope2 = float(alone["second"][0]), float(alone["slope2"][0])
    if apart:
        distance, slopes = gauss.average_pair(phi, _pair, q / size, apart)
    else:
        distance, slopes = 0.0, slope2
    if norm and after:
        size = float(alone["variance"][0]) if norm == "layer" else second
        if not size:
            raise UnusableInput(f"a {norm} norm divides by zero: {phi.name} is constant there")
        second, distance = (1.0 if norm == "layer" else second / size), distance / size
    return _Within(second, float(distance), np.diag([slope2, slopes]) / size)


def _pair(a: gauss.Values, b: gauss.Values) -> np.ndarray:
    return np.stack([(a.phi - b.phi) ** 2 / 2, a.slope * b.slope])


def _batch(phi: Activation, variance: float, batch: float, after: bool) -> _Within:
    """Normalise over a batch whose values have a variance, as an unbiased estimate has it."""
    if after:
        raise UnusableInput(
            "a batch norm after phi is not covered: its units differ in mean and variance; put it "
            "before phi, or use a layer norm"
        )
    at, _ = batch_norm.moments(phi, batch_norm.checked(batch))
    if math.isinf(batch):
        own, mixed, shared = at.slope2, at.slopes + at.leaning, 0.0
    else:
        own = ((batch - 1) * at.slope2 - at.leaning2) / (batch - 3)
        mixed = (batch - 1) * (at.slopes + at.leaning) / (batch - 3)
        shared = -1 / (batch - 1)  # a batch norm's gradients add up to zero
    forth = np.array([own, -mixed])
    return _Within(at.second, at.apart, np.stack([forth, shared * forth]) / variance)


def normalise(q: float, apart: float = 1.0) -> Passage:
    """Return what a layer norm or an RMS norm of a centred signal makes of it.

    Args:
        q: second moment of the signal.
        apart: 1 - c of two inputs.

    Example:
        >>> normalise(4.0).q
        1.0
    """
    _check(q, apart, "rms")
    return Passage(1.0, apart, np.eye(2) / q)


def chain(*passages: Passage) -> Passage:
    """Return one passage from several, each of which starts where the one before it ends.

    Args:
        passages: in order.

    Example:
        >>> chain(normalise(4.0), normalise(1.0)).q
        1.0
    """
    back = np.eye(2)
    for one in passages:
        back = back @ one.back
    return passages[-1]._replace(back=back)


def residual(
    branch: Passage, q: float, apart: float = 1.0, *, skip: float = 1.0, scale: float = 1.0
) -> Passage:
    r"""Return what $a h + \alpha f(h)$ makes of a signal.

    Args:
        branch: f, from the same signal; it ends with weights of its own, so that nothing of it is
            correlated with h. Two layers deep it is a `chain`.
        q: second moment of h.
        apart: 1 - c of two inputs.
        skip: a.
        scale: α.

    Example:
        >>> residual(layer("relu", Weights(2.0), 1.0), 1.0).gradient
        2.0

    Reference:
        Yang and Schoenholz (2017), arXiv:1712.08969; De and Smith (2020), arXiv:2002.10444.
    """
    _check(q, apart, None)
    after = skip**2 * q + scale**2 * branch.q
    lost = skip**2 * q * apart + (scale**2 * branch.q * branch.apart if branch.q else 0.0)
    back = skip**2 * np.eye(2) + scale**2 * branch.back
    return Passage(after, lost / after if after else math.nan, back)


def gradients(passages: Sequence[Passage], correlation: float = 0.0) -> np.ndarray:
    """Return (p, r) of the gradients at each layer, shape (L + 1, 2), from p = 1 at the output.

    Args:
        passages: the layers, in order.
        correlation: cosine of two inputs' gradients at the output.

    Example:
        >>> gradients([normalise(4.0)])[:, 0].tolist()  # a norm divides by the rms, which is 2
        [0.25, 1.0]
    """
    found = [np.array([1.0, correlation])]
    for one in reversed(passages):
        found.append(one.back @ found[-1])
    return np.stack(found[::-1])
