"""`repair` against LSUV: growth per layer, forward and backward, of nine models.

    python tests/benchmarks/repair.py        # with `pip install torch lsuv`, the package as well

LSUV (Mishkin & Matas 2016, arXiv:1511.06422, algorithm 1) draws orthonormal weights and divides
those of one layer after another by the standard deviation of its output, until that is within 0.1
of 1 or ten times. It is written here in JAX; the package `lsuv` for PyTorch is that of its first
author. All of them start from the same weights and batch, and the same program measures the result.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import history
import jax
import jax.numpy as jnp
import numpy as np

import propagate as pp
from propagate.cure.factors.reading import growth
from propagate.models.diagnose import prepared
from propagate.tracing.probe import Options

WIDTH, BATCH, KEY = 128, 128, jax.random.key(0)
TOLERANCE, ATTEMPTS = 0.1, 10  # of algorithm 1
GOAL = 0.02  # decades per layer, which is asked of every model

Forward = Callable[[Callable[[int, Any], Any], Any, Any], Any]


class Case(NamedTuple):
    """A model at fault.

    Attributes:
        forward: `forward(dense, x, nn)`, which calls the i-th linear map as `dense(i, x)`.
        gains: fan_in·Var(W) of each.
        tokens: positions of an input, or 0.
    """

    forward: Forward
    gains: list[float]
    tokens: int = 0


def chain(phi: str, count: int) -> Forward:
    def forward(dense: Any, x: Any, nn: Any) -> Any:
        for i in range(count - 1):
            x = getattr(nn, phi)(dense(i, x))
        return dense(count - 1, x)

    return forward


def residual(blocks: int) -> Forward:
    def forward(dense: Any, x: Any, nn: Any) -> Any:
        for i in range(blocks):
            x = x + dense(2 * i + 1, nn.relu(dense(2 * i, x)))
        return x

    return forward


def attention(blocks: int) -> Forward:
    """Pre-norm attention and an MLP: the layers of a block are q, k, v, o, up, down."""

    def forward(dense: Any, x: Any, nn: Any) -> Any:
        for i in range(0, 6 * blocks, 6):
            h = nn.norm(x)
            q, k, v = (dense(i + j, h) for j in range(3))
            x = x + dense(i + 3, nn.softmax(q @ nn.transposed(k) / WIDTH**0.5) @ v)
            x = x + dense(i + 5, nn.relu(dense(i + 4, nn.norm(x))))
        return x

    return forward


def at(gains: list[float], *places: int, times: float) -> list[float]:
    """Return the gains with some of them multiplied."""
    return [g * (times if k in places else 1.0) for k, g in enumerate(gains)]


BLOCK = [1.0, 1.0, 1.0, 1.0, 2.0, 1.0]
QUERIES_AND_KEYS = [i + j for i in range(0, 18, 6) for j in (0, 1)]
CASES = {
    "ReLU, a layer × 30": Case(chain("relu", 12), at([2.0] * 12, 5, times=900.0)),
    "ReLU, LeCun's weights": Case(chain("relu", 12), [1.0] * 12),
    "tanh, gain 3": Case(chain("tanh", 10), [9.0] * 10),
    "tanh, Glorot's weights / 2": Case(chain("tanh", 10), [0.25] * 10),
    "sigmoid, Glorot's weights": Case(chain("sigmoid", 10), [1.0] * 10),
    "residual without a scale": Case(residual(12), [2.0, 1.0] * 12),
    "residual, a branch × 30": Case(residual(12), at([2.0, 1 / 12] * 12, 11, times=900.0)),
    "transformer, queries and keys × 4": Case(
        attention(3), at(BLOCK * 3, *QUERIES_AND_KEYS, times=16.0), tokens=16
    ),
    "transformer, an output × 30": Case(attention(3), at(BLOCK * 3, 9, times=900.0), tokens=16),
}


class Jax:
    """The operations of a model in JAX."""

    relu, tanh, sigmoid, softmax = jax.nn.relu, jnp.tanh, jax.nn.sigmoid, jax.nn.softmax
    norm = staticmethod(lambda x: x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6))
    transposed = staticmethod(lambda x: x.swapaxes(-1, -2))


def model(case: Case) -> tuple[Callable[..., Any], list[Any], Any]:
    """Return a function of its weights, the weights and the batch."""
    keys = jax.random.split(KEY, len(case.gains) + 1)
    normal = lambda key, gain: jax.random.normal(key, (WIDTH, WIDTH)) * (gain / WIDTH) ** 0.5  # noqa: E731
    weights = [normal(key, gain) for key, gain in zip(keys[1:], case.gains, strict=True)]
    shape = (BATCH, WIDTH) if not case.tokens else (BATCH // case.tokens, case.tokens, WIDTH)
    run = lambda weights, x: case.forward(lambda i, x: x @ weights[i], x, Jax)  # noqa: E731
    return run, weights, jax.random.normal(keys[0], shape)


def lsuv(case: Case, weights: list[Any], x: Any) -> list[Any]:
    """Return the weights of algorithm 1."""
    orthonormal = jax.nn.initializers.orthogonal()
    keys = jax.random.split(KEY, len(weights))
    weights = [orthonormal(k, w.shape) for k, w in zip(keys, weights, strict=True)]

    def outputs(weights: list[Any]) -> list[Any]:
        made = {}

        def dense(i: int, x: Any) -> Any:
            made[i] = jnp.std(x @ weights[i])
            return x @ weights[i]

        case.forward(dense, x, Jax)
        return [made[i] for i in range(len(weights))]

    deviations = jax.jit(outputs)
    for i in range(len(weights)):
        for _ in range(ATTEMPTS):
            deviation = float(deviations(weights)[i])
            if abs(deviation - 1) < TOLERANCE or not deviation:
                break
            weights[i] = weights[i] / deviation
    return weights


def package(case: Case, weights: list[Any], x: Any) -> list[Any]:
    """Return the weights of `lsuv.lsuv_with_singlebatch`, on the same model in PyTorch."""
    import torch
    from lsuv import lsuv_with_singlebatch

    class Torch:
        relu, tanh, sigmoid = torch.relu, torch.tanh, torch.sigmoid
        softmax = staticmethod(lambda x: torch.softmax(x, dim=-1))
        norm = staticmethod(lambda x: x * torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-6))
        transposed = staticmethod(lambda x: x.transpose(-1, -2))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            maps = [torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in weights]
            self.maps = torch.nn.ModuleList(maps)

        def forward(self, x: Any) -> Any:
            return case.forward(lambda i, x: self.maps[i](x), x, Torch)

    torch.manual_seed(0)
    net, batch = Net(), torch.from_numpy(np.array(x))
    with torch.no_grad():
        made = lsuv_with_singlebatch(net, batch, device=torch.device("cpu"), verbose=False)
        return [jnp.asarray(one.weight.T.numpy().copy()) for one in made.maps]


def measure(run: Any, weights: Any, x: Any) -> Callable[[Any], tuple[float, float]]:
    """Return what measures the growth of signal and gradient, in decades per layer."""
    ready = prepared(run, weights, x, key=KEY, options=Options())

    def measured(weights: Any) -> tuple[float, float]:
        rates = growth(ready.observe(weights).trace.record())
        return rates["forward"], rates["backward"]

    return measured


def main() -> None:
    """Print a row for each model, and keep the numbers."""
    ways = {"LSUV": lsuv}
    if all(map(importlib.util.find_spec, ("torch", "lsuv"))):
        ways["lsuv package"] = package
    numbers, head = {}, ["model", "before", *ways, "repair", "changed"]
    print(f"| {' | '.join(head)} |\n| {' | '.join(['---'] * len(head))} |", flush=True)
    for name, case in CASES.items():
        run, weights, x = model(case)
        fixed = pp.repair(run, weights, x, key=KEY, growth=GOAL)
        measured = measure(run, weights, x)
        cells = {"before": measured(weights)}
        cells |= {way: measured(of(case, weights, x)) for way, of in ways.items()}
        cells["repair"] = measured(fixed.params)
        for way, pair in cells.items():
            numbers[f"{name}: {way}, decades per layer"] = max(map(abs, pair))
        changed = len(fixed.multipliers)
        row = name, *map(_cell, cells.values()), f"{changed} of {len(weights)}"
        print("| " + " | ".join(row) + " |", flush=True)
    history.append("repair", numbers)


def _cell(pair: tuple[float, float]) -> str:
    return " / ".join(f"{v:+.3f}" if np.isfinite(v) else "lost" for v in pair)


if __name__ == "__main__":
    main()
