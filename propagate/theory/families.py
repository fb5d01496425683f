r"""What theory says of a stack of any family that it covers: a `Passage` for each layer.

`passages` goes through the stack with (q, 1 - c); for each layer `_of_family` names the function
that puts the family's parts (norm, phi, dropout, weights, skip) together from `layer_maps`, with
the `variances` of the initialiser.
"""

import math
from collections.abc import Callable

from propagate.activations import Activation, activation
from propagate.blocks.contract import Family
from propagate.blocks.conv import Conv1d, Conv2d
from propagate.blocks.mlp import Mlp
from propagate.blocks.parameters import LayerSpec, Parameter
from propagate.blocks.residual import Residual
from propagate.initializers import Initializer
from propagate.network import Network, layer_table
from propagate.theory.layer_maps import Norm, Passage, Weights, chain, layer, residual
from propagate.types import UnusableInput

IDENTITY = activation("identity")


def passages(net: Network, q: float, apart: float, batch: int) -> list[Passage]:
    """Return what each layer makes of a signal, and of gradients on their way back.

    Args:
        net: a stack of layers, convolutions or residual blocks, normalised or not.
        q: second moment of the input, per unit.
        apart: 1 - c of two inputs.
        batch: how many inputs a batch norm sees.

    Returns:
        L passages, from first to last.

    Raises:
        UnusableInput: not covered by theory; the message says what is not.
    """
    of = _of_family(net.family)
    found = []
    for k, spec in enumerate(layer_table(net, batch)):
        first = IDENTITY if k == 0 and net.activate_input is False else net.activation
        at = _Layer(net, first, spec, k + 1)
        found.append(of(at, q, apart))
        q, apart = found[-1].q, found[-1].apart
    return found


class _Layer:
    """One layer; data goes past the first of its activations."""

    def __init__(self, net: Network, first: Activation, spec: LayerSpec, index: int) -> None:
        self.family, self.init, self.size, self.index = net.family, net.init, spec.size, index
        self.phi, self.first = net.activation, first
        self.parameters = dict(spec.parameters)

    def passage(
        self, weight: str, bias: str, q: float, apart: float, *, first: bool = True
    ) -> Passage:
        """Return norm, phi, norm, dropout, weights, as the family's options have it."""
        norm: Norm | None = None if self.family.norm == "none" else self.family.norm
        own = self.weights(self.parameters[weight], self.parameters[bias])
        after = self.family.norm_at == "after"
        size = self.size.batch
        phi = self.first if first else self.phi
        return layer(phi, own, q, apart, norm=norm, after=after, batch=size)

    def weights(self, weight: Parameter, bias: Parameter) -> Weights:
        r"""Return $f_w^2\sigma_w^2$ and $f_b^2\sigma_b^2$, with ρ and widths."""
        sigma_w2, sigma_b2 = variances(self.init, weight.fan_in, weight.fan_out)
        keep = 1 - self.family.dropout
        widen = self.size.fan_out / self.size.fan_in
        return Weights(weight.factor**2 * sigma_w2, bias.factor**2 * sigma_b2, keep, widen)


def _of_family(family: Family) -> Callable[[_Layer, float, float], Passage]:
    """Return the function from (layer, q, 1 - c) to a passage, or raise `UnusableInput`."""
    if isinstance(family, Mlp):
        return _plain
    if isinstance(family, Conv1d | Conv2d):
        if family.padding == "zero":
            raise UnusableInput("zero padding is not covered by theory: it leaks at the borders")
        if family.norm == "batch":
            raise UnusableInput("a batch norm over positions is not covered by theory")
        return _plain
    if isinstance(family, Residual):
        return _normalizer_free if family.branch == "nf" else _residual
    raise UnusableInput(
        f"{family.name} is not covered by theory: its layers share weights or multiply signals"
    )


def _plain(at: _Layer, q: float, apart: float) -> Passage:
    """Return the passage of one layer with one weight; a circular convolution's is the same."""
    return at.passage("weight", "bias", q, apart)


def _residual(at: _Layer, q: float, apart: float) -> Passage:
    r"""Return the passage of $h + \alpha f(h)$, f the branch of `maps` layers."""
    family = at.family
    assert isinstance(family, Residual)

    def step(k: int, q: float, apart: float) -> Passage:
        return at.passage(f"map{k}", f"bias{k}", q, apart, first=k == 1)

    return residual(_branch(family, step, q, apart), q, apart, scale=family.scale(at.size.depth))


def _branch(
    family: Residual, step: Callable[[int, float, float], Passage], q: float, apart: float
) -> Passage:
    """Return the passage through all maps of a branch, from that of each."""
    steps = []
    for k in range(1, family.maps + 1):
        steps.append(step(k, q, apart))
        q, apart = steps[-1].q, steps[-1].apart
    return chain(*steps)


def _normalizer_free(at: _Layer, q: float, apart: float) -> Passage:
    r"""Return the passage of $h + \alpha f(h/\beta)$, $\beta^2$ the stream's expected variance.

    Weights are standardised, so that the mean of x is lost, and gains bring its variance to 1, as
    a layer norm after phi does. Gradients of the branch are divided by $\beta^2$. Brock et al.
    (2021).
    """
    family = at.family
    assert isinstance(family, Residual)
    beta2 = float(family.expected_variance(at.index))
    if not math.isclose(q, beta2, rel_tol=1e-6) or family.norm != "none":
        raise UnusableInput(
            f"nf is covered where its stream has the expected variance {beta2:g} and no norm, "
            f"got {q:g} and norm={family.norm}"
        )
    own = Weights(1.0, variances(at.init, at.size.fan_in, at.size.fan_out)[1], 1 - family.dropout)

    def step(k: int, q: float, apart: float) -> Passage:
        return layer(at.first if k == 1 else at.phi, own, q, apart, norm="layer", after=True)

    branch = _branch(family, step, q / beta2, apart)
    branch = branch._replace(back=branch.back / beta2)
    return residual(branch, q, apart, scale=family.scale(at.size.depth))


def variances(init: Initializer, fan_in: int, fan_out: int) -> tuple[float, float]:
    r"""Return $\sigma_w^2$ = fan_in·Var W and $\sigma_b^2$ = Var b of a layer.

    Args:
        init: the initialiser.
        fan_in: units that a unit sums over.
        fan_out: units that a unit feeds.

    Raises:
        UnusableInput: weights that are scaled by data, or that are not centred and independent.
    """
    mean, variance = init.moments(fan_in, fan_out)
    if init.data_scaled:
        why = "its scale depends on the data"
    elif math.isnan(variance):
        why = "the moments of a function of your own are not known"
    elif mean or init.base.name == "identity" or init.base.name.startswith("sparse"):
        why = "its weights are not independent, centred and of finite spread over fan_in"
    else:
        return fan_in * variance, init.bias(fan_in, fan_out) ** 2
    raise UnusableInput(f"{init.name} is not covered by theory: {why}")
