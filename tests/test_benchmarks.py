"""Benchmarks keep what they measured, and two runs are compared."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "benchmarks"
HELPERS = {"history", "compare"}


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


history = load("history")


def compare(*args: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(FOLDER / "compare.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_run_is_one_line_with_versions_and_device(tmp_path):
    path = tmp_path / "history.jsonl"
    for seconds in (2.0, 1.0):
        history.append("speed", {"sweep: s": seconds}, path)
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["benchmark"] == "speed" and first["numbers"] == {"sweep: s": 2.0}
    assert {"python", "jax", "jaxlib", "propagate-jax"} <= set(first["versions"])
    assert "cpu" in first["device"] and first["date"] <= second["date"]
    assert history.read(path)[1].numbers == {"sweep: s": 1.0}


def test_numbers_that_are_no_floats_are_kept_as_such(tmp_path):
    path = tmp_path / "history.jsonl"
    history.append("counts", {"sites": 310, "ratio": np.float32(0.1)}, path)
    assert history.read(path)[0].numbers == {"sites": 310, "ratio": 0.1}


def write(path: Path, *runs: dict) -> None:
    usual = {"date": "2026-01-01T00:00:00+00:00", "versions": {"jax": "1"}, "device": "one"}
    path.write_text("".join(json.dumps(usual | run) + "\n" for run in runs))


def test_the_newest_run_is_compared_with_the_one_before_on_the_same_device(tmp_path):
    path = tmp_path / "history.jsonl"
    write(
        path,
        {"benchmark": "speed", "numbers": {"sweep: s": 8.0}},
        {"benchmark": "speed", "numbers": {"sweep: s": 2.0, "old": 1.0}},
        {"benchmark": "speed", "numbers": {"sweep: s": 64.0}, "device": "other"},
        {"benchmark": "size", "numbers": {"bytes": 1.0}},
        {"benchmark": "speed", "numbers": {"sweep: s": 1.0, "more": 3.0}, "versions": {"jax": "2"}},
    )
    done = compare("--history", path)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line}
    assert rows["sweep:"] == "0.500" and rows["more"] == "new" and rows["old"] == "gone"
    assert "jax 1 → 2" in done.stdout
    assert "size, 2026-01-01T00:00:00+00:00, one: no earlier run on this device" in done.stdout


def test_one_benchmark_is_chosen_by_name(tmp_path):
    path = tmp_path / "history.jsonl"
    write(path, *({"benchmark": name, "numbers": {}} for name in ("speed", "size")))
    assert "speed" not in compare("size", "--history", path).stdout
    wrong = compare("sped", "--history", path)
    assert wrong.returncode == 2 and "no run of sped" in wrong.stderr


def test_an_empty_history_says_so(tmp_path):
    done = compare("--history", tmp_path / "history.jsonl")
    assert done.returncode == 0 and "no run is recorded" in done.stdout


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_keeps_what_it_measured(path):
    """By its own name, once, in `main`."""
    if path.stem in HELPERS:
        return
    (main,) = (
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    calls = [node for node in ast.walk(main) if isinstance(node, ast.Call)]
    (kept,) = (call for call in calls if ast.unparse(call.func) == "history.append")
    assert ast.literal_eval(kept.args[0]) == path.stem


def test_the_history_can_be_read():
    stems = {path.stem for path in FOLDER.glob("*.py")} - HELPERS
    assert {run.benchmark for run in history.read()} <= stems
