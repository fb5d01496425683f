"""Every public function and class says what it takes, what it returns or raises, and shows it."""

import dataclasses
import inspect

import pytest
from test_public_names import FUNCTIONS, MODULES, TYPES

import propagate as pp
import pytest_propagate

PUBLIC = {name: getattr(pp, name) for name in (*FUNCTIONS, *TYPES)}
PUBLIC |= {f"{m}.{name}": getattr(getattr(pp, m), name) for m in MODULES for name in MODULES[m]}
PUBLIC["assert_healthy"] = pytest_propagate.assert_healthy
CALLABLE = {n: v for n, v in PUBLIC.items() if inspect.isfunction(v) or inspect.isclass(v)}
FUNCTION = {n: v for n, v in CALLABLE.items() if inspect.isfunction(v)}
RESULTS = (
    *("CoordinateCheck", "CriticalPoint", "Diagnosis", "Finding", "Findings", "FixedPoint", "Gain"),
    *("Interrupted", "Outcome", "PropagateError", "Repair", "Trace", "Trained", "UnusableInput"),
    "Verdict",
    *("jacobian.Spectrum", "passage.Passage", "passage.Weights", "blocks.Family"),
)
"""Types that users do not make themselves: examples stand with the functions that return them."""


def doc(value) -> str:
    return inspect.getdoc(value) or ""


@pytest.mark.parametrize("name", FUNCTION)
def test_arguments_are_explained(name):
    """In a section of their own; an obvious first one may be named in the first sentence."""
    value = FUNCTION[name]
    text = doc(value)
    arguments = list(inspect.signature(value).parameters)
    missing = [a for a in arguments if f"{a}:" not in text and a not in text.split("\n\n")[0]]
    assert not missing
    assert "Args:" in text or len(arguments) <= 1


@pytest.mark.parametrize("name", FUNCTION)
def test_what_comes_back_is_explained(name):
    text = doc(FUNCTION[name])
    assert any(word in text for word in ("Returns:", "Raises:")) or text.startswith("Return")


@pytest.mark.parametrize("name", [name for name in CALLABLE if name not in RESULTS])
def test_there_is_an_example(name):
    assert any(word in doc(CALLABLE[name]) for word in ("Example:", "Example::", ">>>", "    def "))


@pytest.mark.parametrize("name", [n for n, v in CALLABLE.items() if dataclasses.is_dataclass(v)])
def test_fields_are_explained(name):
    """Here or in the class that they come from."""
    value = CALLABLE[name]
    text = "".join(doc(base) for base in value.__mro__)
    fields = [f.name for f in dataclasses.fields(value) if not f.name.startswith("_") and f.init]
    assert not [field for field in fields if f"{field}:" not in text]
