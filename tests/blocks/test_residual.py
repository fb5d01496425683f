"""Residual stacks: second moments of the stream that each kind of branch makes."""

import functools

import jax
import numpy as np
import pytest

import propagate as pp
from propagate.blocks.parameters import Size
from propagate.blocks.residual import Residual, standardised
from propagate.initializers import initializer
from propagate.run.layerwise import layers_of

KEY = jax.random.key(8)
DEPTH, WIDTH, SEEDS = 8, 128, 32
# A mean over 32 seeds is farther off than 5 of its standard errors with probability 2e-5
# (Student t); what a finite width adds is of order 1/n for each of the L layers.
SIGMAS, FINITE = 5, 1 / WIDTH
LAYERS = np.arange(DEPTH + 1)
SIGNS = (1, -1)


@functools.cache
def measured(net: pp.Network):
    return pp.measure(net, KEY, seeds=SEEDS, batch=16, measures=("q",))


def growth(spelling: str, place: str, phi="relu", init="he_normal", depth=DEPTH, width=WIDTH):
    """q of each layer by that of the layer it starts from, in the order it is reached."""
    record = measured(pp.Network(depth, width, spelling, phi, init))
    q = 10 ** record[f"log10_{place}_q"].values
    return q / q[:, :1] if place == "forward" else (q / q[:, -1:])[:, ::-1]


def expect(ratios: np.ndarray, expected) -> None:
    error = ratios.std(0, ddof=1) / np.sqrt(len(ratios))
    off = np.abs(ratios.mean(0) / expected - 1)
    assert np.all(off <= SIGMAS * error / expected + FINITE * np.arange(ratios.shape[1]) + 1e-5)


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("residual", 2.0**LAYERS),
        ("residual(alpha=0.5)", 1.25**LAYERS),
        ("residual(alpha=0.5,maps=1)", 1.25**LAYERS),
        ("residual(branch=depth)", (1 + 1 / DEPTH) ** LAYERS),
    ],
)
def test_a_norm_preserving_branch_multiplies_by_one_plus_alpha_squared(spelling, expected, place):
    expect(growth(spelling, place), expected)


def test_nf_adds_alpha_squared_per_block():
    """Brock et al. (2021): 1.04, 1.08, …; each map multiplies a gradient by 1.4669 (ReLU)."""
    expect(growth("residual(branch=nf)", "forward"), 1 + 0.04 * LAYERS)
    beta2 = 1 + 0.04 * LAYERS[:-1]
    step = 1 + 0.04 * 1.4669422069**2 / beta2
    expect(growth("residual(branch=nf)", "backward"), np.cumprod([1, *step[::-1]]))


def test_a_normalised_branch_adds_one_per_block():
    """De & Smith (2020): Var = l + 1."""
    expect(growth("residual(norm=batch)", "forward"), LAYERS + 1)


@pytest.mark.parametrize("branch", ["skipinit", "rezero", "fixup"])
@pytest.mark.parametrize("init", ["he_normal", "torch"])
def test_a_silent_branch_leaves_signal_and_gradient_as_they_are(branch, init):
    for place in ("forward", "backward"):
        ratios = growth(f"residual(branch={branch})", place, init=init, width=16, depth=4)
        np.testing.assert_allclose(ratios, 1, rtol=1e-6)


def test_fixup_scales_by_depth_and_has_no_biases():
    """Zhang et al. (2019): L^(-1/(2m-2)) for m weights a branch, the last 0."""
    made = Residual(branch="fixup", maps=3).init(Size(8, 8, 16, 1))
    torch = initializer("torch")
    scales = [made[f"map{k}"].scale(torch) / torch.scale(8, 8) for k in (1, 2, 3)]
    assert scales == pytest.approx([0.5, 0.5, 0])
    assert all(made[f"bias{k}"].scale(torch) == 0 for k in (1, 2, 3))


@pytest.mark.parametrize("branch", ["plain", "nf", "depth"])
def test_the_branch_is_what_is_added(branch):
    net = pp.Network(3, 16, f"residual(branch={branch},alpha=0.7)", "tanh", "torch")
    options = {"seeds": 1, "batch": 6, "measures": ("branch_q", "branch_variance")}
    record = pp.measure(net, KEY, **options).isel(seed=0)
    h, steps = layers_of(net, KEY, batch=6)
    for layer, step in enumerate(steps, 1):
        added, h = np.asarray(step(h) - h, np.float64), step(h)
        assert 10 ** record.log10_branch_q[layer] == pytest.approx(np.mean(added**2), rel=1e-4)
        spread = added.var(0).mean()
        assert 10 ** record.log10_branch_variance[layer] == pytest.approx(spread, rel=1e-4)


def test_scaled_weights_are_standardised():
    w = standardised(3 + 5 * jax.random.normal(KEY, (40, 7)))
    np.testing.assert_allclose(w.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.square(w).sum(0), 1, rtol=1e-5)


def test_tanh_grows_as_the_root_of_depth():
    """Yang & Schoenholz (2017): p' = p + E tanh², log gradient 10.5455 after 100 blocks.

    The log of the mean over seeds: its error is that of one seed's q (standard deviation about
    sqrt(e^(40/n) - 1) = 0.6 of it) over sqrt(32): 0.11, and 5 of them.
    """
    ratios = growth("residual(maps=1)", "backward", "tanh", "lecun_uniform", depth=100)
    assert np.log(ratios[:, -1].mean()) == pytest.approx(10.5455, abs=0.55)
    steps = _tanh(100)
    assert steps.sum() == pytest.approx(10.5455, abs=1e-4)
    assert np.log(ratios[:, 25].mean()) == pytest.approx(steps[75:].sum(), abs=0.3)


def _tanh(depth: int) -> np.ndarray:
    """log(1 + E tanh'²) of each block from p_0 = 1, by quadrature."""
    z = np.linspace(-10, 10, 20_001)
    w, p, steps = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum(), 1.0, []
    for _ in range(depth):
        t = np.tanh(np.sqrt(p) * z)
        steps.append(np.log1p(w @ (1 - t**2) ** 2))
        p += w @ t**2
    return np.asarray(steps)


@pytest.mark.parametrize(("maps", "even"), [(1, True), (2, False)])
def test_only_the_first_activation_of_data_is_left_out(maps, even):
    """The branch of one map is linear in data, that of two is not, so -x makes another q of it."""
    x = np.random.default_rng(0).normal(size=(6, 8)).astype("float32")
    net = pp.Network(1, 8, family=f"residual(maps={maps})")
    options = {"seeds": 1, "measures": ("branch_q",)}
    found = [
        float(pp.measure(net, KEY, inputs=s * x, **options).log10_branch_q[0, 1]) for s in SIGNS
    ]
    assert (abs(found[0] - found[1]) < 1e-5) == even
