"""Signal propagation plots of residual stacks: the stream, and what a branch adds to it.

De & Smith (2020), arXiv:2002.10444: a plain branch doubles the stream at every block, a
normalised one adds 1; Brock et al. (2021), arXiv:2101.08692: nf adds alpha² = 0.04; SkipInit and
Fixup (Zhang et al., 2019, arXiv:1901.09321) start as the identity.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

DEPTH = 16
LAYER = np.arange(DEPTH + 1)
STREAM = {
    "plain": ("residual", 2.0**LAYER),
    "depth, α = 1/√L": ("residual(branch=depth)", (1 + 1 / DEPTH) ** LAYER),
    "batch norm": ("residual(norm=batch)", 1 + LAYER),
    "normaliser-free, α = 0.2": ("residual(branch=nf)", 1 + 0.04 * LAYER),
    "SkipInit": ("residual(branch=skipinit)", 1 + 0 * LAYER),
    "Fixup": ("residual(branch=fixup)", 1 + 0 * LAYER),
}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, seeds = (128, 8) if small else (256, 16)
    figure = Figure((10, 4.2), layout="constrained")
    stream, branch = figure.subplots(1, 2, sharex=True, subplot_kw={"xticks": range(0, 17, 4)})
    shown, places = slice(2, 4) if small else slice(None), ("forward_q", "branch_q")
    for k, (name, (family, expected)) in [*enumerate(STREAM.items())][shown]:
        net = pp.Network(DEPTH, width, family)
        record = 10 ** pp.measure(net, jax.random.key(0), seeds=seeds, measures=places)
        q, added = (record[f"log10_{place}"] for place in places)
        mean, error = (q / q[:, 0]).mean("seed"), (q / q[:, 0]).std("seed") / np.sqrt(seeds - 1)
        # Student's t with 7 degrees of freedom: 8 standard errors, 1e-4; 1/n a layer is finite
        band = 8 * error + LAYER / width * expected + 1e-5
        assert np.all(np.abs(mean - expected) <= band), f"{name}: the stream's q is {mean.values}"
        style = {"color": pp.plot.COLOURS[k], "marker": "osDv^+"[k], "markersize": 5}
        stream.semilogy(LAYER, mean, linestyle="", **style, label=name)
        stream.semilogy(LAYER, expected, color=style["color"], linewidth=0.8)
        added = added.mean("seed").values
        branch.semilogy(LAYER[1:], np.where(added == 0, np.nan, added)[1:], **style)
    stream.set(xlabel="block", ylabel="second moment", title="the stream h; lines: theory")
    branch.set(xlabel="block", ylabel="second moment", title="a branch, α f(h) (absent: exactly 0)")
    words = {"title": "branch", "frameon": False, "loc": "outside right upper"}
    figure.legend(*stream.get_legend_handles_labels(), **words)
    return figure
