"""Time `pp.train` against the same runs one after another in PyTorch.

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    python tests/benchmarks/training_speed.py

9 initialisers × 3 seeds of a 20 × 128 ReLU network on the digits: 20 epochs in batches of 32, with
the held-out accuracy after every epoch. Both sides take turns, round after round, in one process;
the ratio is the median over rounds. PyTorch gets whichever of one and two threads is faster for it.
Ours is warm, and its first call, which compiles, is told besides; so is the memory. The ratio of
processor seconds is what is left of it on a machine that is busy with something else.
"""

import argparse
import functools
import itertools
import os
import platform
import resource
import time
from collections.abc import Callable

import history
import jax
import numpy as np

import propagate as pp

INITS = (
    *("normal_0.01", "normal_0.05", "lecun_normal", "xavier_normal", "xavier_uniform"),
    *("he_normal", "he_uniform", "torch", "orthogonal"),
)
DEPTH, WIDTH, BATCH, SEEDS, RATE = 20, 128, 32, 3, 0.01


def ours(optimizer: str, epochs: int) -> Callable[[], object]:
    """Return the runs, all at once."""
    net = pp.Network(depth=DEPTH, width=WIDTH, activation="relu")
    options = {"epochs": epochs, "seeds": SEEDS, "batch": BATCH, "measures": ("q",)}
    rate = {"optimizer": optimizer, "learning_rate": RATE}
    return lambda: pp.train(net, init=INITS, key=jax.random.key(0), **rate, **options)


def torch_loop(optimizer: str, epochs: int) -> Callable[[int], object]:
    """Return so many of the runs, one after another, as a plain loop in PyTorch."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor((pixels - pixels.mean()) / pixels.std(), dtype=torch.float32)
    y, held = torch.tensor(labels), len(x) // 5
    sizes = [64, *[WIDTH] * (DEPTH - 1), 10]

    def descent(params):
        if optimizer == "adam":
            return torch.optim.Adam(params, lr=RATE)
        return torch.optim.SGD(params, lr=RATE)

    def one(seed: int) -> float:
        torch.manual_seed(seed)
        pairs = itertools.pairwise(sizes)
        layers = [m for pair in pairs for m in (nn.Linear(*pair), nn.ReLU())][:-1]
        for layer in layers[::2]:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        model = nn.Sequential(*layers)
        step, right = descent(model.parameters()), 0.0
        for _ in range(epochs):
            order = held + torch.randperm(len(x) - held)
            for k in range(len(order) // BATCH):
                rows = order[k * BATCH : (k + 1) * BATCH]
                step.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                step.step()
            with torch.no_grad():
                right = float((model(x[:held]).argmax(1) == y[:held]).float().mean())
        return right

    return lambda runs: [one(seed) for seed in range(runs)]


def timed(work: Callable[[], object]) -> np.ndarray:
    """Return the seconds that it takes: of the clock, and of processors."""
    begin = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - begin


def faster_threads(loop: Callable[[int], object]) -> int:
    """Let PyTorch use as many threads as suit it best, and return how many."""
    import torch

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        return min(timed(lambda: loop(1))[0] for _ in range(2))

    best = min(range(1, (os.cpu_count() or 1) + 1), key=seconds)
    torch.set_num_threads(best)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--runs", type=int, default=27, help="of PyTorch's; fewer are scaled up")
    options = parser.parse_args()
    versions, numbers = f"Python {platform.python_version()}, jax {jax.__version__}", {}
    for optimizer in ("sgd", "adam"):
        mine = ours(optimizer, options.epochs)
        first = timed(mine)[0]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        try:
            import torch

            loop = torch_loop(optimizer, options.epochs)
        except ImportError:
            print("PyTorch is not installed: see the first lines of this script")
            return
        threads, times, ratios = faster_threads(torch_loop(optimizer, 1)), [], []
        theirs, share = functools.partial(loop, options.runs), len(INITS) * SEEDS / options.runs
        for _ in range(options.rounds):
            times.append(timed(mine))
            ratios.append(times[-1] / (share * timed(theirs)))
        if optimizer == "sgd":
            print(f"{versions}, torch {torch.__version__}, {os.cpu_count()} cores")
            print(f"{'':8}{'first, s':>10}{'warm, s':>10}{'/ PyTorch':>11}{'processors':>12}")
        warm, (wall, cpu) = np.median(times, axis=0)[0], np.median(ratios, axis=0)
        print(f"{optimizer:8}{first:10.1f}{warm:10.1f}{wall:11.2f}{cpu:12.2f}", flush=True)
        print(f"{'':8}PyTorch with {threads} threads")
        numbers |= {f"{optimizer}: s": warm, f"{optimizer}: / PyTorch": wall}
        numbers |= {f"{optimizer}: processor seconds / PyTorch": cpu}
        numbers |= {f"{optimizer}: first, s": first, f"{optimizer}: memory, GB": memory}
    print(f"memory, with jax: {numbers['sgd: memory, GB']:.2f} GB")
    assert np.isfinite(list(numbers.values())).all()
    history.append("training_speed", numbers)


if __name__ == "__main__":
    main()
