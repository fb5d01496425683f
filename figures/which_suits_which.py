"""The default sweep as a map: which initialiser suits which activation, at depth 50.

Rates and verdicts of `propagate sweep`. Expected totals over the depth are those of infinitely
wide networks: ReLU halves the second moment at sigma_w^2 = 1, sigmoid's chi_1 is 0.0555 at its
fixed point q* = 0.2647, GELU halves once q is small.
"""

import jax
from matplotlib.figure import Figure

import propagate as pp

INITS = (
    *("zeros", "constant_0.01", "normal_0.01", "normal_0.05", "lecun_normal"),
    *("xavier_uniform", "xavier_normal", "he_normal", "torch", "orthogonal", "critical"),
)
PHIS = ("relu", "tanh", "sigmoid", "gelu", "silu", "selu")
TOTAL = {
    ("xavier_normal", "relu", "forward"): -15.05,
    ("xavier_normal", "relu", "backward"): -15.05,
    ("xavier_normal", "sigmoid", "backward"): -62.80,
    ("he_normal", "gelu", "forward"): -13.25,
}


def draw(small: bool = False) -> Figure:
    """Draw and check the figure."""
    inits, phis = (INITS[6:8], ("relu", "sigmoid", "gelu")) if small else (INITS, PHIS)
    net = pp.Network(depth=50, width=256)
    options = {"seeds": 4} | ({"batch": 16, "measures": ("q", "variance")} if small else {})
    record = pp.sweep(net, init=inits, activation=phis, key=jax.random.key(0), **options)
    findings = pp.judge(record)
    by_pairing = {(f.init, f.activation, f.direction): f for f in findings}
    for pairing, expected in TOTAL.items():
        found = by_pairing[pairing]
        assert abs(found.total - expected) < 0.9, f"{found}: {expected} decades expected"
    settled = 10 ** record.log10_forward_q.sel(init="xavier_normal", activation="sigmoid")[:, 25:]
    assert abs(settled.mean() / 0.2647 - 1) < 0.03, f"sigmoid's q settles at {settled.mean():.4f}"
    assert findings.suited()["relu"] == ["he_normal", "critical"][: 2 - small]

    return pp.plot.heatmaps(findings)
