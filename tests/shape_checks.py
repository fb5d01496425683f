"""Which annotations are checked while tests run: all of `CHECKED` but for a few functions."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as PEP 484 has it
REFUSES = (
    *("__init__", "family", "select", "checked"),
    *("predict", "phase", "gain", "critical", "fixed_points", "batch_norm_rate"),
    *("layer", "residual", "normalise", "spectrum", "density"),
)
"""Functions that users call: they refuse a wrong type in words of their own, which tests read."""
CHECKED = ("propagate.record", "propagate.theory", "propagate.blocks")


def checked(fn):
    """Check shapes and types at each call."""
    return fn if fn.__name__ in REFUSES else check(fn)
