"""Time the sweep against PyTorch hooks and against the bare matrix products.

    pip install torch && python tests/benchmarks/sweep_speed.py

6 initialisers × 6 activations, depth 50, width 256, batch 128, one seed, warm. Every row is
timed in turn, round after round, in one process; a ratio is the median over rounds of
the ratio within a round. At equal widths glorot_normal and lecun_normal are one law, which the
sweep runs once; a row with six distinct laws shows what that is worth.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import history
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import propagate as pp

INITS = [
    "normal_0.01",
    "lecun_normal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
]
DISTINCT = [name.replace("glorot_normal", "1.1*glorot_normal") for name in INITS]
ACTIVATIONS = ["tanh", "relu", "gelu", "silu", "sigmoid", "selu"]
DEPTH, WIDTH, BATCH = 50, 256, 128


def ours(measures: tuple[str, ...] | None, inits: list[str] = INITS) -> Callable[[], object]:
    """Return the sweep."""
    net = pp.Network(depth=DEPTH, width=WIDTH)
    grid = {"init": inits, "activation": ACTIVATIONS, "seeds": 1, "batch": BATCH}
    return lambda: pp.sweep(net, key=jax.random.key(0), measures=measures, **grid)


def products() -> Callable[[], object]:
    """Return the same number of matrix products, forward and backward, and nothing else."""

    @jax.jit
    def run(weights, x, g):
        x, _ = lax.scan(lambda x, w: (x @ w, None), x, weights)
        g, _ = lax.scan(lambda g, w: (g @ w.T, None), g, weights, reverse=True)
        return x, g

    weights = jax.random.normal(jax.random.key(0), (DEPTH, WIDTH, WIDTH)) / np.sqrt(WIDTH)
    x = jnp.ones((len(INITS) * len(ACTIVATIONS) * BATCH, WIDTH))
    return lambda: jax.block_until_ready(run(weights, x, x))


def torch_hooks() -> Callable[[], object]:
    """Return a plain PyTorch loop with hooks: mean and second moment, both directions."""
    import torch
    from torch import nn

    phis = {
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "sigmoid": nn.Sigmoid,
        "selu": nn.SELU,
    }
    init = {
        "normal_0.01": lambda w: nn.init.normal_(w, std=0.01),
        "lecun_normal": lambda w: nn.init.normal_(w, std=WIDTH**-0.5),
        "glorot_normal": nn.init.xavier_normal_,
        "glorot_uniform": nn.init.xavier_uniform_,
        "he_normal": nn.init.kaiming_normal_,
        "he_uniform": nn.init.kaiming_uniform_,
    }

    def statistics_of(x) -> tuple:
        return x.mean(), x.square().mean()

    def pairing(fill: Callable, phi: type[nn.Module]) -> list:
        layers = [m for _ in range(DEPTH) for m in (phi(), nn.Linear(WIDTH, WIDTH, bias=False))]
        seen = []
        for layer in layers:
            if isinstance(layer, nn.Linear):
                with torch.no_grad():
                    fill(layer.weight)
                layer.weight.requires_grad_(False)
                layer.register_full_backward_hook(
                    lambda module, into, out: seen.append(statistics_of(out[0]))
                )
            layer.register_forward_hook(
                lambda module, args, out: seen.append(statistics_of(out.detach()))
            )
        x = torch.randn(BATCH, WIDTH, requires_grad=True)
        h = nn.Sequential(*layers)(x)
        h.backward(torch.randn_like(h))
        return [[float(v) for v in pair] for pair in seen]

    return lambda: [pairing(init[i], phis[a]) for a in ACTIVATIONS for i in INITS]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    rows = {
        "bare matrix products": products(),
        "sweep, mean and q": ours(("mean", "q")),
        "sweep, all measures": ours(None),
        "sweep, six distinct laws": ours(("mean", "q"), DISTINCT),
    }
    versions = f"jax {jax.__version__}"
    try:
        import torch

        rows["PyTorch hooks, mean and q"] = torch_hooks()
        versions += f", torch {torch.__version__}"
    except ImportError:
        print("PyTorch is not installed: its row is left out (pip install torch)")
    for row in rows.values():
        row()
    times = {name: [] for name in rows}
    for _ in range(rounds):
        for name, row in rows.items():
            start = time.perf_counter()
            row()
            times[name].append(time.perf_counter() - start)
    print(f"Python {platform.python_version()}, {versions}, {jax.devices()[0].device_kind}")
    base, plain = times["bare matrix products"], times["sweep, mean and q"]
    print(f"{'':28}{'median s':>10}{'/ products':>12}{'/ sweep':>10}")
    numbers = {}
    for name, values in times.items():
        ratios = [statistics.median(np.divide(values, other)) for other in (base, plain)]
        print(f"{name:28}{statistics.median(values):10.3f}{ratios[0]:12.2f}{ratios[1]:10.2f}")
        numbers |= {f"{name}: s": statistics.median(values), f"{name}: / products": ratios[0]}
    history.append("sweep_speed", numbers)


if __name__ == "__main__":
    main()
