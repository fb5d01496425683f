"""Time every family against its own bare matrix products or convolutions, forward and backward.

    python tests/benchmarks/family_speed.py

4 initialisers × 4 activations, one seed, mean and q, warm. Both are timed in turn, round after
round, in one process; the ratio is the median over rounds of the ratio within a round. Bare
products are those of the layer in a scan, and the products that take a gradient back to the
layer's input, and nothing else. Then the compilation of 10 and of 200 layers.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import history
import jax
import jax.numpy as jnp
from jax import lax

import propagate as pp
from propagate.blocks.parameters import Size
from propagate.run.dispatch import _compiled

INITS = ["he_normal", "lecun_normal", "1.1*he_normal", "normal_0.05"]
ACTIVATIONS = ["relu", "tanh", "gelu", "silu"]
DEPTH, CONFIGS = 20, len(INITS) * len(ACTIVATIONS)
SIZES = {"conv1d": (64, 64), "conv2d": (32, 32), "transformer": (128, 8)}  # width, batch
USUAL = 256, 128


def weights(family: str, width: int) -> dict[str, jax.Array]:
    """Return one layer's weights, as large as they are in the family."""
    size = pp.Network(depth=1, width=width, family=family).family.init
    found = size(Size(width, width, 1, 1))
    key = jax.random.key(0)
    shapes = {name: p.shape for name, p in found.items() if p.kind == "weight"}
    return {name: 0.01 * jax.random.normal(key, (DEPTH, *shape)) for name, shape in shapes.items()}


def convolved(axes: int, w: jax.Array, x: jax.Array) -> jax.Array:
    """Convolve with zero padding."""
    space = "HW"[:axes]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    return lax.conv_general_dilated(x, w, (1,) * axes, "SAME", dimension_numbers=numbers)


def bare(family: str, w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Return a layer's products, of the shapes that they have in it."""
    if family.startswith("conv"):
        return convolved(int(family[4]), w["weight"], x)
    if family == "transformer":
        heads = lambda a: a.reshape(*a.shape[:2], 4, -1).swapaxes(1, 2)  # noqa: E731
        q, k, v = (heads(x @ w[name]) for name in ("query", "key", "value"))
        mixed = ((q @ k.swapaxes(-1, -2)) @ v).swapaxes(1, 2).reshape(x.shape)
        return mixed @ w["output"] @ w["up"] @ w["down"]
    if family in ("mlp", "residual"):
        for weight in w.values():
            x = x @ weight
        return x
    noise = lax.stop_gradient(x)
    return sum(noise @ v if n.startswith("input") else x @ v for n, v in w.items())


def products(family: str, width: int, batch: int) -> Callable[[], object]:
    """Return all configurations' products forward and back to the inputs."""
    signal = pp.Network(depth=1, width=width, family=family).family.signal(width)
    signal = signal[1:] if family == "lstm" else signal
    layer = partial(bare, family)

    def step(x: jax.Array, w: dict[str, jax.Array]):
        return layer(w, x), None

    def back(g: jax.Array, w: dict[str, jax.Array]):
        return jax.vjp(partial(layer, w), g)[1](g)[0], None

    def forward_only(g: jax.Array, w: dict[str, jax.Array]):
        return lax.scan(step, g, w)[0]

    @jax.jit
    def run(x: jax.Array, w: dict[str, jax.Array]):
        linear = family != "transformer"
        y = forward_only(x, w)
        if linear:
            return y, lax.scan(back, x, w, reverse=True)[0]
        _, pull = jax.vjp(lambda x: forward_only(x, w), x)
        return pull(x)

    x = jnp.ones((CONFIGS * batch, *signal))
    w = weights(family, width)
    return lambda: jax.block_until_ready(run(x, w))


def seconds(run: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ours(family: str, width: int, batch: int, depth: int = DEPTH) -> Callable[[], object]:
    """Return the sweep."""
    net = pp.Network(depth=depth, width=width, family=family)
    options = {"init": INITS, "activation": ACTIVATIONS, "seeds": 1, "measures": ("mean", "q")}
    return lambda: pp.sweep(net, key=jax.random.key(0), batch=batch, **options)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--families", nargs="*", default=list(pp.blocks.FAMILIES))
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, jax {jax.__version__}, {jax.default_backend()}")
    print(
        f"{'':12}{'width':>6}{'batch':>6}{'median s':>10}{'/ bare':>8}{'compile 10':>12}{'200':>7}"
    )
    numbers = {}
    for family in args.families:
        width, batch = SIZES.get(family, USUAL)
        plain, own = products(family, width, batch), ours(family, width, batch)
        plain(), own()
        rounds = [(seconds(plain), seconds(own)) for _ in range(args.rounds)]
        ratio = statistics.median(b / a for a, b in rounds)
        middle = statistics.median(b for _, b in rounds)
        first = []
        for depth in (10, 200):
            _compiled.cache_clear()
            run = ours(family, 16, 4, depth)
            first.append(seconds(run) - seconds(run))
        found = {"s": middle, "/ bare": ratio, "compile 10, s": first[0], "200, s": first[1]}
        print(
            f"{family:12}{width:6}{batch:6}{middle:10.3f}{ratio:8.2f}{first[0]:12.2f}{first[1]:7.2f}"
        )
        numbers |= {f"{family}: {what}": value for what, value in found.items()}
    history.append("family_speed", numbers)


if __name__ == "__main__":
    main()
