"""How deep a tanh network trains: to about six times the depth scale of correlations.

Schoenholz et al. (2017), arXiv:1611.01232, Figure 5: networks train where their depth is below
about 6 xi_c, six times the layers over which the correlation of two inputs settles. Biases have
sigma_b² = 0.05, for which the edge of chaos, where xi_c has no bound, is at sigma_w² = 1.761.
Asserted: half of the classes are found below 3 xi_c, and not above 12 xi_c.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

SIGMA_B2, EDGE = 0.05, 1.76095464


def accuracy(depth, sigma_w2, epochs):
    """Return the share of classes found in training, at the best of three learning rates."""
    inits = [(w**0.5, SIGMA_B2**0.5) for w in sigma_w2]
    options = {"optimizer": "momentum", "learning_rate": (0.001, 0.003, 0.01), "measures": ("q",)}
    net, key = pp.Network(depth, 128, activation="tanh"), jax.random.key(0)
    found = pp.train(net, init=inits, key=key, seeds=1, epochs=epochs, **options).record
    return found.train_accuracy.isel(step=-1).max("learning_rate").squeeze().values


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    depths = (20,) if small else (10, 20, 40, 60)
    sigma_w2 = np.array([0.2, EDGE]) if small else np.array([0.6, 1, 1.4, EDGE, 2.1, 2.5, 3, 4])
    plane = pp.phase("tanh", np.linspace(0.15, 4.2, 150), [SIGMA_B2 - 0.01, SIGMA_B2])
    reach = 6 * plane["xi_c"].sel(sigma_b2=SIGMA_B2)
    found = np.array([accuracy(depth, sigma_w2, 2 if small else 6) for depth in depths])
    for depth, row in zip(depths, found, strict=True):
        for w, share in zip(sigma_w2, row, strict=True):
            limit = np.inf if w == EDGE else float(reach.interp(sigma_w2=w))
            assert share > 0.5 or depth > 0.5 * limit, f"{depth} layers at {w}: {share:.2f}"
            assert share < 0.5 or depth < 2 * limit, f"{depth} layers at {w}: {share:.2f}"
    figure = Figure((6.4, 4.2), layout="constrained")
    ax = figure.add_subplot()
    x, y = np.meshgrid(sigma_w2, depths)
    dots = ax.scatter(x, y, c=found, s=140, vmin=0, vmax=1, cmap="viridis", edgecolor="0.5")
    ax.plot(reach["sigma_w2"], reach, color="black", label="6 xi_c, theory")
    ax.set(xlabel="sigma_w²", ylabel="layers", ylim=(0, 68), xlim=(0.4, 4.2))
    ax.set_title(f"tanh, sigma_b² = {SIGMA_B2}: digits, 6 epochs", fontsize="medium")
    ax.legend(frameon=False, loc="upper right")
    figure.colorbar(dots, label="training accuracy")
    return figure
