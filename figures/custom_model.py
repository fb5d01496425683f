"""A residual stack with norms, written in plain JAX, and the same with one branch 10 times larger.

Of 12 blocks theory expects the stream to grow as 1 + l·0.425, where E gelu² = 0.425 of a unit
Gaussian, by quadrature independent of this package. Diagnosis says which parameter departs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

GROWN = np.log10(1 + 0.42519 * np.arange(1, 13))  # E (h Phi(h))^2 = 0.42519


def model(blocks, x):  # noqa: D103
    for block in blocks:
        h = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True))
        x = x + jax.nn.gelu(h @ block["up"], approximate=False) @ block["down"]
    return x


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width = 128 if small else 512
    lecun, keys = jax.nn.initializers.lecun_normal(), jax.random.split(jax.random.key(0), 24)
    names = {"up": keys[:12], "down": keys[12:]}
    blocks = [{n: lecun(k[i], (width, width)) for n, k in names.items()} for i in range(12)]
    wrong = [b | {"down": 10 * b["down"]} if i == 5 else b for i, b in enumerate(blocks)]
    x = jax.ShapeDtypeStruct((128, width), jnp.float32)
    figure = Figure((9.6, 4.2), layout="constrained")
    for ax, weights in zip(figure.subplots(1, 2, sharey=True), (blocks, wrong), strict=True):
        found = pp.diagnose(model, weights, x, key=jax.random.key(1))
        theory = found.theory()
        for direction in ("forward", "backward"):
            off = theory[f"log10_{direction}_residual"].values[found.record.kind == "add"]
            assert np.abs(off).max() < (0.2 if small else 0.1), f"{direction}: {off}"
        (legend := found.plot(ax, theory=True).get_legend()).remove()
        title = "; ".join(f"{f.parameter}: {f.verdict.value}" for f in found.findings)
        ax.set_title(title or "no findings", fontsize="medium")
        stream = theory.log10_forward_q.values[found.record.kind == "add"]
        if weights is blocks:
            assert not title and np.abs(stream - GROWN).max() < 0.05, (title, stream)
        else:
            assert "5.down: departing" in title, title
            span = ax.axvspan(4.5, 5.5, color="#E69F00", alpha=0.25)
    words = [*(text.get_text() for text in legend.texts), "block 5, of which 5.down departs"]
    figure.legend([*legend.legend_handles, span], words, loc="outside lower center", ncols=2)
    return figure
