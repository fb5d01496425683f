"""How far back a recurrent network's gradient reaches: an LSTM's forget bias, an RNN's weights.

Where gates see their biases alone, the gradient falls as exp(-t/memory): -1/ln sigma(b_f) steps in
an LSTM's cell (Gers et al., 2000), -1/ln(1/2) in a GRU. Orthogonal W keeps a linear RNN's, W = I
that of ReLU on positive states (Le et al., 2015); sigma_w^2 = 1/2 halves its square.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

KEY, MEMORY = jax.random.key(0), (1.442695, 3.192219, 7.878482, 20.581488)  # by forget bias
CELL = {f"$b_f$ = {b}": (f"lstm(forget={b},", MEMORY[b], "cell_gradient_q", 4) for b in range(4)}
GATED = {"GRU": ("gru(", MEMORY[0], "backward_q", 8)} | CELL
RNN = {  # activation, decades per step, name, size
    "orthogonal": ("identity", 0.0, "orthogonal, linear", 9),
    "identity": ("relu", 0.0, "identity, ReLU", 4),
    "sigma(0.70710678,0)": ("identity", -0.30103, "Gaussian, $\\sigma_w^2 = 1/2$, linear", 4),
}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depth, width = (10, 64) if small else (21, 256)
    left, right = Figure((9.6, 4), layout="constrained").subplots(1, 2, sharey=True)
    back = np.arange(depth)
    for k, (label, (kind, memory, name, size)) in [*enumerate(GATED.items())][: 1 if small else 5]:
        net = pp.Network(depth, 16, f"{kind}recurrent_init=zeros,input_init=zeros)", "tanh")
        record = pp.measure(net, KEY, seeds=1, batch=2, measures=(name,))
        found, rate = record[f"log10_{name}"].values[0, :0:-1], -2 / np.log(10) / memory
        assert np.allclose(np.diff(found), rate, rtol=1e-4), f"{label}: {np.diff(found)}"
        style = {"markersize": size, "label": f"{label}: memory {memory:.2f} steps"}
        left.plot(back, found - found[0], "o", color=pp.plot.COLOURS[k], fillstyle="none", **style)
        left.plot(back, rate * back, "k--", lw=0.8, label="exp(-2t/memory)" if k == 4 else None)
    grid = {"init": list(RNN), "activation": ["identity", "relu"], "measures": ("backward_q",)}
    net = pp.Network(depth, width, "rnn(input_init=zeros)")
    record = pp.sweep(net, key=KEY, seeds=8, **grid).mean("seed")
    for k, (init, (phi, rate, label, size)) in enumerate(RNN.items()):
        found = record.log10_backward_q.sel(init=init, activation=phi).values[-2::-1]
        off = np.abs(np.diff(found).mean() - rate)
        assert off < (1e-6 if rate == 0 else 0.06), f"{init}: {off:.3f} decades per step off"
        style = {"markersize": size, "label": label, "fillstyle": "none"}
        right.plot(back, found - found[0], "o-", color=pp.plot.COLOURS[k], **style)
    for ax, title in ((left, "GRU, LSTM cell: gates at their biases"), (right, "RNN, no input")):
        ax.set(xlabel="steps back from the last", title=title, xticks=range(0, depth, 5))
        ax.legend(frameon=False, loc="lower left")
    left.set(ylabel="second moment of the gradient\n(decades, relative)")
    return left.figure
