r"""What a layer makes of a signal, and of its gradient: normalised, residual, with dropout.

A signal is known by its second moment $q$ and by $1-c$ of two inputs, gradients by theirs: $p$, the
second moment, and $r$, the covariance of two inputs' gradients. Every kind of layer is a function
from $(q, 1-c)$ to a `Passage`: the next $(q, 1-c)$, and the 2 × 2 matrix `back` that takes $(p, r)$
at its end to those at its start. Passages follow one another (`chain`), and lie beside a skip
(`residual`), in the limit of wide layers; `gradients` multiplies their matrices up.

A `layer` is $h' = W x + b$ with $x = \phi(h)$. Normalising before $\phi$ divides h by $\sqrt q$; a
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
CONSTANT = 1e-28  # of E phi^2: the variance that rounding leaves of a constant


class Weights(NamedTuple):
    """A layer's weights.

    Attributes:
        sigma_w2: variance of a weight, times fan_in.
        sigma_b2: variance of a bias.
        keep: ρ, the share of x that dropout keeps.
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


class _Activated(NamedTuple):
    """x, what weights act on: E x^2, E (x_1 - x_2)^2/2 of two inputs, and what takes (p, r) of
    gradients at x to those at h, shape (2, 2)."""

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
    r"""Return what a layer makes of a signal: (norm,) phi (, norm), dropout, weights.

    $q' = \sigma_w^2Ex^2/\rho + \sigma_b^2$, $1-c' = \sigma_w^2[(1/\rho-1)Ex^2 +
    \tfrac12E(x_1-x_2)^2]/q'$, and gradients come back by
    $\sigma_w^2(n_{out}/n_{in})\,D\,\mathrm{diag}(1/\rho, 1)$, in which D takes them through x:
    without a norm it is $\mathrm{diag}(E\phi'^2, E\phi'_1\phi'_2)$, the $\chi$ of mean-field theory
    (Schoenholz et al., 2017, arXiv:1611.01232).

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
            an angle between zeros; a batch norm after phi, which is not covered.

    Example:
        >>> layer("relu", Weights(2.0), 1.0).gradient
        1.0
        >>> round(layer("tanh", Weights(1.0), 1.0, norm="rms").gradient, 6)
        0.464403
    """
    phi = mean_field.integrable(phi)
    checks.check_variances(sigma_w2=weights.sigma_w2, sigma_b2=weights.sigma_b2)
    checks.check_keep(weights.keep)
    if norm is not None:
        check_choice("norm", norm, Norm)
    _check(q, apart, norm)
    if norm == "batch":
        x = _batch_normalised(phi, q * apart, batch, after)
    else:
        x = _unit_normalised(phi, q, apart, norm, after)
    ahead = mean_field.after_weights(
        weights.sigma_w2, weights.sigma_b2, x.second, x.apart, weights.keep
    )
    factor = weights.sigma_w2 * weights.widen
    return Passage(*ahead, x.back * np.array([factor / weights.keep, factor]))


def _check(q: float, apart: float, norm: Norm | None) -> None:
    """Raise `UnusableInput` unless q >= 0, 0 <= 1 - c <= 2 and a norm does not divide by 0."""
    if not (0 <= q < math.inf and 0 <= apart <= 2):
        raise UnusableInput(f"q must be finite and not negative, 1 - c in [0, 2]: {q}, {apart}")
    if norm and not (q * apart if norm == "batch" else q):
        raise UnusableInput(
            f"a {norm} norm divides by zero: h must not be "
            + ("the same for all inputs" if norm == "batch" else "zero")
        )
    if apart and not q:
        raise UnusableInput(f"inputs of zeros have no angle: 1 - c must be 0 at q = 0, got {apart}")


