"""`propagate list`."""

import dataclasses
from dataclasses import dataclass

from rich.table import Table

from propagate.activations import ACTIVATIONS, activation
from propagate.blocks import FAMILIES
from propagate.cli.terminal import show
from propagate.initializers import INITIALIZERS, initializer


@dataclass(frozen=True)
class List:
    """List the initialisers, activations and families that can be named."""

    def __call__(self) -> int:
        """Print the tables."""
        inits = Table("initialiser", "law", "source", title="Initialisers")
        for name in INITIALIZERS:
            init = initializer(name)
            inits.add_row(name, init.law, init.source)
        phis = Table("activation", "formula", "source", title="Activations")
        for name in ACTIVATIONS:
            phi = activation(name)
            phis.add_row(name, phi.formula, phi.source)
        kinds = Table("family", "layer", "options", title="Families")
        for name, kind in FAMILIES.items():
            doc = (kind.__doc__ or "").splitlines()[0].rstrip(".:")
            kinds.add_row(name, doc, ", ".join(f.name for f in dataclasses.fields(kind())))
        show(inits)
        show(phis)
        show(kinds)
        show(
            "Parameters follow a name: normal_0.02, leaky_relu_0.2, sigma(1.3,0.3), "
            "he_normal(mode=fan_out); a factor precedes it: 0.01*he_normal. Families take options: "
            "conv2d(kernel=5,padding=zero), mlp(norm=batch)."
        )
        return 0
