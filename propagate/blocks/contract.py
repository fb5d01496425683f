r"""What a layer family is: the parameters it has, and how it takes a signal to the next layer.

A family is an `(init, apply)` pair. `init` only describes the parameters, so that a sweep can draw
them once and share the draws; `apply` is one layer of one configuration, written with what `At`
offers: `product` multiplies by a weight, `phi` activates, `tap` and `note` record. The engine
batches it over configurations, scans it over depth and turns it round for the way back.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from propagate import checks, registry
from propagate.blocks.layer import LayerContext
from propagate.blocks.parameters import Parameter, Size, gradient_of
from propagate.record.measures import MEASURES, Measure
from propagate.record.statistics import q
from propagate.types import Array, UnusableInput

Norm = Literal["none", "batch", "layer", "rms"]
NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of layers, and what any of them may have.

    Attributes:
        norm: normalisation without parameters, next to the activation: over the batch (train
            mode; of a convolution over its positions too), over the units of each input (and
            position), or by their rms.
        norm_at: whether it acts `"before"` the activation or `"after"` it.
        dropout: the share of activated units that is dropped; the rest is scaled up.

    A subclass says how its signals look (`signal`), which parameters a layer has (`init`) and what
    a layer does (`apply`).
    """

    norm: Norm = "none"
    norm_at: Literal["before", "after"] = "before"
    dropout: float = 0.0

    name: ClassVar[str]
    resizes: ClassVar[bool] = False  # whether a layer may change the number of units
    starts_with_phi: ClassVar[bool] = True  # so that data goes past the first activation
    wants_gain: ClassVar[bool] = False
    arrays: ClassVar[int] = 1  # of a signal's size that a layer keeps for the way back
    bypassed: ClassVar[bool] = False  # whether a signal can go past the weights of a layer
    inner_units: ClassVar[bool] = False  # whether a layer has units between two of its weights

    def __post_init__(self) -> None:
        checks.check_choice("norm", self.norm, Norm)
        checks.check_choice("norm_at", self.norm_at, ("before", "after"))
        checks.check_number("dropout", self.dropout)
        if not 0 <= self.dropout < 1:
            raise UnusableInput(f"dropout must lie in [0, 1), got {self.dropout:g}")

    def __str__(self) -> str:
        """Return the spelling that `propagate.blocks.family` reads."""
        fields = {f.name: f for f in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in fields}
        return registry.spell(self.name, {n: f.default for n, f in fields.items()}, values)

    def check(self, width: int, depth: int) -> None:
        """Raise `UnusableInput` if the family cannot be built at this width."""

    def signal(self, units: int) -> tuple[int, ...]:
        """Return the shape of one input's signal."""
        return (units,)

    def init(self, size: Size) -> dict[str, Parameter]:
        """Return the parameters of a layer."""
        raise NotImplementedError

    def apply(self, at: LayerContext, h: Array) -> Array:
        """Return a layer's h, (batch, *signal(fan_out)), from that of the layer before."""
        raise NotImplementedError

    def outputs(self, h: Array) -> Array:
        """Return what a loss sees of (batch, *signal): units, averaged over any positions."""
        return jnp.mean(h.reshape(h.shape[0], -1, h.shape[-1]), axis=1)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The statistics beside those of every stack."""
        return ()

    @property
    def table(self) -> tuple[Measure, ...]:
        """The statistics that its stacks have, those of the gradient of each weight included."""
        every = self.init(Size(1, 1, 1, 1)).items()
        weights = [gradient_of(name) for name, p in every if p.kind == "weight"]
        if len(weights) == 1:
            return (*MEASURES, *self.measures)
        return (*MEASURES, *self.measures, Measure("q", q, tuple(weights), power=2))

    @property
    def zero_scaled(self) -> str:
        """The place of what a learned scalar multiplies, which is zero at the start; "" if none."""
        return ""

    @property
    def depth_scaled(self) -> bool:
        """Whether a layer depends on the depth of its stack: a deeper one then begins otherwise."""
        return False

    @property
    def normed_end(self) -> bool:
        """Whether the last layer's output is normalised, and what other layers give is not."""
        return False

    @property
    def homogeneous(self) -> bool:
        """Whether scaling the input scales every signal alike if phi is homogeneous."""
        return self.norm == "none"

    def masks(self, size: Size, name: str = "mask") -> dict[str, Parameter]:
        """Return the parameter that `dropped` needs under a name, if any."""
        shape = (size.batch, *self.signal(size.fan_in))
        return {name: Parameter(shape, kind="uniform")} if self.dropout else {}

    def activated(self, at: LayerContext, h: Array, mask: str = "mask") -> Array:
        """Return phi(h), normalised and dropped out as the options say."""
        x = at.phi(normalise(self.norm, h) if self.norm_at == "before" else h)
        x = normalise(self.norm, x) if self.norm_at == "after" else x
        return self.dropped(at, x, mask)

    def dropped(self, at: LayerContext, x: Array, mask: str) -> Array:
        """Return x with a share of units dropped, the rest scaled up."""
        if not self.dropout:
            return x
        return jnp.where(at.params[mask] >= self.dropout, x / (1 - self.dropout), 0)


def normalise(norm: Norm, x: Array) -> Array:
    r"""Return $(x - m)/\sqrt{v + \epsilon}$ with the moments of `norm`; eps is 1e-5."""
    if norm == "none":
        return x
    axes = tuple(range(x.ndim - 1)) if norm == "batch" else (-1,)
    if norm != "rms":
        x = x - jnp.mean(x, axes, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axes, keepdims=True) + NORM_EPS)
