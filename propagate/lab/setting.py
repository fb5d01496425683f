"""What the lab's controls say: one `Setting`, which is a network, an address and a program.

>>> one = from_address({"activation": "gelu", "sigma_w": "1.4", "unknown": "x"})
>>> one.network.activation.name, one.address["sigma_w"]
('gelu', '1.4')
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import propagate as pp

OWN_SCALE = "sigma_w, sigma_b"  # the initialiser whose scale two sliders give
OWN_FORMULA = "formula"  # the activation that is typed in
DEPTHS = (5, 10, 20, 30, 50, 100)
WIDTHS = (32, 64, 128, 256)
SCALES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
DTYPES = ("float32", "bfloat16", "float16")
NORMS = ("none", "batch", "layer", "rms")
INITS = (
    OWN_SCALE,
    *("he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "lecun_normal", "orthogonal"),
    *("critical", "critical_orthogonal", "torch", "keras", "flax", "haiku", "normal_0.05", "zeros"),
)
ACTIVATIONS = (OWN_FORMULA, *pp.ACTIVATIONS)
FAMILIES: Mapping[str, str] = {
    "plain": "mlp",
    "convolution": "conv1d",
    "residual": "residual",
    "residual, 1/√L": "residual(branch=depth)",
    "residual, normaliser-free": "residual(branch=nf)",
    "recurrent": "rnn",
    "attention alone": "transformer(arrangement=attention)",
    "transformer, Pre-LN": "transformer(arrangement=pre)",
    "transformer, Post-LN": "transformer(arrangement=post)",
}
"""What the page calls a family, and how `Network` spells it."""
SCALED = ("residual", "residual, 1/√L", "residual, normaliser-free")
MOST = {"sigma_w": 2.5, "sigma_b": 1.0, "seed": 20}


@dataclass(frozen=True)
class Setting:
    """Every control of the page, with its value when the page is opened.

    Attributes:
        depth: L; `width`: n; `family`: a name of `FAMILIES`; `norm`: of its layers.
        init: a name, or `OWN_SCALE`: then `sigma_w` and `sigma_b` count.
        activation: a name, or `OWN_FORMULA`: then `formula` counts.
        scale: of residual branches.
        dtype: of weights and signals; `seed`: of everything random.
    """

    depth: int = 50
    width: int = 128
    family: str = "plain"
    init: str = OWN_SCALE
    sigma_w: float = 1.41
    sigma_b: float = 0.0
    activation: str = "relu"
    formula: str = "h * sigmoid(1.7*h)"
    scale: float = 1.0
    norm: str = "none"
    dtype: str = "float32"
    seed: int = 0

    @property
    def network(self) -> pp.Network:
        """The network that is meant.

        Raises:
            UnusableInput: there is no such network; the message says why.
        """
        own = (self.sigma_w, self.sigma_b)
        return pp.Network(
            depth=self.depth,
            width=self.width,
            family=self._family,
            activation=self.formula if self.activation == OWN_FORMULA else self.activation,
            init=own if self.init == OWN_SCALE else self.init,
            dtype=self.dtype,
        )

    @property
    def _family(self) -> str:
        """The family as `Network` spells it, with norm and scale."""
        name, bracket, options = FAMILIES[self.family].rstrip(")").partition("(")
        given = [options] if bracket else []
        if self.norm != "none":
            given.append(f"norm={self.norm}")
        if self.family in SCALED and self.scale != Setting.scale:
            given.append(f"alpha={self.scale:g}")
        return f"{name}({','.join(given)})" if given else name

    @property
    def program(self) -> tuple[Any, ...]:
        """What is compiled anew: settings of one program differ in numbers alone."""
        formula = self.formula if self.activation == OWN_FORMULA else ""
        return self.depth, self.width, self._family, self.dtype, formula

    @property
    def address(self) -> dict[str, str]:
        """The setting as parameters of an address: what differs from the opening one."""
        opening = Setting()
        return {
            name: f"{value:g}" if isinstance(value, float) else str(value)
            for name, value in dataclasses.asdict(self).items()
            if value != getattr(opening, name)
        }


CHOICES: Mapping[str, tuple[Any, ...]] = {
    "depth": DEPTHS,
    "width": WIDTHS,
    "family": tuple(FAMILIES),
    "init": INITS,
    "activation": ACTIVATIONS,
    "scale": SCALES,
    "norm": NORMS,
    "dtype": DTYPES,
}


def from_address(given: Mapping[str, Any]) -> Setting:
    """Return the setting of an address's parameters; what a control cannot show is left out."""
    types, found = get_type_hints(Setting), {}
    for name in types.keys() & given.keys():
        try:
            value = types[name](given[name])
        except (TypeError, ValueError, OverflowError):
            continue
        within = name not in MOST or 0 <= value <= MOST[name]
        if within and value in CHOICES.get(name, (value,)):
            found[name] = value
    return Setting(**found)
