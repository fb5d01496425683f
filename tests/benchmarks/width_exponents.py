"""How far from theory the powers of width are that `coordinate_check` fits, and its verdicts.

    python tests/benchmarks/width_exponents.py

MLPs with two hidden layers of ReLU or tanh, widths 64 to 512, 8 seeds, 3 updates, several keys:
in µP, and with the one mistake of a readout drawn with variance 1/width, which µP's rates do not
mend: its output's change grows as width^1/2.
"""

import history
import jax
import jax.numpy as jnp

import propagate as pp

KEYS = 4
RATES = {"adam": 1e-3, "sgd": 0.02}


def mlp(phi, gain, readout):
    """Return a builder: He or LeCun weights, a readout with std width^-readout."""

    def build(width, key):
        normal, keys = jax.random.normal, jax.random.split(key, 4)
        params = [
            normal(keys[0], (16, width)) / 4,
            normal(keys[1], (width, width)) * (gain / width) ** 0.5,
            normal(keys[2], (width, 4)) / width**readout,
        ]
        x = normal(keys[3], (32, 16))

        def loss(p, batch):
            return jnp.mean((phi(phi(batch[0] @ p[0]) @ p[1]) @ p[2] - batch[1]) ** 2)

        return loss, params, (x, jnp.sin(x[:, :4]))

    return build


def main() -> None:
    """Print a row for each model and optimiser."""
    print("readout  phi   optimizer   passed  change: least  largest  output's  largest ±")
    numbers = {}
    for readout in (1.0, 0.5):
        for phi, gain in ((jax.nn.relu, 2), (jnp.tanh, 1)):
            for optimizer, rate in RATES.items():
                build, name = mlp(phi, gain, readout), getattr(phi, "__name__", "relu")
                runs = [
                    pp.coordinate_check(
                        build, key=jax.random.key(k), optimizer=optimizer, learning_rate=rate
                    )
                    for k in range(KEYS)
                ]
                moved = [e for r in runs for e in r.exponents if e.quantity == "change"]
                moved = [e for e in moved if e.outcome != "not judged"]
                values = [e.value for e in moved]
                last = [e.value for e in moved if e.name == "2"]
                half = max(e.high - e.low for e in moved) / 2
                words = [{True: "yes", False: "no", None: "?"}[r.passed] for r in runs]
                print(
                    f"1/n^{readout}   {name:5} {optimizer:9}  {' '.join(words):10} "
                    f"{min(values):+.2f}     {max(values):+.2f}     "
                    f"{sum(last) / len(last):+.2f}     {half:.2f}",
                    flush=True,
                )
                found = {"least": min(values), "largest": max(values), "±": half}
                found["output's"] = sum(last) / len(last)
                model = f"1/n^{readout}, {name}, {optimizer}"
                numbers |= {f"{model}: {what}": value for what, value in found.items()}
    history.append("width_exponents", numbers)


if __name__ == "__main__":
    main()
