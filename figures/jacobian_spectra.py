"""Singular values of a whole network: only tanh with orthogonal weights keeps all directions.

Pennington et al. (2017, 2018), arXiv:1711.04735, arXiv:1802.09979: on the critical line the squares
have mean 1 and variance L (mu_2/mu_1^2 - 1 - s_1): 2 L and L of ReLU with Gaussian and orthogonal
weights, the first with a heavy tail. Orthogonal tanh stays below 1 at any depth, if q* = 1/L.
"""

import dataclasses
import functools

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

LINE = {16: (1.1153806, 2.36877e-4), 64: (1.0305575, 4.65133e-6)}  # sigma_w^2, sigma_b^2; q* = 1/L
VARIANCE = {(16, "relu"): (32, 16), (16, "tanh"): (16.307, 0.307)}  # Gaussian, orthogonal
VARIANCE |= {(64, "relu"): (128, 64), (64, "tanh"): (64.108, 0.108)}
EDGE = {16: (87.01331370, 42.12605948), 64: (347.94715258, 172.60911243)}  # of ReLU


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    width, draws, panels = (64, 1, 2) if small else (200, 2, 4)
    figure = Figure((10, 1.65 * panels), layout="constrained")
    axes = figure.subplots(panels // 2, 2, squeeze=False, sharex=True).flat
    for ax, ((depth, phi), variances) in [*zip(axes, VARIANCE.items(), strict=False)][small:]:
        line = (2.0, 0.0) if phi == "relu" else LINE[depth]
        q, sigma_w = (1.0 if phi == "relu" else 1 / depth), line[0] ** 0.5
        gaussian = pp.Network(depth, width, activation=phi, init=(sigma_w, line[1] ** 0.5))
        turned = pp.Network(1, width, init=f"{sigma_w:.9g}*orthogonal").init
        turned = dataclasses.replace(turned, bias=gaussian.init.bias)
        for k, net in enumerate((gaussian, dataclasses.replace(gaussian, init=turned))):
            theory = pp.jacobian.spectrum(phi, depth, line[0], q=q, orthogonal=k == 1)
            assert abs(theory.variance / variances[k] - 1) < 2e-3, f"{phi}, L = {depth}: {theory}"
            assert phi == "tanh" or abs(theory.edge / EDGE[depth][k] - 1) < 1e-6, theory
            found = []
            for key in jax.random.split(jax.random.key(0), draws):
                layers, x = pp.jacobian.layers_and_input(net, key)
                whole = functools.partial(functools.reduce, lambda h, f: f(h), layers)
                found.append(pp.jacobian.singular_values(whole, x * q**0.5))
            spread = np.mean(np.var(np.square(found), 1) / np.mean(np.square(found), 1) ** 2)
            off = abs(spread / theory.variance - 1)
            assert off < (0.6 if small else 0.4), f"{phi}, {depth}: variance {spread:.3g}"
            assert (spread < 1) == ((phi, k) == ("tanh", 1)), f"{phi}, {net.init.name}: {spread}"
            label = f"{('Gaussian', 'orthogonal')[k]} (theory {theory.variance:.3g})"
            pp.plot.spectrum(np.array(found), label=label, color=pp.plot.COLOURS[k], ax=ax)
        ax.set(title=f"{phi}, {depth} layers", xlim=(-10, 3))
    return figure
