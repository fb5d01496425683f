"""Compare the newest run of each benchmark with the one before it on the same device.

    python tests/benchmarks/compare.py [benchmark ...]

A ratio is the newest number over the older one, so of seconds and bytes less than 1 is better.
"""

import argparse
from pathlib import Path

from history import HISTORY, Run, read


def pair(runs: list[Run]) -> tuple[Run, Run | None]:
    """Return the newest run of a benchmark, and the last before it on the same device."""
    *earlier, newest = runs
    return newest, next((run for run in reversed(earlier) if run.device == newest.device), None)


def compared(newest: Run, before: Run | None) -> str:
    """Return the table of one benchmark."""
    title = f"{newest.benchmark}, {newest.date}, {newest.device}"
    if before is None:
        return f"{title}: no earlier run on this device\n"
    rows = [f"{title}; before: {before.date}{_changed(newest, before)}"]
    for name, value in newest.numbers.items():
        old = before.numbers.get(name)
        ratio = "new" if old is None else f"{value / old:.3f}" if old else "–"
        was = "" if old is None else f"{old:g}"
        rows.append(f"  {name:62}{was:>12}{value:>12g}{ratio:>8}")
    rows += [f"  {name:62}{'gone':>32}" for name in before.numbers if name not in newest.numbers]
    return "\n".join(rows) + "\n"


def _changed(newest: Run, before: Run) -> str:
    """Say which versions differ."""
    changed = [
        f"{name} {before.versions.get(name, 'none')} → {version}"
        for name, version in newest.versions.items()
        if before.versions.get(name) != version
    ]
    return ", " + ", ".join(changed) if changed else ""


def main() -> None:
    """Print a table for each benchmark in the history."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("benchmarks", nargs="*", help="all of them by default")
    parser.add_argument("--history", type=Path, default=HISTORY)
    args = parser.parse_args()
    runs: dict[str, list[Run]] = {}
    for run in read(args.history):
        runs.setdefault(run.benchmark, []).append(run)
    if not runs:
        print(f"no run is recorded in {args.history.name} yet")
    if absent := set(args.benchmarks) - set(runs):
        parser.error(f"no run of {', '.join(sorted(absent))} is recorded")
    for name in args.benchmarks or runs:
        print(compared(*pair(runs[name])))


if __name__ == "__main__":
    main()
