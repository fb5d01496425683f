"""What the statistics of a training step cost, on a GPT-like model: run, first call, memory.

    python tests/benchmarks/diagnose_cost.py

12 blocks, width 256, 4 heads, 8 × 128 tokens. The plain and the instrumented jitted
`value_and_grad` are timed in turn, in one process; a ratio is the median over rounds of the ratio
within a round. So is that of the first calls: both are traced, lowered and compiled anew in turn.
Memory is what XLA says of temporary buffers.
"""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import history
import jax
import jax.numpy as jnp

import propagate as pp

WIDTH, PER_HEAD, BLOCKS, VOCABULARY, LENGTH, BATCH, ROUNDS = 256, 64, 12, 512, 128, 8, 9
FIRSTS = 3
ROWS = {
    "mean and q": {"measures": ("mean", "q")},
    "mean and q, every operation": {"measures": ("mean", "q"), "sites": "all"},
    "all measures": {},
}


def weights(
    key: jax.Array, width: int = WIDTH, length: int = LENGTH, dtype: str = "float32"
) -> dict[str, Any]:
    """Return LeCun weights."""
    keys = iter(jax.random.split(key, 200))
    dense = lambda n, m: jax.random.normal(next(keys), (n, m), dtype) / n**0.5  # noqa: E731
    norm = lambda: {"scale": jnp.ones(width, dtype), "bias": jnp.zeros(width, dtype)}  # noqa: E731

    def block() -> dict[str, Any]:
        square = {name: dense(width, width) for name in "qkvo"}
        wide = {"fc1": dense(width, 4 * width), "fc2": dense(4 * width, width)}
        return {"ln1": norm(), "ln2": norm(), **square, **wide}

    return {
        "embed": jax.random.normal(next(keys), (VOCABULARY, width), dtype),
        "position": 0.1 * jax.random.normal(next(keys), (length, width), dtype),
        "blocks": [block() for _ in range(BLOCKS)],
        "ln": norm(),
        "head": dense(width, VOCABULARY),
    }


def layer_norm(x: jax.Array, p: dict[str, jax.Array]) -> jax.Array:
    """Normalise over the features."""
    apart = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(apart).mean(-1, keepdims=True) + 1e-5)
    return apart * scale * p["scale"] + p["bias"]


def attention(x: jax.Array, p: dict[str, Any]) -> jax.Array:
    """Attend to earlier positions."""
    heads = lambda x: x.reshape(*x.shape[:2], -1, PER_HEAD).swapaxes(1, 2)  # noqa: E731
    q, k, v = (heads(x @ p[name]) for name in "qkv")
    scores = q @ k.swapaxes(-1, -2) / PER_HEAD**0.5
    scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -1e9)
    return (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(x.shape) @ p["o"]


def loss(params: dict[str, Any], tokens: jax.Array) -> jax.Array:
    """Return the cross-entropy of the next token."""
    x = params["embed"][tokens] + params["position"]
    for p in params["blocks"]:
        x = x + attention(layer_norm(x, p["ln1"]), p)
        x = x + jax.nn.gelu(layer_norm(x, p["ln2"]) @ p["fc1"]) @ p["fc2"]
    logs = jax.nn.log_softmax(layer_norm(x, params["ln"]) @ params["head"])
    return -jnp.take_along_axis(logs, jnp.roll(tokens, -1, 1)[..., None], -1).mean()


def arguments(length: int = LENGTH, **size: Any) -> tuple[dict[str, Any], jax.Array]:
    """Return weights and tokens."""
    tokens = jax.random.randint(jax.random.key(1), (BATCH, length), 0, VOCABULARY)
    return weights(jax.random.key(0), length=length, **size), tokens


def compiled(fn: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """Return the compiled program and the seconds that tracing and compiling took."""
    jax.clear_caches()
    start = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    return program, time.perf_counter() - start


def seconds(program: Any, *args: Any) -> float:
    """Time one call."""
    start = time.perf_counter()
    jax.block_until_ready(program(*args))
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    args = arguments()
    print(f"Python {platform.python_version()}, jax {jax.__version__}, {jax.default_backend()}")
    print(f"{'':30}{'sites':>6}{'s':>8}{'/ plain':>9}{'first call':>12}{'memory':>8}")
    numbers = {}
    for name, options in ROWS.items():
        firsts = []
        for _ in range(FIRSTS):
            plain, first = compiled(jax.value_and_grad(loss), *args)
            ours, own_first = compiled(pp.value_and_grad(loss, **options), *args)
            firsts.append(own_first / first)
        size = plain.memory_analysis().temp_size_in_bytes
        sites = ours(*args)[1].record().sizes["site"]
        rounds = [(seconds(plain, *args), seconds(ours, *args)) for _ in range(ROUNDS)]
        ratio = statistics.median(own / base for base, own in rounds)
        middle = statistics.median(own for _, own in rounds)
        more = ours.memory_analysis().temp_size_in_bytes / size
        first = statistics.median(firsts)
        print(f"{name:30}{sites:6}{middle:8.3f}{ratio:9.2f}{first:12.2f}{more:8.2f}")
        found = {"sites": sites, "s": middle, "/ plain": ratio, "first": first, "memory": more}
        numbers |= {f"{name}: {what}": value for what, value in found.items()}
    history.append("diagnose_cost", numbers)


if __name__ == "__main__":
    main()
