"""Layer families, one file each. `FAMILIES` is the table: add a line to add a family."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from propagate import registry
from propagate.blocks.contract import Family
from propagate.blocks.conv import Conv1d, Conv2d
from propagate.blocks.mlp import Mlp
from propagate.blocks.recurrent import Gru, Lstm, Rnn
from propagate.blocks.residual import Residual
from propagate.blocks.transformer import Transformer
from propagate.types import UnusableInput

FAMILIES: Mapping[str, Callable[..., Family]] = MappingProxyType(
    {f.name: f for f in (Mlp, Conv1d, Conv2d, Residual, Rnn, Lstm, Gru, Transformer)}
)


def family(spec: "str | Family") -> Family:
    """Return the family that `spec` means: a name, with options as in `mlp(norm=batch)`.

    Args:
        spec: a name, with options in parentheses, or a family, which is returned as it is.

    Raises:
        UnusableInput: an unknown name, or options that do not fit.

    Example:
        >>> family("residual(branch=nf)").branch
        'nf'
    """
    if isinstance(spec, Family):
        return spec
    if not isinstance(spec, str):
        raise UnusableInput(
            f"family must be a name such as 'mlp' or an object of blocks, got {spec!r}"
        )
    return registry.build("family", FAMILIES, spec)
