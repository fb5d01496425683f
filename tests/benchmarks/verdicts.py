"""Whether verdicts can be trusted: healthy published models, and models with a planted fault.

    python tests/benchmarks/verdicts.py                      # everything: half an hour, two cores
    python tests/benchmarks/verdicts.py --quick              # without models that take long
    python tests/benchmarks/verdicts.py --only "keras hub"   # names that match a pattern
    python tests/benchmarks/verdicts.py --planted --strengths 0 2 --kinds

A healthy model should have no fault. A planted fault is *named* if a finding of severity fault has
the right verdict at the right place; it counts as *elsewhere* if there are only others. Its
strength is in units of its threshold: at twice that every one should be named; at 0 it is the
healthy twin, which should be silent. An environment variable JAX_COMPILATION_CACHE_DIR makes a
second run quick.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import queue
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
# each operation runs but once: compiling is what takes long
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import history

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
PROCESS_CASES = 12
"""A process keeps what it has compiled: it is replaced after so many cases."""
SECONDS = 900
"""A case that takes longer counts as failed."""
SENTENCES = 4
"""So many of the faults of a model that was judged wrongly are printed."""
ARGUED: dict[str, str] = {}
"""Findings on published models that are true, with the reason."""


class Case(NamedTuple):
    """A model to diagnose: a healthy one (strength None) or a planted fault."""

    name: str
    strength: float | None


class Found(NamedTuple):
    """What `diagnose` said of a model.

    Attributes:
        case: which it was.
        outcome: `"silent"`, `"alarm"` (of a healthy one), `"named"`, `"elsewhere"`, `"failed"`.
        faults: the sentences of severity fault.
        notes: how many notes.
        seconds: to build and to diagnose it.
        sites: how many were recorded.
        error: the exception, if it failed.
    """

    case: Case
    outcome: str
    faults: tuple[str, ...] = ()
    notes: int = 0
    seconds: float = 0.0
    sites: int = 0
    error: str = ""


def healthy() -> dict[str, Any]:
    """Return the builders of healthy models by name, those that take long last."""
    from corpus import equinox_and_functions, flax_examples, functions, keras_and_haiku

    rooms = (functions, equinox_and_functions, flax_examples, keras_and_haiku)
    return {name: build for room in rooms for name, build in room.MODELS.items()}


def heavy() -> frozenset[str]:
    """Return the names of models that take more than 20 s."""
    from corpus import keras_and_haiku

    return frozenset(keras_and_haiku.HEAVY)


def planted() -> dict[str, Any]:
    """Return the planted faults by name."""
    from corpus import planted_faults, planting

    assert planted_faults  # registers them
    return planting.FAULTS


def cases(options: argparse.Namespace) -> list[Case]:
    """Return what to run, in the order of the tables."""
    fits = lambda name: re.search(options.only, name, re.IGNORECASE)  # noqa: E731
    models = [name for name in healthy() if fits(name) and not options.planted]
    if options.quick:
        models = [name for name in models if name not in heavy()]
    wanted = list(options.strengths)
    faults = [] if options.healthy else [n for n in planted() if fits(n)]
    grades = [Case(n, k) for n in faults for k in planted()[n].strengths(wanted)]
    return grades + [Case(name, None) for name in models]


def examine(case: Case) -> Found:
    """Build and diagnose one model; an exception is a result, too."""
    start = time.perf_counter()
    try:
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS)
        return _examined(case, start)
    except Exception as error:
        return Found(case, "failed", error=f"{type(error).__name__}: {str(error)[:300]}")
    finally:
        signal.alarm(0)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _examined(case: Case, start: float) -> Found:
    import jax

    import propagate as pp

    fault = None if case.strength is None else planted()[case.name]
    build = healthy()[case.name] if fault is None else lambda: fault.build(case.strength)
    model, inputs, options = build()
    found = pp.diagnose(model, *inputs, key=jax.random.key(7), **options)
    seconds = time.perf_counter() - start
    faults = found.findings.faults.worst_first()
    named = bool(case.strength) and any(right(fault, one) for one in faults)
    other = "alarm" if not case.strength else "elsewhere"
    outcome = "named" if named else other if faults else "silent"
    sentences = tuple(f"[{one.site}] {one}" for one in faults)
    sites = found.record.sizes["site"]
    return Found(case, outcome, sentences, len(found.findings.notes), seconds, sites)


def right(fault: Any, finding: Any) -> bool:
    """Whether a finding has the verdict and the place of a planted fault."""
    word = not fault.verdicts or finding.verdict.value in fault.verdicts
    places = (finding.site, finding.parameter)
    return word and any(re.search(fault.place, place) for place in places)


def results(todo: list[Case], jobs: int) -> Iterator[Found]:
    """Examine all cases, `jobs` at once, and yield them as they are done."""
    if jobs == 1:
        yield from map(examine, todo)
        return
    done: queue.SimpleQueue[Found] = queue.SimpleQueue()
    batches = [todo[k : k + PROCESS_CASES] for k in range(0, len(todo), PROCESS_CASES)]
    with concurrent.futures.ThreadPoolExecutor(jobs) as threads:
        for batch in batches:
            threads.submit(_in_own_process, list(batch), done)
        for _ in todo:
            yield done.get()


def _in_own_process(left: list[Case], done: queue.SimpleQueue[Found]) -> None:
    """Examine a batch in a process of its own; if it dies, the rest gets another one."""
    spawn = multiprocessing.get_context("spawn")
    while left:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            try:
                while left:
                    done.put(pool.submit(examine, left[0]).result())
                    left.pop(0)
            except concurrent.futures.BrokenExecutor:
                done.put(Found(left.pop(0), "failed", error="its process died"))


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), ["---"] * len(list(head)), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def healthy_table(found: list[Found]) -> str:
    """Return a row for each framework: models, those with faults, faults, notes, failures."""
    head = ("framework", "models", "with a fault", "argued", "notes", "failed", "s per model")
    rows = []
    for group in (*dict.fromkeys(f.case.name.split()[0] for f in found), "all"):
        own = [f for f in found if group in ("all", f.case.name.split()[0])]
        loud = [f for f in own if f.faults]
        argued = sum(f.case.name in ARGUED for f in loud)
        failed = sum(f.outcome == "failed" for f in own)
        each = sum(f.seconds for f in own) / len(own)
        notes = sum(f.notes for f in own)
        rows.append((group, len(own), len(loud) - argued, argued, notes, failed, f"{each:.1f}"))
    return table(head, rows)


def planted_table(found: list[Found], kinds: bool) -> str:
    """Return a row for each strength, or for each kind and strength, with shares."""
    head = ("kind", "× threshold", "models", *OUTCOMES, "faults in all")
    groups: dict[tuple[str, float], list[Found]] = {}
    for one in found:
        groups.setdefault(("all", one.case.strength), []).append(one)
        if kinds:
            groups.setdefault((planted()[one.case.name].kind, one.case.strength), []).append(one)
    rows = []
    for (kind, strength), own in sorted(groups.items()):
        count = {word: sum(f.outcome == word for f in own) for word in OUTCOMES}
        label = "0 (healthy twin)" if strength == 0 else f"{strength:g}"
        said = sum(len(f.faults) for f in own)
        rows.append((kind, label, len(own), *count.values(), said))
    return table(head, rows)


OUTCOMES = ("named", "elsewhere", "alarm", "silent", "failed")


def details(found: list[Found]) -> Iterator[str]:
    """Yield a line for each model that was not judged as it should be, with what was said."""
    for one in found:
        name, strength = one.case
        sound = strength is None or strength == 0
        fine = one.outcome == "silent" if sound else one.outcome == "named" or strength < 2
        if not fine:
            what = name if strength is None else f"{name}, {strength:g} × its threshold"
            yield f"- {what}: {one.outcome}" + (f", {ARGUED[name]}" if name in ARGUED else "")
            yield from (
                f"    - {sentence}" for sentence in (*one.faults[:4], one.error) if sentence
            )
            if len(one.faults) > 4:
                yield f"    - and {len(one.faults) - 4} more"


def numbers(models: list[Found], faults: list[Found]) -> dict[str, float]:
    """Return what is kept: counts and seconds."""
    kept = {}
    if models:
        loud = [f for f in models if f.faults and f.case.name not in ARGUED]
        kept["healthy: models"] = len(models)
        kept["healthy: with a fault"] = len(loud)
        kept["healthy: faults"] = sum(len(f.faults) for f in loud)
        kept["healthy: notes"] = sum(f.notes for f in models)
        kept["healthy: failed"] = sum(f.outcome == "failed" for f in models)
        kept["healthy: s per model"] = sum(f.seconds for f in models) / len(models)
    for strength in sorted({f.case.strength for f in faults}):
        own = [f.outcome for f in faults if f.case.strength == strength]
        kept |= {f"planted × {strength:g}: {word}": own.count(word) for word in OUTCOMES}
    return kept


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a pattern of names, anywhere in them")
    parser.add_argument("--quick", action="store_true", help="without models that take long")
    parser.add_argument("--healthy", action="store_true", help="healthy models alone")
    parser.add_argument("--planted", action="store_true", help="planted faults alone")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    parser.add_argument("--kinds", action="store_true", help="a row for each kind of fault")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--json", type=Path, help="a file that everything said is added to")
    parser.add_argument("--no-history", action="store_true", help="keep nothing")
    return parser.parse_args()


def main() -> None:
    """Print the tables, and every model that was judged wrongly."""
    options = parsed()
    todo = cases(options)
    found = []
    for one in results(todo, options.jobs):
        found.append(one)
        grade = "" if one.case.strength is None else f" × {one.case.strength:g}"
        line = f"{len(found)}/{len(todo)} {one.case.name}{grade}: {one.outcome}"
        print(f"{line}, {one.seconds:.1f} s, {one.sites} sites", file=sys.stderr, flush=True)
        if options.json:
            said = one._asdict() | one.case._asdict()
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(said, ensure_ascii=False) + "\n")
    found.sort(key=lambda one: todo.index(one.case))
    models = [one for one in found if one.case.strength is None]
    faults = [one for one in found if one.case.strength is not None]
    if models:
        print(healthy_table(models), end="\n\n")
    if faults:
        print(planted_table(faults, options.kinds), end="\n\n")
    print(*details(found), sep="\n")
    if not options.no_history and not options.only:
        history.append("verdicts", numbers(models, faults))


if __name__ == "__main__":
    main()
