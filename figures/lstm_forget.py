"""How far back a recurrent network's gradient reaches: an LSTM's forget bias, an RNN's weights.

Where its gates see their biases alone, an LSTM's cell gradient falls by sigma(b_f)^2 per step in
second moment, a memory of -1/ln sigma(b_f) steps (Gers et al., 2000). A linear RNN keeps a
gradient's norm if W is orthogonal, and so does ReLU's if W = I, on states that are not negative
(Le et al., 2015). Gaussian weights of sigma_w^2 = 1/2 halve it at every step.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

MEMORY = {0: 1.442695, 1: 3.192219, 2: 7.878482, 3: 20.581488}
KEY, HALF = jax.random.key(0), "sigma(0.70710678,0)"
RNN = {"orthogonal": ("identity", 0.0), "identity": ("relu", 0.0), HALF: ("identity", -0.30103)}


def cell(forget: float, depth: int) -> np.ndarray:
    """Return log10 of the cell gradient's second moment before each step."""
    family = f"lstm(forget={forget},recurrent_init=zeros,input_init=zeros)"
    net = pp.Network(depth, 16, family, "tanh")
    record = pp.measure(net, KEY, seeds=1, batch=2, measures=("cell_gradient_q",))
    return record.log10_cell_gradient_q.values[0, 1:]


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depth, width = (10, 64) if small else (20, 256)
    figure = Figure((9.6, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    back = np.arange(depth)
    for k, (forget, memory) in enumerate(MEMORY.items()):
        found = cell(forget, depth)[::-1]
        slope = np.diff(found)
        assert np.allclose(slope, -2 / np.log(10) / memory, rtol=1e-4), f"b={forget}: {slope}"
        label = f"b = {forget}: memory {memory:.2f} steps"
        left.plot(back, found - found[0], ".", color=pp.plot.COLOURS[k], label=label)
        left.plot(back, -2 / np.log(10) / memory * back, color=pp.plot.COLOURS[k], linewidth=0.8)
    net = pp.Network(depth, width, "rnn(input_init=zeros)")
    grid = {"init": list(RNN), "activation": ["identity", "relu"]}
    record = pp.sweep(net, **grid, key=KEY, seeds=8, measures=("backward_q",)).mean("seed")
    for k, (init, (phi, rate)) in enumerate(RNN.items()):
        found = record.log10_backward_q.sel(init=init, activation=phi).values[-2::-1]
        off = np.abs(np.diff(found).mean() - rate)
        assert off < (1e-6 if rate == 0 else 0.06), f"{init}: {off:.3f} decades per step off"
        right.plot(back, found - found[0], ".-", color=pp.plot.COLOURS[k], label=f"{init} + {phi}")
    for ax, title in ((left, "LSTM cell, gates at their biases"), (right, "RNN, no input")):
        ax.set(xlabel="steps back from the last", title=title)
        ax.legend(frameon=False, loc="lower left")
    left.set(ylabel="second moment of the gradient\n(decades, relative)")
    return figure
