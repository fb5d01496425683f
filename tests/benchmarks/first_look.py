"""What a user waits for: the first `diagnose` of a model, over one plain step of the same model.

    python tests/benchmarks/first_look.py              # every model, some 20 minutes
    python tests/benchmarks/first_look.py "haiku ResNet18" --rounds 1

Both are traced, compiled and run once, each in a process of its own, plain and ours in turn; a
number is the median over rounds. The plain step is the jitted `value_and_grad` of the outputs times
noise, by all parameters. Parameters are made beforehand and given to both. Batches are 2 images of
64 × 64 × 3 pixels (75 × 75 where a model asks for more). *cpu* counts the seconds of all cores,
which other work on the machine leaves alone.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import history
import jax
import jax.numpy as jnp

MODELS = (
    "haiku ResNet18",
    "keras MobileNetV3Small",
    "keras DenseNet121",
    "keras VGG16",
    "keras Xception",
    "keras InceptionV3",
)
LARGER = ("Xception", "InceptionV3")
KEY = jax.random.key(0)


def built(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the model, its inputs and options, its parameters drawn."""
    framework, net = name.split()
    side = 75 if net in LARGER else 64
    x = jax.random.normal(jax.random.key(1), (2, side, side, 3))
    if framework == "haiku":
        import haiku as hk

        model = hk.transform_with_state(lambda x, train: getattr(hk.nets, net)(10)(x, train))
        return model, (x, True), {"variables": jax.jit(model.init, static_argnums=2)(KEY, x, True)}
    import keras

    shape = {"weights": None, "input_shape": x.shape[1:], "classes": 10}
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, net)(**shape, classifier_activation=None)
    return model, (x,), {"kwargs": {"training": True}}


def plain(model: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Trace, compile and run one step of the model."""
    from propagate.models.pure_function import pure

    ready = pure(model, *inputs, key=KEY, **options)

    def value(params: Any, data: Any) -> jax.Array:
        outputs = jax.tree.leaves(ready.fn(params, *data))
        return sum(jnp.sum(x * jax.random.normal(KEY, x.shape)) for x in outputs)

    jax.block_until_ready(jax.jit(jax.value_and_grad(value))(ready.params, ready.inputs))


def ours(model: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Diagnose the model."""
    import propagate as pp

    pp.diagnose(model, *inputs, key=KEY, **options)


def measured(name: str, which: str) -> dict[str, float]:
    """Return the seconds of one call in a new process."""
    command = [sys.executable, __file__, name, "--once", which]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def once(name: str, which: str) -> None:
    """Make the call and print its seconds."""
    import propagate  # noqa: F401, imported before the clock starts, as the framework is

    model, inputs, options = built(name)
    wall, cpu = time.perf_counter(), time.process_time()
    {"plain": plain, "ours": ours}[which](model, inputs, options)
    found = {"s": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps(found))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", choices=("plain", "ours"))
    given = parser.parse_args()
    if given.once:
        return once(given.models[0], given.once)
    print(f"Python {platform.python_version()}, jax {jax.__version__}, {jax.default_backend()}")
    print(f"{'':26}{'plain, s':>10}{'ours, s':>10}{'ratio':>8}{'cpu ratio':>11}")
    numbers = {}
    for name in given.models:
        rounds = [
            {which: measured(name, which) for which in ("plain", "ours")}
            for _ in range(given.rounds)
        ]
        middle = lambda which, of, rounds=rounds: statistics.median(r[which][of] for r in rounds)  # noqa: E731
        base, own = middle("plain", "s"), middle("ours", "s")
        cpu = middle("ours", "cpu") / middle("plain", "cpu")
        print(f"{name:26}{base:10.1f}{own:10.1f}{own / base:8.2f}{cpu:11.2f}", flush=True)
        found = {"plain, s": base, "ours, s": own, "ratio": own / base, "cpu ratio": cpu}
        numbers |= {f"{name}: {what}": value for what, value in found.items()}
    history.append("first_look", numbers)


if __name__ == "__main__":
    main()
