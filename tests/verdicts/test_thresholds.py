"""Every number that a verdict rests on is in one file, with what it rests on beneath it."""

import ast
from pathlib import Path

import numpy as np
import pytest

from propagate.record import spine, statistics
from propagate.verdicts import thresholds

FOLDER = Path(thresholds.__file__).parent
OTHERS = {"thresholds.py", "baseline.py", "judge.py"}  # the numbers; a file's tolerance; the door
RULES = sorted(path for path in FOLDER.rglob("*.py") if path.name not in OTHERS)
ALLOWED = {0, 1, 2, 10}  # signs, first and next, rms and q, decades


def bare_numbers(source: str) -> set[float]:
    """Numbers in functions; the places of a format such as `:.2f` are text."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    inside = {id(n): n for f in functions for n in ast.walk(f) if isinstance(n, ast.Constant)}
    return {
        n.value
        for n in inside.values()
        if isinstance(n.value, (int, float)) and not isinstance(n.value, bool)
    } - ALLOWED


@pytest.mark.parametrize("path", RULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_no_rule_has_a_number_of_its_own(path):
    assert not bare_numbers(path.read_text())


def test_a_number_in_a_rule_would_be_found():
    assert bare_numbers("def f(x):\n    return x > 0.3") == {0.3}
    assert bare_numbers("def f(x):\n    return max(4, len(x) // 2)") == {4}
    assert not bare_numbers("SHOWN = 5\ndef f(x):\n    return f'{x:.3f}' if x > 0 else None")


def test_every_threshold_says_beneath_it_what_it_rests_on():
    body = ast.parse(Path(thresholds.__file__).read_text()).body
    numbers = [k for k, node in enumerate(body) if isinstance(node, ast.Assign)]
    assert len(numbers) > 20
    for k in numbers:
        beneath = body[k + 1]
        assert isinstance(beneath, ast.Expr) and isinstance(beneath.value, ast.Constant), k
        assert len(beneath.value.value) > 60, ast.unparse(body[k])


def test_numbers_that_records_need_are_the_records_own():
    assert thresholds.SATURATED_SLOPE is statistics.SATURATED_SLOPE
    assert thresholds.SYMMETRIC_RTOL is statistics.SYMMETRIC_RTOL
    assert thresholds.STREAM_ADDITIONS is spine.STREAM_ADDITIONS
    assert thresholds.STREAM_SHARE is spine.STREAM_SHARE


def test_the_error_of_a_sample_is_that_of_rows_left_out():
    """Of 4000 draws, so that a deviation is known to 1.1 %: beyond 5 % with probability 1e-5."""
    squares = np.random.default_rng(0).standard_normal((4000, 1024)) ** 2
    off = np.log10(squares[:, :256].mean(1) / squares.mean(1))
    assert thresholds.sample_error(np.array(256), np.array(1024)) == pytest.approx(off.std(), 0.05)
    assert thresholds.sample_error(np.array(1024), np.array(1024)) == 0
