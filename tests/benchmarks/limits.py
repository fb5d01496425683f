"""Measure what a sweep needs: memory, compile time, start-up; each in a process of its own.

    python tests/benchmarks/limits.py

Memory is the peak resident set of the whole process, as the operating system counts it.
"""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import history
import jax

GRID = """
import jax, sys
sys.path.insert(0, "tests/benchmarks")
import propagate as pp
from sweep_speed import ACTIVATIONS, INITS
net = pp.Network(depth={depth}, width=256)
pp.sweep(net, init=INITS, activation=ACTIVATIONS, key=jax.random.key(0), seeds=1,
         batch=128, measures={measures})
"""

ONE = """
import jax
import propagate as pp
net = pp.Network(depth=10_000, width=512)
pp.measure(net, jax.random.key(0), seeds=1, batch=64, measures={measures})
"""

COMPILE = """
import time
import jax
import propagate as pp
import sys
from propagate.run import dispatch
from propagate.run.dispatch import _compiled
net = pp.Network(depth={depth}, width=64)
spent = 0
original = _compiled.__wrapped__
def timed(*args):
    global spent
    start = time.perf_counter()
    made = original(*args)
    made.result()
    spent += time.perf_counter() - start
    return made
dispatch._compiled = timed
pp.sweep(net, init=["he_normal", "lecun_normal"], activation=["tanh", "relu", "gelu"],
         key=jax.random.key(0), seeds=1, batch=4, measures=("mean", "q"))
print(spent)
"""

PHASE = """
import time
import numpy as np
import propagate as pp
axes = np.linspace(0, 4, 300), np.linspace(0, 0.5, 250)
for _ in range(2):
    start = time.perf_counter()
    pp.phase("tanh", *axes)
print(time.perf_counter() - start)
"""


Row = Callable[..., Any]


def run(*command: str) -> tuple[float, float, str]:
    """Return wall seconds, peak memory in GB and the output of a process."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        out.seek(0)
        text = out.read()
    if status:
        raise SystemExit(f"{' '.join(command)[:300]} failed")
    return time.perf_counter() - start, used.ru_maxrss / 1e6, text


def python(code: str) -> tuple[float, float, str]:
    """Run code in a new interpreter."""
    return run(sys.executable, "-c", code)


def median(rounds: int, measure) -> float:
    """Return the median of several runs."""
    return statistics.median(measure() for _ in range(rounds))


@contextlib.contextmanager
def cached_in(folder: str) -> Iterator[None]:
    """Let the command keep its programs in a folder that is empty at first."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = folder
    try:
        yield
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def memory(row: Row, _: int) -> None:
    """Peak memory of sweeps."""
    for measures in ('("mean", "q")', "None"):
        taken = "all measures" if measures == "None" else "mean and q"
        wall, peak, _text = python(GRID.format(depth=1000, measures=measures))
        name = f"36 pairings, depth 1000, {taken}"
        row(name, f"{peak:.2f} GB, {wall:.0f} s", GB=peak, s=wall)
        wall, peak, _text = python(ONE.format(measures=measures))
        name = f"one pairing, depth 10000, width 512, {taken}"
        row(name, f"{peak:.2f} GB, {wall:.0f} s", GB=peak, s=wall)


def compiling(row: Row, rounds: int) -> None:
    """Time to trace and compile at two depths."""
    shallow, deep = [], []
    for _ in range(rounds):
        shallow.append(float(python(COMPILE.format(depth=10))[2]))
        deep.append(float(python(COMPILE.format(depth=1000))[2]))
    ratio = statistics.median(b / a for a, b in zip(shallow, deep, strict=True))
    few, many = statistics.median(shallow), statistics.median(deep)
    row("trace and compile, depth 10", f"{few:.2f} s", s=few)
    row("trace and compile, depth 1000", f"{many:.2f} s, {ratio:.2f} x", s=many, ratio=ratio)


def imports(row: Row, rounds: int) -> None:
    """What it costs to import."""
    found = {
        code: median(rounds, lambda code=code: python(code)[0])
        for code in ("pass", "import jax, xarray", "import propagate")
    }
    bare, both, ours = found.values()
    both, ours = both - bare, ours - bare
    row("import jax, xarray", f"{both:.2f} s", s=both)
    row("import propagate", f"{ours:.2f} s, {ours / both:.2f} x", s=ours, ratio=ours / both)


def commands(row: Row, rounds: int) -> None:
    """The command in an empty cache folder, and again."""
    plane = (sys.executable, "-m", "propagate", "phase", "--out")
    sweep = (sys.executable, "-m", "propagate", "sweep", "--out")
    first, again, phase = [], [], []
    for _ in range(min(rounds, 3)):
        with tempfile.TemporaryDirectory() as out, cached_in(out):
            first.append(run(*sweep, out)[0])
            again += [run(*sweep, out)[0] for _ in range(2)]
            phase.append(run(*plane, out)[0])
    cold, warm = statistics.median(first), statistics.median(again)
    row(
        "propagate sweep, the first time; again",
        f"{cold:.1f} s; {warm:.1f} s",
        cold=cold,
        warm=warm,
    )
    cold = statistics.median(phase)
    warm = median(min(rounds, 3), lambda: float(python(PHASE)[2]))
    name = "propagate phase, 300 x 250, as a command; warm"
    row(name, f"{cold:.1f} s; {warm:.1f} s", cold=cold, warm=warm)


PARTS = (memory, compiling, imports, commands)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=[part.__name__ for part in PARTS])
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, jax {jax.__version__}, {os.cpu_count()} cores")

    numbers: dict[str, float] = {}

    def row(name: str, value: str, **measured: float) -> None:
        print(f"{name:58}{value:>24}", flush=True)
        numbers.update({f"{name}: {unit}": number for unit, number in measured.items()})

    for part in PARTS:
        if given.only in (None, part.__name__):
            part(row, given.rounds)
    history.append("limits", numbers)


if __name__ == "__main__":
    main()
