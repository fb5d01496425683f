"""Shattered gradients: those of two inputs have less in common the deeper a network is.

Balduzzi et al. (2017), arXiv:1702.08591. Where layers keep signals apart, as a layer norm after
ReLU does, the cosine of two inputs' gradients halves in every layer. In He's ReLU network signals
become parallel: it is the product of 1 - theta_l/pi, to which chance in 512 units adds by layer 24.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import propagate as pp

PLAIN = {1: 0.5, 2: 0.30155762, 5: 0.10455884, 10: 0.03365215, 24: 0.00546286}
FAMILIES = {"mlp": "plain", "mlp(norm=layer,norm_at=after)": "layer norm: halved"}
FAMILIES |= {"residual(maps=1)": "residual", "residual(maps=1,branch=depth)": "residual, × 1/√L"}


def expected(family: str, depth: int) -> float:
    """Return the cosine of the gradients of two orthogonal inputs, in the limit of wide layers."""
    at, layers, scale = (1.0, 1.0), [], depth**-0.5 if "depth" in family else 1.0
    for _ in range(depth):
        norm = {"norm": "layer", "after": True} if "norm" in family else {}
        one = pp.passage.layer("relu", pp.passage.Weights(2.0), *at, **norm)
        layers.append(pp.passage.residual(one, *at, scale=scale) if "res" in family else one)
        at = layers[-1][:2]
    return np.divide(*pp.passage.gradients(layers, correlation=1.0)[0, ::-1])


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    off, width, depths, shown = (0.05, 128, [2], 2) if small else (0.01, 512, [*PLAIN], 4)
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(width, 32)))[0].T * width**0.5
    same = pp.Batch(x, labels=np.full(x.shape, 1e6))  # one gradient at all outputs
    options = {"inputs": same, "seeds": 32, "loss": "mse", "measures": ("backward_correlation",)}
    cosines = Figure((7.6, 4.2), layout="constrained").subplots()
    for k, (family, name) in enumerate([*FAMILIES.items()][:shown]):
        theory, found, color = [expected(family, n) for n in depths], [], pp.plot.COLOURS[k]
        exact = [[PLAIN[n] for n in depths], [0.5**n for n in depths], theory, theory][k]
        assert np.allclose(theory, exact, rtol=1e-5), f"{name}: {theory} in theory"
        for depth in depths:
            net = pp.Network(depth, width, family, activate_input=True)
            record = pp.measure(net, jax.random.key(0), **options).isel(layer=0)
            found.append(float(record.backward_correlation.mean()))
        assert np.abs(np.subtract(found, theory)).max() < off, f"{name}: {found}, not {theory}"
        cosines.semilogy(depths, theory, color=color, linewidth=0.8)
        cosines.semilogy(depths, found, "osD^"[k], color=color, markersize=4, label=name)
    cosines.set(ylim=(7e-4, 1.3), xlabel="layers L", ylabel="cosine of two inputs' gradients")
    cosines.figure.legend(frameon=False, loc="outside right upper", title="lines: theory")
    return cosines.figure
