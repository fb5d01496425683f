"""The coordinate check: with Adam at one rate changes grow with width, under µP they do not.

Yang et al. (2022), arXiv:2203.03466, Figure 5: sizes after a few updates against width. Of n inputs
that an update ±η moves alike, a hidden signal's change is width^1 in standard parametrisation,
the output's between width^1 and width^3/2; under µP (rates and a readout of 1/n) all are width^0.
"""

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import propagate as pp


def mlp(readout):
    """Return a builder of an MLP whose readout has std width^-readout."""

    def build(width, key):
        normal, (a, b, c, d) = jax.random.normal, jax.random.split(key, 4)
        w1, w2 = normal(a, (16, width)) / 4, normal(b, (width, width)) * (2 / width) ** 0.5
        x, w3 = normal(d, (32, 16)), normal(c, (width, 4)) / width**readout

        def loss(p, batch):
            h = jax.nn.relu(jax.nn.relu(batch[0] @ p["w1"]) @ p["w2"])
            return jnp.mean((h @ p["w3"] - batch[1]) ** 2)

        return loss, {"w1": w1, "w2": w2, "w3": w3}, (x, jnp.sin(x[:, :4]))

    return build


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    figure = Figure((8.6, 6.2), layout="constrained")
    rows = figure.subfigures(2, 1)
    widths = (64, 256) if small else (64, 128, 256, 512, 1024)
    kinds = [*zip(rows, ("standard", "mup"), (0.5, 1.0), strict=True)][small:]
    for row, name, readout in kinds:
        options = {"widths": widths, "steps": 2, "parametrisation": name}
        found = pp.coordinate_check(mlp(readout), key=jax.random.key(0), **options)
        first = {e.name: e.value for e in found.exponents if (e.quantity, e.step) == ("change", 1)}
        assert found.passed is not (name == "standard"), f"{found}"
        hidden, output = (1.0, 1.25) if name == "standard" else (0.0, 0.0)
        assert abs(first["w2"] - hidden) < 0.25, f"{name}: hidden, width^{first['w2']:.2f}"
        assert abs(first["w3"] - output) < 0.35, f"{name}: output, width^{first['w3']:.2f}"
        pp.plot.coordinate_check(found.record, axes=row.subplots(1, 3, sharey=True))
        row.suptitle(f"{'standard' if name == 'standard' else 'µ'} parametrisation, Adam")
    return figure
