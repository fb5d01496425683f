"""The progress bar of a verb that takes long."""

import contextlib
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def with_progress(name: str, run: Any, *args: Any, **options: Any) -> Any:
    """Call `run` with a progress bar that shows after a second, on a terminal only."""
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        bars: list[Progress] = []

        def progress(done: int, total: int) -> None:
            if not bars and console.is_terminal and time.perf_counter() - start > 1:
                bars.append(
                    stack.enter_context(Progress(*columns, console=console, transient=True))
                )
                bars[0].add_task(name, total=total)
            if bars:
                bars[0].update(bars[0].task_ids[0], completed=done)

        return run(*args, progress=progress, **options)
