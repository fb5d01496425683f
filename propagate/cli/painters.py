"""Processes that draw while this one measures, so that no core waits."""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import connection

from propagate import _interrupts

PROCESSES = 2


def painters() -> Executor:
    """Return who draws: processes, split off before JAX has threads, or else a thread.

    Only the command itself knows that nothing has run yet. On two cores its pictures take half the
    time so, and what loads matplotlib is not what waits for the first compilation.
    """
    if sys.platform != "linux" or not _interrupts.is_command(sys.argv, sys.orig_argv):
        return ThreadPoolExecutor(1)
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(PROCESSES, mp_context=fork, initializer=_begin)
    with warnings.catch_warnings():  # of threads, none of which is Python's or JAX's
        warnings.simplefilter("ignore", DeprecationWarning)
        pool.submit(int)  # it is now that they are split off
    return pool


def _begin() -> None:
    """Leave Ctrl-C to the process that measures, end with it, and load what draws."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from matplotlib.backends import backend_agg, backend_svg  # noqa: F401

    from propagate import plot  # noqa: F401


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os._exit(1)