def _unit_normalised(
    phi: Activation, q: float, apart: float, norm: Norm | None, after: bool
) -> _Activated:
    r"""Return x normalised over units, or not at all.

    With $s^2$ = q for a norm before phi, 1 without one, $x = \phi(h/s)$ and
    $D = \mathrm{diag}(E\phi'^2, E\phi'_1\phi'_2)/s^2$. For a norm after phi, with $s^2 = E\phi^2$
    (rms) or $\operatorname{Var}\phi$ (layer), $x = \phi(h)/s$ or $(\phi(h) - E\phi)/s$.
    """
    s2 = q if norm and not after else 1.0
    at = mean_field.moments_at(phi, q / s2)
    second, slope2 = at["second"], at["slope2"]
    if apart:
        distance, slopes = map(float, gauss.average_pair(phi, _distance_and_slopes, q / s2, apart))
    else:
        distance, slopes = 0.0, slope2
    if norm and after:
        s2 = at["variance"] if norm == "layer" else second
        if not s2 > CONSTANT * second:
            raise UnusableInput(f"a {norm} norm divides by zero: {phi.name} is constant there")
        second, distance = 1.0, distance / s2
    return _Activated(second, distance, np.diag([slope2, slopes]) / s2)


def _distance_and_slopes(a: gauss.Values, b: gauss.Values) -> np.ndarray:
    r"""Return $\tfrac12(\phi_1 - \phi_2)^2$ and $\phi'_1\phi'_2$, stacked in front."""
    return np.stack([mean_field.square_distance(a, b) / 2, a.slope * b.slope])


def _batch_normalised(phi: Activation, variance: float, batch: float, after: bool) -> _Activated:
    r"""Return x normalised over a batch of B, whose values h have the (unbiased) variance v.

    Derived here, with the moments of `batch_norm`:
    $D = \begin{pmatrix}d & -m\\ -d/(B-1) & m/(B-1)\end{pmatrix}/v$,
    $d = [(B-1)E\phi'^2 - E(y\phi')^2]/(B-3)$ and
    $m = (B-1)(E\phi'_1\phi'_2 + Ey_1\phi'_1y_2\phi'_2)/(B-3)$: a batch norm's gradients add up to
    zero over the batch.
    """
    if after:
        raise UnusableInput(
            "a batch norm after phi is not covered: its units differ in mean and variance; put it "
            "before phi, or use a layer norm"
        )
    at, _ = batch_norm.moments(phi, batch_norm.checked(batch))
    if math.isinf(batch):
        d, m, shared = at.slope2, at.slopes + at.leaning, 0.0
    else:
        d = ((batch - 1) * at.slope2 - at.leaning2) / (batch - 3)
        m = (batch - 1) * (at.slopes + at.leaning) / (batch - 3)
        shared = -1 / (batch - 1)
    row = np.array([d, -m])
    return _Activated(at.second, at.apart, np.stack([row, shared * row]) / variance)


def normalise(q: float, apart: float = 1.0) -> Passage:
    r"""Return what a layer norm or an RMS norm of a centred signal makes of it: $h/\sqrt q$.

    The second moment is 1, c stays, and gradients are divided by q.

    Args:
        q: second moment of h.
        apart: 1 - c of two inputs.

    Raises:
        UnusableInput: q is zero, or a number is out of its range.

    Example:
        >>> normalise(4.0).q
        1.0
    """
    _check(q, apart, "rms")
    return Passage(1.0, apart, np.eye(2) / q)


def chain(*passages: Passage) -> Passage:
    r"""Return one passage from several, each of which starts where the one before it ends.

    Its matrix is the product, $B_1B_2\cdots$.

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

    $q' = a^2q + \alpha^2q_f$, $q'(1-c') = a^2q(1-c) + \alpha^2q_f(1-c_f)$ and
    $p = (a^2 + \alpha^2\chi_f)\,p'$, or for (p, r) $B = a^2I + \alpha^2B_f$.

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
    r"""Return (p, r) of the gradients at each layer, $B_{l+1}\cdots B_L(1, r_L)^T$.

    Args:
        passages: the layers, in order.
        correlation: $r_L$, cosine of two inputs' gradients at the output.

    Returns:
        Shape (L + 1, 2), in units of p at the output; row 0 is the input's.

    Example:
        >>> gradients([normalise(4.0)])[:, 0].tolist()  # a norm divides by the rms, which is 2
        [0.25, 1.0]
    """
    found = [np.array([1.0, correlation])]
    for one in reversed(passages):
        found.append(one.back @ found[-1])
    return np.stack(found[::-1])
