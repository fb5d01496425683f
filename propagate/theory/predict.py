r"""`predict`: the record that theory expects of a stack, with a band for finite width and batch."""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from propagate.checks import check_count
from propagate.initializers import Initializer
from propagate.network import Network
from propagate.record import provenance
from propagate.theory import finite_width
from propagate.theory.families import IDENTITY, passages, variances
from propagate.theory.finite_width import Law, Place, State, Step, Wander
from propagate.theory.layer_maps import gradients
from propagate.types import UnusableInput

LN10 = math.log(10)


def predict(
    net: Network, *, batch: int = 128, q: float = 1.0, correlation: float = 0.0
) -> xr.Dataset:
    r"""Return the record that theory expects `measure` to find.

    Args:
        net: a stack with independent, centred weights: plain layers, circular convolutions,
            residual blocks, with any norm and dropout.
        batch: how many inputs a second moment is averaged over.
        q: second moment of the input.
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
    if str(net.family) != "mlp":
        return _of_family(net, batch, q, 1 - correlation)
    steps, end = travel(net, q, 1 - correlation)
    places = [*(step.start for step in steps), end]
    kernel = finite_width.forward(steps, batch)
    forward = finite_width.measured(places, kernel, batch)
    backward = finite_width.backward(steps, end.units, batch)
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
            "log10_backward_q": growth(steps) + backward.shift / LN10,
            "log10_backward_q_sd": _decades(backward),
        }
    return _record(net, columns, "mean field, 1/n")


def _record(net: Network, columns: dict[str, np.ndarray], theory: str) -> xr.Dataset:
    rows = {name: ("layer", values) for name, values in columns.items()}
    made = xr.Dataset(rows, {"layer": np.arange(net.depth + 1)})
    return made.assign_attrs(provenance.provenance(network=net.describe(), theory=theory))


def _of_family(net: Network, batch: int, q: float, apart: float) -> xr.Dataset:
    """Return the limit of wide layers, whose band is not known."""
    steps = passages(net, q, apart, batch)
    q_of = np.array([q, *(s.q for s in steps)])
    between = np.array([apart, *(s.apart for s in steps)])
    unknown = np.full(net.depth + 1, math.inf)
    with np.errstate(divide="ignore"):
        columns = {
            "log10_forward_q": np.log10(q_of),
            "log10_forward_q_sd": unknown,
            "forward_correlation": 1 - between,
            "log10_forward_variance": np.log10(q_of * between * (1 - 1 / batch)),
            "log10_backward_q": np.log10(gradients(steps)[:, 0]),
            "log10_backward_q_sd": unknown,
        }
    return _record(net, columns, "mean field")


def _decades(wander: Wander) -> np.ndarray:
    """Return the standard deviation in decades; inf where the width is too small for 1/n theory."""
    return np.where(wander.holds, np.sqrt(wander.variance) / LN10, math.inf)


def growth(steps: Sequence[Step]) -> np.ndarray:
    """Return log10 of a gradient's second moment at each layer, at infinite width."""
    return np.append(np.log10([step.chi for step in steps])[::-1].cumsum()[::-1], 0.0)


def travel(net: Network, q: float, apart: float) -> tuple[list[Step], Place]:
    """Return the step from every layer, the input first, and where the last one leads."""
    activated = net.activate_input in (None, True)
    state, steps, held = State(q, apart), [], _keeps_norms(net.init)
    for k, (fan_in, fan_out) in enumerate(net.shapes):
        keeps = fan_in == fan_out and held
        law = Law(*variances(net.init, fan_in, fan_out), fan_in, fan_out, keeps)
        phi = IDENTITY if k == 0 and not activated else net.activation
        found, state = finite_width.step(phi, law, state, _gradient_c2(net, k))
        steps.append(found)
    return steps, finite_width.end(net.activation, net.shapes[-1][1], held, state)


def _gradient_c2(net: Network, k: int) -> float:
    """Return the mean squared cosine of two inputs' gradients after layer k: independent at the
    output, where they are drawn, and turned by each layer's draw on the way."""
    return min(1.0, sum(1 / fan_out for _, fan_out in net.shapes[k:]))


def _keeps_norms(law: Initializer) -> bool:
    return law.base.name == "orthogonal"
