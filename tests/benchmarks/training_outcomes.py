"""Whether verdicts tell the truth: initialisers × activations × depths, judged and then trained.

    python tests/benchmarks/training_outcomes.py [--quick] [--depths 10 20 50 100] [--out FILE]

Every pairing is judged by a sweep at random inputs (4 seeds), and trained on the digits: width 128,
momentum, four epochs, the best of three learning rates. It *trains* if it finds more than half of
the classes in the last epoch, where chance is a tenth. The last lines are the number that
`thresholds.FINE_DECADES` rests on: which limit on the decades of a second moment over the depth
would tell the pairings that train from the others best.
"""

import argparse
import json
import math
import time
from collections import Counter
from pathlib import Path

import history
import jax
import numpy as np

import propagate as pp
from propagate.verdicts.thresholds import FINE_DECADES

SIGMAS = (0.8, 1.0, 1.2, 1.4142, 1.7, 2.2)
NAMED = ("normal_0.05", "torch", "critical")
PHIS = ("relu", "tanh", "sigmoid", "gelu", "silu")
DEPTHS = (10, 20, 50, 100)
RATES = (0.001, 0.01, 0.1)
CONFUSED = ("stable", "inconclusive", "vanishing", "exploding", "collapsing", "saturated", "other")


def rows_of(depth: int, inits: list, phis: tuple, epochs: int) -> list[dict]:
    """Return verdict and outcome of every pairing at a depth."""
    net, key = pp.Network(depth=depth, width=128), jax.random.key(0)
    findings = pp.judge(pp.sweep(net, init=inits, activation=phis, key=key, seeds=4))
    options = {"epochs": epochs, "seeds": 1, "optimizer": "momentum", "learning_rate": RATES}
    found = pp.train(net, init=inits, activation=phis, key=key, measures=("q",), **options)
    best = found.record["train_accuracy"].isel(step=-1, seed=0).max("learning_rate")
    rows = []
    for phi in best["activation"].values:
        for init in best["init"].values:
            pair = [f for f in findings if (f.init, f.activation) == (init, phi)]
            unsound = [f for f in pair if f.verdict is not pp.Verdict.STABLE]
            worst = min(unsound or pair, key=lambda f: np.nan_to_num(f.fine_depth))
            rows.append(
                {
                    "depth": depth,
                    "init": str(init),
                    "activation": str(phi),
                    "verdict": worst.verdict.value,
                    "decades": depth * max(abs(np.nan_to_num(f.rate, nan=9.0)) for f in pair),
                    "accuracy": float(best.sel(init=init, activation=phi)),
                }
            )
    return rows


def trains(row: dict) -> bool:
    """Whether a pairing found more than half of the classes."""
    return row["accuracy"] > 0.5


def best_limit(rows: list[dict]) -> tuple[float, float, float]:
    """Return the limits on decades that separate best, from least to most, and their share."""
    limits = np.geomspace(0.3, 100, 200)
    right = [np.mean([(r["decades"] < limit) == trains(r) for r in rows]) for limit in limits]
    best = limits[np.asarray(right) >= max(right) - 1e-9]
    return float(best[0]), float(best[-1]), float(max(right))


def table(rows: list[dict]) -> dict[str, float]:
    """Print the confusion of verdicts and outcomes; return its numbers."""
    counts = Counter(
        (r["verdict"] if r["verdict"] in CONFUSED else "other", trains(r)) for r in rows
    )
    print(f"\n| {'verdict':12} | trains | does not |\n| --- | --- | --- |")
    for verdict in CONFUSED:
        yes, no = counts[verdict, True], counts[verdict, False]
        if yes + no:
            print(f"| {verdict:12} | {yes:6} | {no:8} |")
    low, high, right = best_limit(rows)
    ours = float(np.mean([(r["decades"] < FINE_DECADES) == trains(r) for r in rows]))
    print(f"\ndecades over the depth that separate best: {low:.2f} to {high:.2f} ({right:.1%})")
    print(f"FINE_DECADES = {FINE_DECADES:.2f}: {ours:.1%} of {len(rows)} pairings")
    numbers = {f"{v}: {'trains' if t else 'does not'}": n for (v, t), n in counts.items()}
    limits = {"best limit, low": low, "best limit, high": high}
    return {**numbers, **limits, "right at the best": right, "right at FINE_DECADES": ours}


def main() -> None:
    """Judge and train the grid; print what became of each verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer scales, two epochs")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--out", type=Path, help="a JSON file for every pairing's numbers")
    options = parser.parse_args()
    inits = [(s, 0.0) for s in (SIGMAS[::2] if options.quick else SIGMAS)] + list(NAMED)
    begin, rows = time.perf_counter(), []
    for depth in options.depths:
        rows += rows_of(depth, inits, PHIS, 2 if options.quick else 4)
        print(f"depth {depth}: {time.perf_counter() - begin:.0f} s", flush=True)
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1))
    wrong = [r for r in rows if (r["verdict"] == "stable") != trains(r)]
    for r in wrong:
        print(
            f"depth {r['depth']}, {r['init']} + {r['activation']}: {r['verdict']}, "
            f"{r['decades']:.1f} decades, {r['accuracy']:.2f} of the classes"
        )
    numbers = table(rows)
    assert math.isfinite(numbers["best limit, low"])
    history.append("training_outcomes", numbers)


if __name__ == "__main__":
    main()
