"""`propagate list`."""

import dataclasses
import re
from dataclasses import dataclass

from rich.text import Text

from propagate.activations import ACTIVATIONS, activation
from propagate.blocks import FAMILIES
from propagate.cli.terminal import show
from propagate.initializers import INITIALIZERS, initializer
from propagate.report.fitted import Fitted

LETTERS = {r"\phi": "φ", r"\sigma": "σ", r"\alpha": "α", r"\,": " "}


@dataclass(frozen=True)
class List:
    """List the initialisers, activations and families that can be named."""

    def __call__(self) -> int:
        """Print the tables."""
        inits = _table("Initialisers", "initialiser", "law", "source")
        for name in INITIALIZERS:
            init = initializer(name)
            inits.add_row(*map(Text, (name, init.law, init.source)))
        phis = _table("Activations", "activation", "formula", "source")
        for name in ACTIVATIONS:
            phi = activation(name)
            phis.add_row(*map(Text, (name, phi.formula, phi.source)))
        kinds = _table("Families", "family", "layer", "options")
        for name, kind in FAMILIES.items():
            doc = (kind.__doc__ or "").splitlines()[0].rstrip(".:")
            options = ", ".join(f.name for f in dataclasses.fields(kind()))
            kinds.add_row(*map(Text, (name, _plain(doc), options)))
        show(inits)
        show(phis)
        show(kinds)
        words = (
            "Parameters follow a name: normal_0.02, leaky_relu_0.2, sigma(1.3,0.3), "
            "he_normal(mode=fan_out); a factor precedes it: 0.01*he_normal. Families take options: "
            "conv2d(kernel=5,padding=zero), mlp(norm=batch)."
        )
        show(Text(words))
        return 0


def _plain(formula: str) -> str:
    """Return a line with formulas as a terminal can show them.

    Example:
        >>> _plain(r"$h_t = \\phi(h_{t-1})$")
        'h_t = φ(h_(t-1))'
    """
    for latex, letter in LETTERS.items():
        formula = formula.replace(latex, letter)
    return re.sub(r"_\{([^}]*)\}", r"_(\1)", formula.replace("$", ""))


def _table(title: str, name: str, *others: str) -> Fitted:
    made = Fitted(names=(name,), title=title)
    for heading in (name, *others):
        made.add_column(heading)
    return made
