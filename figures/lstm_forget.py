"""How far back a recurrent network's gradient reaches: an LSTM's forget bias, an RNN's weights.

Where gates see their biases alone, an LSTM's cell gradient falls as exp(-t/memory), memory =
-1/ln sigma(b_f) (Gers et al., 2000). Orthogonal W keeps a linear RNN's, W = I that of ReLU on
states that are not negative (Le et al., 2015); sigma_w^2 = 1/2 halves its second moment.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

MEMORY = {0: 1.442695, 1: 3.192219, 2: 7.878482, 3: 20.581488}
RNN = {  # activation, decades per step, name, size of its marker
    "orthogonal": ("identity", 0.0, "orthogonal, linear", 9),
    "identity": ("relu", 0.0, "identity, ReLU", 4),
    "sigma(0.70710678,0)": ("identity", -0.30103, "Gaussian, $\\sigma_w^2 = 1/2$, linear", 4),
}
KEY = jax.random.key(0)


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depth, width = (10, 64) if small else (21, 256)
    left, right = Figure((9.6, 4), layout="constrained").subplots(1, 2, sharey=True)
    back = np.arange(depth)
    for k, (forget, memory) in enumerate(MEMORY.items()):
        family = f"lstm(forget={forget},recurrent_init=zeros,input_init=zeros)"
        options = {"seeds": 1, "batch": 2, "measures": ("cell_gradient_q",)}
        record = pp.measure(pp.Network(depth, 16, family, "tanh"), KEY, **options)
        found, rate = record.log10_cell_gradient_q.values[0, :0:-1], -2 / np.log(10) / memory
        assert np.allclose(np.diff(found), rate, rtol=1e-4), f"b={forget}: {np.diff(found)}"
        label = f"$b_f$ = {forget}: memory {memory:.2f}"
        left.plot(back, found - found[0], "o", color=pp.plot.COLOURS[k], markersize=4, label=label)
        left.plot(back, rate * back, "k--", linewidth=0.8, label="exact" if k == 3 else None)
    grid = {"init": list(RNN), "activation": ["identity", "relu"], "measures": ("backward_q",)}
    net = pp.Network(depth, width, "rnn(input_init=zeros)")
    record = pp.sweep(net, key=KEY, seeds=8, **grid).mean("seed")
    for k, (init, (phi, rate, label, size)) in enumerate(RNN.items()):
        found = record.log10_backward_q.sel(init=init, activation=phi).values[-2::-1]
        off = np.abs(np.diff(found).mean() - rate)
        assert off < (1e-6 if rate == 0 else 0.06), f"{init}: {off:.3f} decades per step off"
        style = {"color": pp.plot.COLOURS[k], "markersize": size, "label": label}
        right.plot(back, found - found[0], "o-", fillstyle="none", **style)
    for ax, title in ((left, "LSTM cell, gates at their biases"), (right, "RNN, no input")):
        ax.set(xlabel="steps back from the last", title=title, xticks=range(0, depth, 5))
        ax.legend(frameon=False, loc="lower left")
    left.set(ylabel="second moment of the gradient\n(decades, relative)")
    return left.figure
