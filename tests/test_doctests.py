"""Examples in docstrings run; every public function has one."""

import doctest
import importlib
import inspect

import pytest

import propagate as pp

MODULES = (
    "activations",
    "diagnosis",
    "initializers",
    "laws",
    "models",
    "network",
    "record",
    "sweep",
    "findings",
    "probing",
    "tree",
    "baseline",
    "verdict",
    "optimizers",
    "width_verdict",
    "coordinate_check",
    "blocks.mlp",
    "blocks.conv",
    "blocks.residual",
    "blocks.recurrent",
    "blocks.transformer",
    "batch_norm",
    "passage",
    "operations",
    "jacobian",
)
FUNCTIONS = (
    *("Network", "measure", "sweep", "judge", "save", "load", "diagnose", "value_and_grad"),
    "coordinate_check",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(f"propagate.{name}")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, optionflags=flags)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_have_an_example(name):
    assert ">>>" in (inspect.getdoc(getattr(pp, name)) or "")
