"""Every example in a docstring runs; every public function has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import propagate as pp

PACKAGE = Path(pp.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", sorted(n for n in vars(pp) if not n.startswith("_")))
def test_public_functions_have_an_example(name):
    value = getattr(pp, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        assert inspect.getdoc(value)
    if inspect.isfunction(value):
        assert ">>>" in (inspect.getdoc(value) or ""), name
