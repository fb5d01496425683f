"""What surrounds every verb: versions, pipes that close, Ctrl-C, and tables at any width."""

import contextlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import propagate as pp
from propagate import _interrupts
from propagate.cli import command, terminal
from propagate.report import sweep_table, theory_table

SMALL = ["--depth", "6", "--width", "16", "--batch", "8", "--seeds", "3"]
INITS = ["sigma(1.3,0.3)", "orthogonal_1.4", "zeros", "0.01*normal_0.02"]
NUMBER = re.compile(r"[-+]\d\.\d{3}(?!\d)")


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as left:
        command.main(list(args))
    return left.value.code


def test_the_version_is_that_of_the_distribution(capfd):
    assert run("--version") == 0
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("propagate-jax")
        assert capfd.readouterr().out == f"propagate {version}\n"


@pytest.mark.parametrize("verb", [["list"], ["sweep", "--help"]])
def test_a_pipe_that_closes_is_no_failure(verb):
    """As behind `| head -1`: the reader goes away before the first line is written."""
    read, write = os.pipe()
    os.close(read)
    env = os.environ | {"NO_COLOR": "1"}
    with open(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "propagate", *verb],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
    assert done.returncode == 0 and not done.stderr


def test_the_work_goes_on_when_nobody_reads(tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, *_):
            raise BrokenPipeError

        flush = write

    monkeypatch.setattr("sys.stdout", Closed())
    args = [*SMALL, "--init", "he_normal", "--activation", "relu", "--measures", "q"]
    assert run("sweep", *args, "--out", str(tmp_path)) == 0
    assert (tmp_path / "curves.png").exists()


def test_ctrl_c_during_the_start_is_one_line_and_130(tmp_path):
    """A stand-in for a library that takes long to load is what Ctrl-C comes in the middle of."""
    for name in ("jax", "tyro"):
        folder = tmp_path / name
        folder.mkdir()
        text = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise ValueError('late')\n"
        (folder / f"{name}.py").write_text(text)
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        args = [sys.executable, "-m", "propagate", "list"]
        done = subprocess.run(args, capture_output=True, text=True, env=env)
        assert (done.returncode, done.stderr) == (130, "propagate: interrupted\n")


@pytest.mark.parametrize(
    ("argv", "original", "expected"),
    [
        (["/usr/bin/propagate", "list"], [], True),
        (["C:/Scripts/propagate.exe"], [], True),
        (["-m"], ["python", "-X", "dev", "-m", "propagate", "list"], True),
        (["/site-packages/propagate/__main__.py", "list"], [], True),
        (["/site-packages/pytest/__main__.py"], [], False),
        (["-m"], ["python", "-m", "pytest"], False),
        (["train.py"], ["python", "train.py"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_only_the_command_takes_ctrl_c_for_itself(argv, original, expected):
    assert _interrupts.is_command(argv, original) == expected


def test_an_interruption_of_a_verb_is_one_line(monkeypatch, capfd):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("propagate.cli.command._run", stopped)
    assert run("list") == 130
    assert capfd.readouterr().err == "propagate: interrupted\n"


@pytest.fixture(scope="module")
def tables():
    """What each verb prints, with the numbers that must be in it."""
    net = pp.Network(depth=6, width=16)
    phis, key = ["leaky_relu_0.2", "tanh"], jax.random.key(0)
    grid = pp.sweep(net, key=key, init=INITS, activation=phis, seeds=3, batch=8, measures=("q",))
    findings = pp.judge(grid)
    theory = pp.predict(net)

    def model(params, x):
        for layer in params["a_rather_long_name"]:
            x = x + jax.nn.relu(x @ layer["kernel_of_it"])
        return x

    keys = jax.random.split(key, 3)
    layers = [{"kernel_of_it": jax.random.normal(k, (16, 16)) / 4} for k in keys]
    x = jax.random.normal(key, (8, 16))
    found = pp.diagnose(model, {"a_rather_long_name": layers}, x, key=key)
    rates = [f"{f.rate:+.3f}" for f in findings if np.isfinite(f.rate)]
    q = theory.log10_forward_q.values
    return {
        "sweep": (sweep_table.verdict_table(findings), [*rates, *INITS, *phis]),
        "stack": (
            theory_table.stack_table(theory, grid[{"init": 0, "activation": 0}], "t"),
            [f"{v:.3f}" for v in q],
        ),
        "model": (
            theory_table.model_table(found.theory(), found.record),
            [f"{v:.3f}" for v in found.record.log10_forward_q.values[:6]],
        ),
        "sites": (
            found.table(),
            [f"{10 ** (v / 2):.3g}" for v in found.record.log10_forward_q.values[:6]],
        ),
        "source": (found.source(), ["(→ "]),
    }


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
@pytest.mark.parametrize("name", ["sweep", "stack", "model", "sites", "source"])
def test_numbers_are_whole_at_every_width(tables, capfd, monkeypatch, name, width):
    table, numbers = tables[name]
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.show(table)
    shown = capfd.readouterr().out
    assert "…" not in shown and max(map(len, shown.splitlines())) <= width
    words = set(re.split(r"[\s,]+", shown)) | {line.strip() for line in shown.splitlines()}
    for number in numbers:
        assert number in shown if name in ("source", "sweep") else number in words


def test_without_a_terminal_lines_are_long(tables, capfd, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal.show(tables["sweep"][0])
    rows = [line for line in capfd.readouterr().out.splitlines() if NUMBER.search(line)]
    assert rows and all(len(NUMBER.findall(row)) == 2 for row in rows)


def test_print_shows_a_table_as_text(tables):
    for table, numbers in tables.values():
        assert all(number in str(table) for number in numbers)
        assert "\x1b" not in str(table) and "object at" not in repr(table)


def test_lists_are_whole_at_40_columns(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert run("list") == 0
    shown = capfd.readouterr().out
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 40
    assert "0.774/fan_in" in shown
