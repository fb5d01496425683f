"""`Network`: the full description of a deep stack, frozen, hashable, validated when made."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from propagate import activations, blocks, checks, initializers
from propagate.activations import Activation
from propagate.blocks.contract import Family
from propagate.blocks.parameters import LayerSpec, Size
from propagate.initializers import Initializer
from propagate.types import DTypeLike, Elementwise, Precision, Sampler, UnusableInput

LAYER_BYTES = 200  # of memory that the description of a layer takes, while it is made
MOST_BYTES = 10**9  # for the description of a stack


@dataclass(frozen=True, init=False)
class Network:
    r"""A deep stack $h_l = W_l\,\phi(h_{l-1}) + b_l$, $l = 1 … L$, with output $h_L$.

    The input is $h_0$. Random inputs stand for the pre-activations of a layer 0, as in
    mean-field theory, so that all L layers are the same map; data goes straight into $W_1$,
    without $\phi$ (`activate_input`).

    Attributes:
        depth: L, the number of weight matrices.
        width: units per layer.
        family: the kind of layer: a name such as `"conv2d"`, with options as in
            `"conv2d(kernel=5)"`, or an object of `propagate.blocks`.
        activation: a name, an `Activation` or any function `array -> array`.
        init: a name, a pair (sigma_w, sigma_b), an `Initializer` or any function
            `(key, shape, dtype) -> array`.
        input_size: features of the input; the width by default.
        output_size: units of the last layer; the width by default.
        activate_input: whether phi acts on the input; by default on random inputs only.
        dtype: of weights and signals; statistics are float32 or wider.
        precision: of the matrix products, as `jax.lax.Precision`.

    Raises:
        UnusableInput: any of these is out of its range.

    Example:
        >>> Network(depth=3, width=8, init="xavier_normal").init.law
        'variance 2/(fan_in + fan_out)'
    """

    depth: int
    width: int
    family: Family
    activation: Activation
    init: Initializer
    input_size: int | None
    output_size: int | None
    activate_input: bool | None
    dtype: str
    precision: Precision

    def __init__(
        self,
        depth: int = 50,
        width: int = 256,
        family: str | Family = "mlp",
        activation: str | Activation | Elementwise = "relu",
        init: str | tuple[float, float] | Initializer | Sampler = "he_normal",
        input_size: int | None = None,
        output_size: int | None = None,
        activate_input: bool | None = None,
        dtype: DTypeLike = "float32",
        precision: Precision = "highest",
    ) -> None:
        self._set(depth=depth, width=width, input_size=input_size, output_size=output_size)
        self._set(activation=activations.activation(activation))
        self._set(init=initializers.initializer(init), family=blocks.family(family))
        self._set(activate_input=activate_input, precision=precision, dtype=_float_dtype(dtype))
        for name in ("depth", "width", "input_size", "output_size"):
            if getattr(self, name) is not None or not name.endswith("_size"):
                checks.check_count(name, getattr(self, name))
        _check_depth(depth)
        if activate_input not in (None, True, False):
            raise UnusableInput(
                f"activate_input must be True, False or None, got {activate_input!r}"
            )
        checks.check_choice("precision", precision, Precision)
        self._check_family()

    def _set(self, **fields: Any) -> None:
        """Set fields of a frozen instance that is being made."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _check_family(self) -> None:
        sizes = {self.width, self.input_size or self.width, self.output_size or self.width}
        if len(sizes) > 1 and not self.family.resizes:
            raise UnusableInput(
                f"a layer of {self.family.name} has as many outputs as inputs: width, input_size "
                f"and output_size must be equal, got {', '.join(map(str, sorted(sizes)))}"
            )
        if self.activate_input is not None and not self.family.starts_with_phi:
            raise UnusableInput(
                f"a layer of {self.family.name} does not start with its activation: leave "
                f"activate_input out, got {self.activate_input}"
            )
        for units in sizes:
            self.family.check(units, self.depth)
        self.check(self.init)

    def check(self, init: Initializer) -> None:
        """Raise `UnusableInput` if an initialiser cannot draw the shapes of the layers."""
        for spec in distinct(layer_table(self)):
            for weight in spec.weights.values():
                (weight.init or init).base.check(weight.shape)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(fan_in, fan_out) of every weight matrix, first to last."""
        sizes = [self.input_size or self.width, *[self.width] * (self.depth - 1)]
        return tuple(zip(sizes, [*sizes[1:], self.output_size or self.width], strict=True))

    def describe(self) -> dict[str, str | int]:
        """Return the specification as plain values, as records carry it."""
        own = {"family": self.family, "activation": self.activation.name, "init": self.init.name}
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | own
        return {k: v if isinstance(v, int) else str(v) for k, v in values.items() if v is not None}


def _check_depth(depth: int) -> None:
    """Refuse so many layers that a list of them would fill the memory, before it is made."""
    needed = LAYER_BYTES * depth
    if needed > MOST_BYTES:
        size = f"{needed / 1e9:.3g}" if depth < 10**15 else f"10^{len(str(needed // 10**9)) - 1}"
        raise UnusableInput(
            f"depth must be at most {MOST_BYTES // LAYER_BYTES}, got {depth}: a description of so "
            f"many layers takes about {size} GB. Growth is a rate per layer, which a stack of a "
            "thousand layers tells as well"
        )


@functools.lru_cache(maxsize=64)
def layer_table(net: Network, batch: int = 1) -> tuple[LayerSpec, ...]:
    """Return what every layer of a network is, first to last; equal layers are one object.

    Args:
        net: the network.
        batch: inputs, which only masks and noise have in their shapes.
    """
    sizes = [Size(*shape, net.depth, batch) for shape in net.shapes]
    made = {n: LayerSpec(n, tuple(net.family.init(n).items())) for n in dict.fromkeys(sizes)}
    return tuple(made[size] for size in sizes)


def distinct(table: tuple[LayerSpec, ...]) -> tuple[LayerSpec, ...]:
    """Return each of a table's layers once."""
    return tuple({id(spec): spec for spec in table}.values())


def _float_dtype(dtype: DTypeLike) -> str:
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        raise UnusableInput(f"dtype must be a floating-point type, got {dtype!r}") from None
    if dtype is None or not jnp.issubdtype(found, jnp.floating):
        raise UnusableInput(f"dtype must be a floating-point type, got {dtype!r}")
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise UnusableInput(f"{found.name} needs jax.config.update('jax_enable_x64', True)")
    return found.name
