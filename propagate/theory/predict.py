r"""`predict`: the record that theory expects of a stack, with a band for finite width and batch.

A plain stack (family "mlp" without options) is followed layer by layer at infinite width
(`through_stack`), and the constants found on the way are added up to what finite width changes
(`finite_width.fluctuation`). Every other family that is covered has a `Passage` for each layer
(`families`), the limit of wide layers alone. Both end as the columns of a record.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from propagate.checks import check_count
from propagate.network import Network
from propagate.record import provenance
from propagate.theory.criticality import tuned
from propagate.theory.families import IDENTITY, passages, variances
from propagate.theory.finite_width.fluctuation import (
    Fluctuation,
    backward_fluctuation,
    forward_fluctuation,
    kernel_fluctuation,
)
from propagate.theory.finite_width.layer_theory import (
    LayerTheory,
    LayerVariances,
    Preactivation,
    Signal,
    last_preactivation,
    through_layer,
)
from propagate.theory.layer_maps import gradients
from propagate.theory.mean_field import sloped
from propagate.types import UnusableInput

LN10 = math.log(10)


def predict(
    net: Network, *, batch: int = 128, q: float = 1.0, correlation: float = 0.0
) -> xr.Dataset:
    r"""Return the record that theory expects `measure` to find.

    At infinite width $q' = \sigma_w^2E\phi^2 + \sigma_b^2$, and a gradient's second moment grows by
    $\chi = \sigma_w^2E\phi'^2\,n_{out}/n_{in}$ in a layer, on its way back; beside it, what
    width-1/n theory says of their logarithms.

    Args:
        net: a stack with independent, centred weights: plain layers, circular convolutions,
            residual blocks, with any norm and dropout.
        batch: how many inputs a second moment is averaged over.
        q: second moment of the input, per unit.
        correlation: mean cosine between inputs, from 0 to 1.

    Returns:
        A record with dim (layer): `log10_forward_q`, `log10_activation_q`,
        `log10_forward_variance`, `forward_correlation`, `log10_backward_q`, and
        `log10_forward_q_sd`, `log10_backward_q_sd`: the standard deviation over draws of the
        weights, in decades, or inf where theory cannot say: the width is too small, or the stack
        is not plain. The logarithms are means over draws, as those of seeds are.
        `log10_activation_q` is of plain stacks alone.

    Raises:
        UnusableInput: not covered by theory; the message says what is not.

    Example:
        >>> theory = predict(Network(depth=30, width=512, init="xavier_normal"))
        >>> round(float(theory.log10_forward_q[-1]), 2)
        -9.08
    """
    if not isinstance(net, Network):
        raise UnusableInput(
            f"predict takes a Network, got {type(net).__name__}: of a model of your own, "
            "propagate.diagnose(…).theory() is the prediction"
        )
    check_count("batch", batch)
    if not 0 < q < math.inf or not 0 <= correlation <= 1:
        raise UnusableInput(
            f"q must be positive and finite and correlation in [0, 1], got {q} and {correlation}"
        )
    net = dataclasses.replace(net, init=tuned(net.init, sloped(net.activation)))
    if str(net.family) != "mlp":
        return _of_family(net, batch, q, 1 - correlation)
    through, last = through_stack(net, q, 1 - correlation)
    layers = list(through)
    places = [*(layer.start for layer in layers), last]
    kernel = kernel_fluctuation(layers, batch)
    forward = forward_fluctuation(places, kernel, batch)
    backward = backward_fluctuation(layers, last.units, batch)
    q_of, apart, second = (
        np.array([getattr(p, k) for p in places]) for k in ("q", "apart", "second")
    )
    with np.errstate(divide="ignore"):
        columns = {
            "log10_forward_q": np.log10(q_of) + forward.shift / LN10,
            "log10_forward_q_sd": _decades(forward),
            "log10_activation_q": np.log10(second) + kernel.shift / LN10,
            "forward_correlation": 1 - apart,
            "log10_forward_variance": np.log10(q_of * apart * (1 - 1 / batch)),
            "log10_backward_q": log10_gradient(layers) + backward.shift / LN10,
            "log10_backward_q_sd": _decades(backward),
        }
    return _record(net, columns, "mean field, 1/n")


def _record(net: Network, columns: dict[str, np.ndarray], theory: str) -> xr.Dataset:
    """Return columns of shape (L + 1,) as a record of the network, with the name of the theory."""
    rows = {name: ("layer", values) for name, values in columns.items()}
    made = xr.Dataset(rows, {"layer": np.arange(net.depth + 1)})
    return made.assign_attrs(provenance.provenance(network=net.describe(), theory=theory))


def _of_family(net: Network, batch: int, q: float, apart: float) -> xr.Dataset:
    r"""Return the limit of wide layers, whose band is not known.

    The variance over a batch of B inputs is $q(1-c)(1 - 1/B)$.
    """
    through = passages(net, q, apart, batch)
    q_of = np.array([q, *(one.q for one in through)])
    apart_of = np.array([apart, *(one.apart for one in through)])
    unknown = np.full(net.depth + 1, math.inf)
    with np.errstate(divide="ignore"):
        columns = {
            "log10_forward_q": np.log10(q_of),
            "log10_forward_q_sd": unknown,
            "forward_correlation": 1 - apart_of,
            "log10_forward_variance": np.log10(q_of * apart_of * (1 - 1 / batch)),
            "log10_backward_q": np.log10(gradients(through)[:, 0]),
            "log10_backward_q_sd": unknown,
        }
    return _record(net, columns, "mean field")


def _decades(log: Fluctuation) -> np.ndarray:
    """Return sqrt(variance)/ln 10 in decades; inf where the width is too small for 1/n theory."""
    return np.where(log.holds, np.sqrt(log.variance) / LN10, math.inf)


def log10_gradient(layers: Sequence[LayerTheory]) -> np.ndarray:
    r"""Return $\log_{10}\prod_{k\ge l}\chi_k$, of a gradient's second moment at infinite width.

    Args:
        layers: of `through_stack`, L of them.

    Returns:
        In decades, of 1 at the output; shape (L + 1,).
    """
    return np.append(np.log10([layer.chi for layer in layers])[::-1].cumsum()[::-1], 0.0)


@functools.lru_cache(maxsize=32)  # `sweep` asks, too, where its seeds settle nothing
def through_stack(
    net: Network, q: float, apart: float
) -> tuple[tuple[LayerTheory, ...], Preactivation]:
    """Return the theory of every layer, the input's first, and the h where the last one leads.

    Args:
        net: a plain stack of L layers.
        q: second moment of the input.
        apart: 1 - c of two inputs.

    Raises:
        UnusableInput: not covered by theory; the message says what is not.
    """
    activated = net.activate_input in (None, True)
    keeps_norms = net.init.base.name == "orthogonal"
    signal, layers = Signal(q, apart), []
    for k, ((fan_in, fan_out), c2) in enumerate(zip(net.shapes, _gradients_c2(net), strict=True)):
        sigma_w2, sigma_b2 = variances(net.init, fan_in, fan_out)
        orthogonal = fan_in == fan_out and keeps_norms
        weights = LayerVariances(sigma_w2, sigma_b2, fan_in, fan_out, orthogonal)
        phi = IDENTITY if k == 0 and not activated else net.activation
        found, signal = through_layer(phi, weights, signal, c2)
        layers.append(found)
    return tuple(layers), last_preactivation(net.activation, net.shapes[-1][1], keeps_norms, signal)


def _gradients_c2(net: Network) -> list[float]:
    r"""Return $\min(1, \sum_{j\ge k}1/n_{j+1})$, the mean squared cosine of two inputs' gradients.

    Derived here: they are independent at the output, where they are drawn, and turned by each
    layer's draw on the way back to layer k; shape (L,).
    """
    turned = itertools.accumulate(1 / fan_out for _, fan_out in reversed(net.shapes))
    return [min(1.0, c2) for c2 in turned][::-1]
