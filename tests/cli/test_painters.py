"""Who draws while a sweep measures: processes of the command, a thread where it is called."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from propagate.cli.painters import PROCESSES, painters

BEGIN = """
import os, sys
sys.argv = ["propagate"]
from propagate.cli.painters import painters

def drawer():
    return os.getpid(), "propagate.plot" in sys.modules

pool = painters()
pid, loaded = pool.submit(drawer).result()
assert pid != os.getpid() and loaded, "it is a process of its own that loads what draws"
assert "matplotlib" not in sys.modules, "and nobody else does"
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are split off on Linux alone")


def start(code: str) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)


@linux
def test_the_command_has_processes_that_load_what_draws():
    code = BEGIN + f"assert len(pool._processes) == {PROCESSES}\npool.shutdown()"
    process = start(code)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and not out, out


@linux
def test_processes_that_draw_end_with_the_command():
    """They hold its standard output, which ends when the last of them does."""
    process = start(BEGIN + "print('ready', flush=True)\nsys.stdin.read()")
    assert process.stdout.readline() == "ready\n"
    process.kill()
    out, _ = process.communicate(timeout=60)
    assert not out


def test_where_the_command_is_called_a_thread_draws():
    with painters() as pool:
        assert isinstance(pool, ThreadPoolExecutor)
        assert pool.submit(threading.get_ident).result() != threading.get_ident()
