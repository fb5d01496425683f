r"""Sums over a stack: mean and variance of the logarithms of second moments over draws.

`kernel_fluctuation` adds up the layers' forward factors to ln K; `forward_fluctuation` adds how a
mean of h² varies about K; `backward_fluctuation` adds up the factors of a gradient on its way back,
which the same K acts on. Each takes the constants of `layer_theory`.
"""

from typing import NamedTuple

import numpy as np

from propagate.theory.finite_width.layer_theory import LayerTheory, Preactivation

CURVED = 0.1  # largest curvature times variance at which a map still counts as a line


class Fluctuation(NamedTuple):
    """A logarithm over draws of the weights, each of shape (layers,), in nats.

    Attributes:
        variance: of the logarithm; `shift`: of its mean from that of infinite width.
        holds: whether 1/n theory holds: ln q' is a line in ln q over what q varies by.
    """

    variance: np.ndarray
    shift: np.ndarray
    holds: np.ndarray


def _of_batch(alone: float, shared: float, batch: int) -> float:
    """Return the variance of a mean over B inputs, alone/B + shared·(1 - 1/B)."""
    return alone / batch + shared * (1 - 1 / batch)


def kernel_fluctuation(layers: list[LayerTheory], batch: int) -> Fluctuation:
    r"""Return how ln K varies in each layer, the first of which is given, shape (L + 1,).

    $v_{l+1} = p^2 v_l + v_{forward}/n$ and, of the mean of the logarithm of one input,
    $m_{l+1} = p\,m_l + \tfrac12{\rm curve}\,v_l$, to which `lean` adds what 1/n leaves out.

    Args:
        layers: from first to last.
        batch: inputs that K is a mean over.
    """
    variance, alone, mean, lean, holds = [0.0], [0.0], [0.0], [0.0], [True]
    for layer in layers:
        p, n = layer.memory, layer.start.units
        fresh = _of_batch(layer.forward, layer.forward_shared, batch)
        lost = layer.lean * fresh / layer.forward if layer.forward > 0 else 0.0
        mean.append(p * mean[-1] + layer.curve * alone[-1] / 2)
        lean.append(p * lean[-1] + lost / n)
        holds.append(holds[-1] and (abs(layer.curve) + abs(layer.chi_memory)) * alone[-1] < CURVED)
        alone.append(p**2 * alone[-1] + layer.forward / n)
        variance.append(p**2 * variance[-1] + fresh / n)
    shift = np.array(mean) + np.array(lean) - np.array(variance) / 2
    return Fluctuation(np.array(variance), shift, np.array(holds))


def forward_fluctuation(
    places: list[Preactivation], kernel: Fluctuation, batch: int
) -> Fluctuation:
    r"""Return how ln of the mean of h² varies: as ln K does, and by own/n about it.

    Args:
        places: h of each layer, the input first.
        kernel: of `kernel_fluctuation`.
        batch: inputs that the mean is over.
    """
    own = np.array([_of_batch(h.own, h.own_shared, batch) / h.units for h in places])
    alike = (1 - places[0].apart) ** 2  # the input is drawn, whatever the weights are
    own[0] = 2 * _of_batch(1.0, alike, batch) / places[0].units
    return Fluctuation(kernel.variance + own, kernel.shift - own / 2, kernel.holds)


def backward_fluctuation(layers: list[LayerTheory], units: int, batch: int) -> Fluctuation:
    r"""Return how ln of a gradient's second moment varies at each layer, shape (L + 1,).

    A layer adds $\beta\,\delta\ln K + \tfrac12\beta'(\delta\ln K)^2$, $\beta$ = `chi_memory` and
    $\beta'$ = `chi_curve`, and a mean over n units, whose logarithm has mean
    $-\tfrac12v_{backward}/n$. The cotangent at the end is drawn as well, of variance 2/n.

    Args:
        layers: from first to last.
        units: n of the last h.
        batch: inputs that the second moment is a mean over.
    """
    kernel, alone = kernel_fluctuation(layers, batch), kernel_fluctuation(layers, 1)
    variance, single = _sum_back(layers, kernel, batch), _sum_back(layers, alone, 1)
    each = [
        layer.chi_memory * alone.shift[k]
        + layer.chi_curve * alone.variance[k] / 2
        - layer.backward / layer.start.units / 2
        for k, layer in enumerate(layers)
    ]
    mean = np.append(np.cumsum(each[::-1])[::-1], 0.0)
    variance += 2 / batch / units  # the cotangent
    single += 2 / units
    mean -= 1 / units
    holds = np.full(len(layers) + 1, kernel.holds.all())
    return Fluctuation(variance, mean + (single - variance) / 2, holds)


def _sum_back(layers: list[LayerTheory], kernel: Fluctuation, batch: int) -> np.ndarray:
    r"""Return the variance of the sum of the logarithms of all factors back to each layer.

    Of the covariances $C_{jj} = v_{backward}/n + \beta_j^2 v_j$ and, for k > j, $C_{jk} =
    \beta_k\,p_{k-1}\cdots p_{j+1}(\beta_j p_j v_j + v_{mixed}/n)$, all from j on are added: from
    the last layer back, with $r_j = \beta_j + p_j r_{j+1}$, which is $\sum_{k\ge j}\beta_k\,
    p_{k-1}\cdots p_j$.
    """
    total, reach = [0.0], 0.0
    for j, layer in reversed(list(enumerate(layers))):
        n, v_j = layer.start.units, kernel.variance[j]
        fresh = _of_batch(layer.backward, layer.backward_shared, batch) / n
        own = fresh + layer.chi_memory**2 * v_j
        later = layer.chi_memory * layer.memory * v_j
        later += _of_batch(layer.mixed, layer.mixed_shared, batch) / n
        total.append(total[-1] + own + 2 * later * reach)
        reach = layer.chi_memory + layer.memory * reach
    return np.maximum(total[::-1], 0)
