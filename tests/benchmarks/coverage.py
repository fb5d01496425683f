"""Which products of published models are sites, and how they are named; `pip install '.[test]'`.

python tests/benchmarks/coverage.py
"""

import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))

import history
import zoo

from propagate.models.pure_function import pure
from propagate.tracing.probe import Options, probe

COLUMNS = ("products", "named by a parameter", "between signals", "not opened", "sites")


def main() -> None:
    """Print a row for each model of the zoo."""
    numbers = {}
    print("|", " | ".join(("model", *COLUMNS)), "|")
    print("|---|---|---|---|---|---|")
    for name, build in zoo.ZOO.items():
        model, inputs, options = build()
        ready = pure(model, *inputs, key=jax.random.key(0), **options)
        run = lambda params, data, fn=ready.fn: fn(params, *data)  # noqa: E731
        _, names = probe(run, ready.params, ready.inputs, Options(("q",)))
        rows = names.rows()
        made = [site for site, _ in rows if site.kind in ("matmul", "conv")]
        named = sum(site.parameter is not None for site in made)
        closed = sum(one.products for one in names.unopened)
        cells = (len(made) + closed, named, len(made) - named, closed, len(rows))
        print("|", " | ".join(map(str, (name, *cells))), "|", flush=True)
        numbers |= {f"{name}: {what}": n for what, n in zip(COLUMNS, cells, strict=True)}
    history.append("coverage", numbers)


if __name__ == "__main__":
    main()
