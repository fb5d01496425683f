"""What an accelerator makes of a sweep and of an instrumented step; under four minutes on one GPU.

    python tests/benchmarks/accelerator.py

Prints the card and versions. A sweep has 6 initialisers × 6 activations, mean and q, one seed:
*device* is the compiled program alone, *call* the whole of `pp.sweep`, with drawing, transfer and
record; *products* are the same number of bare matrix products at the same precision, forward and
backward. `default` is JAX's precision of products, which on recent GPUs is TF32; `highest`, that of
`pp.Network`, is float32. A step is that of the GPT-like model of `diagnose_cost`, plain and with
statistics, in turn: as it is, and wider and longer in bfloat16.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import diagnose_cost
import history
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from sweep_speed import ACTIVATIONS, INITS

import propagate as pp
from propagate.run import dispatch

SIZES = ((50, 256, 128), (50, 2048, 512))  # depth, width, batch
STEPS = ((256, 128, "float32"), (768, 1024, "bfloat16"))  # width, length, dtype
ROUNDS = 15


def median_ms(run: Callable[[], object]) -> float:
    """Return the median time of a warm call, in milliseconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def products(depth: int, width: int, batch: int, precision: str) -> float:
    """Return the time of the bare products of a sweep, both ways."""

    @jax.jit
    def run(weights, x, g):
        x, _ = lax.scan(lambda x, w: (jnp.matmul(x, w, precision=precision), None), x, weights)
        back = lambda g, w: (jnp.matmul(g, w.T, precision=precision), None)  # noqa: E731
        return x, lax.scan(back, g, weights, reverse=True)[0]

    weights = jax.random.normal(jax.random.key(0), (depth, width, width)) / np.sqrt(width)
    x = jnp.ones((len(INITS) * len(ACTIVATIONS) * batch, width))
    once = lambda: jax.block_until_ready(run(weights, x, x))  # noqa: E731
    once()
    return median_ms(once)


def sweep(depth: int, width: int, batch: int, precision: str) -> dict[str, float]:
    """Return the times of a sweep: its first call in seconds, the rest in milliseconds."""
    net = pp.Network(depth, width, precision=precision)
    grid = {"init": INITS, "activation": ACTIVATIONS, "seeds": 1, "batch": batch}
    grid |= {"key": jax.random.key(0), "measures": ("mean", "q")}
    fed: list[tuple] = []
    run, dispatch._run = dispatch._run, lambda *args: fed.append(args) or run(*args)
    start = time.perf_counter()
    pp.sweep(net, **grid)
    first = time.perf_counter() - start
    dispatch._run = run
    on_device = [(program.result(), jax.tree.map(jnp.asarray, n)) for program, n in fed]
    programs = lambda: jax.block_until_ready([p(n) for p, n in on_device])  # noqa: E731
    call = median_ms(lambda: pp.sweep(net, **grid))
    return {"first call, s": first, "device, ms": median_ms(programs), "call, ms": call}


def command() -> float:
    """Return how many seconds `propagate sweep` takes in a new process, with all it writes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        verb = [sys.executable, "-m", "propagate", "sweep", "--out", folder]
        subprocess.run(verb, check=True, capture_output=True)
        return time.perf_counter() - start


def step(width: int, length: int, dtype: str) -> dict[str, float]:
    """Return what statistics cost a training step, and the first call of it."""
    args = diagnose_cost.arguments(width=width, length=length, dtype=dtype)
    found = {}
    plain, first = diagnose_cost.compiled(jax.value_and_grad(diagnose_cost.loss), *args)
    base = median_ms(lambda: jax.block_until_ready(plain(*args)))
    found["plain step, ms"] = base
    for name, options in diagnose_cost.ROWS.items():
        made = pp.value_and_grad(diagnose_cost.loss, **options)
        ours, own_first = diagnose_cost.compiled(made, *args)
        once = lambda ours=ours: jax.block_until_ready(ours(*args))  # noqa: E731
        found[f"step, {name}: / plain"] = median_ms(once) / base
        found[f"first call, {name}: / plain"] = own_first / first
    return found


def main() -> None:
    """Print a line for each number, and keep them."""
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), jax {jax.__version__}", flush=True)
    numbers: dict[str, float] = {}

    def say(name: str, value: float) -> None:
        numbers[name] = value
        print(f"{name:72}{value:10.2f}", flush=True)

    for size in SIZES:
        for precision in ("default", "highest"):
            row = f"sweep {' × '.join(map(str, size))}, {precision}"
            say(f"{row}: products, ms", products(*size, precision))
            for what, value in sweep(*size, precision).items():
                say(f"{row}: {what}", value)
    for width, length, dtype in STEPS:
        for what, value in step(width, length, dtype).items():
            say(f"12 × {width}, 8 × {length} tokens, {dtype}: {what}", value)
    say("propagate sweep, cold, s", command())
    history.append("accelerator", numbers)


if __name__ == "__main__":
    main()
