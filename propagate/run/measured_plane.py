"""Networks over the plane of variances, to be drawn on top of a phase diagram."""

from collections.abc import Sequence

from propagate.activations import ActivationLike
from propagate.network import Network
from propagate.run.sweep import sweep
from propagate.types import Array
from propagate.verdicts.growth import growth


def measured_phase(
    phi: ActivationLike,
    sigma_w2: Sequence[float],
    sigma_b2: Sequence[float],
    *,
    key: Array,
    depth: int = 30,
    width: int = 256,
) -> list[tuple[float, float, float]]:
    """Return (sigma_w², sigma_b², decades per layer of the gradient) of a network at each pair.

    The rate is that of the settled layers (`findings.growth`).
    """
    pairs = [(float(w), float(b)) for w in sigma_w2 for b in sigma_b2]
    found = sweep(
        Network(depth, width),
        init=[(w**0.5, b**0.5) for w, b in pairs],
        activation=[phi],
        key=key,
        measures=("q",),
    ).isel(activation=0)
    gradients = (found["log10_backward_q"].isel(init=k).values for k in range(len(pairs)))
    return [(*pair, growth(g, "backward").rate) for pair, g in zip(pairs, gradients, strict=True)]
