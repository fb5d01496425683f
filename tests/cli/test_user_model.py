"""A user's file is imported under its own roof, and says where it went wrong."""

import sys

import pytest

from propagate.cli import user_model
from propagate.types import UnusableInput


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A current folder whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("broken", "propagate_target"):
        sys.modules.pop(name, None)


def test_a_file_never_takes_the_name_of_another_module(here):
    (here / "types.py").write_text("def build():\n    return print, 1\n")
    types, path = sys.modules["types"], list(sys.path)
    with user_model.built("types.py:build") as made:
        assert made == (print, 1)
    assert sys.modules["types"] is types and sys.path == path


def test_the_search_path_is_as_before_when_the_work_fails(here):
    (here / "fine.py").write_text("import sys\ndef build():\n    return print, 1\n")
    path = list(sys.path)
    with pytest.raises(ZeroDivisionError), user_model.built("fine.py:build"):
        assert sys.path == [str(here), *path]
        1 / 0  # noqa: B018
    assert sys.path == path


def test_a_named_tuple_is_a_model_and_no_tuple_of_model_and_inputs(here):
    haiku = "import haiku as hk\ndef build():\n    return hk.transform(lambda x: hk.Linear(2)(x))"
    (here / "fine.py").write_text(haiku)
    message = r"return a tuple \(model, \*inputs\) with one input or more, got a Transformed"
    with pytest.raises(UnusableInput, match=message), user_model.built("fine.py:build"):
        pass


def test_a_model_without_inputs_is_told(here):
    (here / "fine.py").write_text("def build():\n    return (print,)\n")
    message = "with one input or more, got 1 of them"
    with pytest.raises(UnusableInput, match=message), user_model.built("fine.py:build"):
        pass


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(:\n", "raised SyntaxError at broken.py:1: "),
        ("\nimport nowhere_at_all\n", "raised ModuleNotFoundError at broken.py:2: No module named"),
        ("\n\nraise ValueError('\\n two\\nlines')\n", "raised ValueError at broken.py:3: two"),
        ("raise ValueError\n", "raised ValueError at broken.py:1"),
        ("import sys\nsys.exit(0)\n", "raised SystemExit at broken.py:2: 0"),
        ("import json\njson.loads('{')\n", "raised JSONDecodeError at broken.py:2: Expecting"),
    ],
)
@pytest.mark.parametrize("name", ["broken.py", "broken"])
def test_a_file_that_cannot_be_imported_says_where(here, source, message, name):
    (here / "broken.py").write_text(source)
    with pytest.raises(UnusableInput) as told, user_model.built(f"{name}:build"):
        pass
    assert str(told.value).startswith(f"importing {name} {message}")
    assert "\n" not in str(told.value)
