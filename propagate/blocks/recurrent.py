r"""Recurrent stacks: time is the depth, and every step has the same weights.

The input of each step is noise of second moment 1. The gradient is that of the last state with
respect to each earlier one.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from propagate import checks
from propagate.blocks.contract import Family
from propagate.blocks.framework_defaults import Defaults, framework_inits
from propagate.blocks.layer import LayerContext
from propagate.blocks.parameters import Parameter, Size
from propagate.initializers import initializer
from propagate.record.measures import Measure
from propagate.record.statistics import q
from propagate.types import Array, Float


@dataclass(frozen=True, kw_only=True)
class _Recurrent(Family):
    """A recurrent stack.

    Attributes:
        recurrent_init: the weights on the state; the initialiser that is swept by default.
        input_init: the weights on the input; likewise.
        defaults: the laws of a framework for both and for the biases, whatever is swept.
    """

    recurrent_init: str = ""
    input_init: str = ""
    defaults: Defaults = "none"

    gates: ClassVar[tuple[str, ...]] = ("state",)
    homogeneous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_choice("defaults", self.defaults, Defaults)
        for spec in filter(None, (self.recurrent_init, self.input_init)):
            initializer(spec)

    def init(self, size: Size) -> dict[str, Parameter]:
        """Return the weights and biases that all steps share, and each step's input."""
        n = size.fan_in
        given = None if self.defaults == "none" else framework_inits(self.defaults, len(self.gates))
        recurrent = initializer(self.recurrent_init) if self.recurrent_init else None
        kernel = initializer(self.input_init) if self.input_init else None
        if given:
            recurrent, kernel = recurrent or given.recurrent, kernel or given.input
        own = partial(Parameter, fan_in=n, fan_out=n, shared=True)
        found = {}
        for gate in self.gates:
            found[f"recurrent_{gate}"] = own((n, n), init=recurrent)
            found[f"input_{gate}"] = own((n, n), init=kernel)
            factor, init = (given.bias, given.input) if given else (1.0, None)
            found[f"bias_{gate}"] = own((n,), kind="bias", init=init, factor=factor)
        found["input"] = Parameter((size.batch, n), kind="noise")
        return found | self.masks(size)

    def gate(self, at: LayerContext, name: str, state: Array) -> Array:
        """Return a gate's pre-activation, W h + U x + b."""
        u = at.product(f"recurrent_{name}", state)
        return at.bias(f"bias_{name}", u + at.product(f"input_{name}", at.params["input"]))


@dataclass(frozen=True, kw_only=True)
class Rnn(_Recurrent):
    r"""A vanilla network, $h_t = \phi(h_{t-1}) W + x_t U + b$, h before the activation.

    Example:
        >>> str(Rnn(recurrent_init="orthogonal"))
        'rnn(recurrent_init=orthogonal)'
    """

    name: ClassVar[str] = "rnn"

    def apply(self, at: LayerContext, h: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
        """Return the next state."""
        return self.gate(at, "state", self.activated(at, h))


@dataclass(frozen=True, kw_only=True)
class Lstm(_Recurrent):
    r"""An LSTM: $c_t = \sigma(f) c_{t-1} + \sigma(i)\phi(g)$, $h_t = \sigma(o)\phi(c_t)$.

    A signal is the pair (c, h). Where f is its bias alone, c remembers for $-1/\ln\sigma(b_f)$
    steps.

    Attributes:
        forget: added to the bias of the forget gate; the framework's own by default, or 0.

    Example:
        >>> Lstm(defaults="keras").forget_bias
        1.0
    """

    forget: float | None = None

    name: ClassVar[str] = "lstm"
    gates: ClassVar[tuple[str, ...]] = ("input_gate", "forget_gate", "candidate", "output_gate")
    starts_with_phi: ClassVar[bool] = False
    arrays: ClassVar[int] = 8
    bypassed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forget is not None:
            checks.check_number("forget", self.forget)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The statistics of the two states."""
        places = ("cell", "cell_gradient", "hidden", "hidden_gradient")
        return (Measure("q", q, places, power=2),)

    @property
    def forget_bias(self) -> float:
        """What is added to the bias of the forget gate."""
        if self.forget is not None or self.defaults == "none":
            return self.forget or 0.0
        return framework_inits(self.defaults, len(self.gates)).forget

    def signal(self, units: int) -> tuple[int, ...]:
        """Return (2, units): the cell and the hidden state."""
        return (2, units)

    def masks(self, size: Size, name: str = "mask") -> dict[str, Parameter]:
        """Return the mask of the candidate."""
        shape = (size.batch, size.fan_in)
        return {name: Parameter(shape, kind="uniform")} if self.dropout else {}

    def apply(self, at: LayerContext, h: Float[Array, "batch 2 n"]) -> Float[Array, "batch 2 n"]:
        """Return the next cell and hidden state."""
        cell, hidden = at.tap("cell", h[:, 0]), at.tap("hidden", h[:, 1])
        i, f, g, o = (self.gate(at, name, hidden) for name in self.gates)
        kept = jax.nn.sigmoid(f + self.forget_bias) * cell
        cell = kept + jax.nn.sigmoid(i) * self.activated(at, g).astype(cell.dtype)
        hidden = jax.nn.sigmoid(o) * at.phi(cell).astype(cell.dtype)
        return jnp.stack([cell, hidden], axis=1)


@dataclass(frozen=True, kw_only=True)
class Gru(_Recurrent):
    r"""A GRU: $h_t = (1-z) \phi(x_t U + r (h_{t-1} W) + b) + z h_{t-1}$ with gates r and z.

    The reset acts on the product, as in PyTorch, Keras and Flax; Haiku's acts on the state.
    PyTorch's second bias stands within the reset, $r (h_{t-1} W + b')$.

    Example:
        >>> sorted(Gru().init(Size(4, 4, 9, 2)))[:2]
        ['bias_candidate', 'bias_inside']
    """

    name: ClassVar[str] = "gru"
    gates: ClassVar[tuple[str, ...]] = ("reset", "update", "candidate")
    starts_with_phi: ClassVar[bool] = False
    arrays: ClassVar[int] = 6
    bypassed: ClassVar[bool] = True

    def init(self, size: Size) -> dict[str, Parameter]:
        """Return the parameters of every recurrent stack, and the bias within the reset."""
        found = super().init(size)
        two = self.defaults == "torch"
        outside = found["bias_candidate"]
        found["bias_inside"] = replace(outside, factor=1.0 if two else 0.0)
        return found | ({"bias_candidate": replace(outside, factor=1.0)} if two else {})

    def apply(self, at: LayerContext, h: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
        """Return the next state."""
        reset, update = (jax.nn.sigmoid(self.gate(at, name, h)) for name in self.gates[:2])
        u = reset * at.bias("bias_inside", at.product("recurrent_candidate", h))
        u = at.bias("bias_candidate", u + at.product("input_candidate", at.params["input"]))
        return (1 - update) * self.activated(at, u).astype(h.dtype) + update * h
