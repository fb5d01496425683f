"""Convolutional stacks: norms they keep, borders that leak, statistics of channels, fans."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.blocks import family
from propagate.blocks.conv import Conv1d, Conv2d
from propagate.blocks.parameters import Size
from propagate.initializers import initializer
from propagate.run.layerwise import layers_of

KEY = jax.random.key(5)
NAMES = ("channel_mean_q", "channel_variance", "q")
SIGMAS = 5  # of a mean over 32 seeds: a sound one is farther off with probability 2e-5 (Student t)


@functools.cache
def measured(net: pp.Network, seeds: int, batch: int):
    return pp.measure(net, KEY, seeds=seeds, batch=batch, measures=("q",))


def growth(net: pp.Network, place: str, seeds: int = 32, batch: int = 8) -> np.ndarray:
    """q of each layer by that of the layer it starts from, (seeds, layers)."""
    q = 10 ** measured(net, seeds, batch)[f"log10_{place}_q"]
    return (q / q.isel(layer=0 if place == "forward" else -1)).values


def expect(ratios: np.ndarray, expected) -> None:
    """The mean over seeds is what is expected, within its own standard error."""
    error = ratios.std(0, ddof=1) / np.sqrt(len(ratios))
    assert np.all(np.abs(ratios.mean(0) - expected) < SIGMAS * error + 1e-5)


@pytest.mark.parametrize("kind", ["conv1d", "conv2d(positions=4)"])
def test_a_linear_delta_orthogonal_stack_keeps_norms_and_a_gaussian_one_does_not(kind):
    """Xiao et al. (2018), arXiv:1806.05393: exact, for every input and every gradient."""
    options = {"init": ["delta_orthogonal", "lecun_normal"], "measures": ("q", "variance")}
    net = pp.Network(20, 8, family=kind, activation="identity")
    record = pp.sweep(net, key=KEY, seeds=2, batch=4, **options).squeeze("activation")
    for name in ("log10_forward_q", "log10_forward_variance", "log10_backward_q"):
        wander = np.ptp(record[name].values, axis=-1)
        assert wander[0].max() < 1e-5
        assert wander[1].min() > 0.05


def test_a_layer_may_be_summed_within_the_same_program():
    """jaxlib 0.12 gives twice the sum of squares, if it may fuse the bias into it."""
    net = pp.Network(3, 16, family="conv2d(positions=8)", activation="identity")
    h, steps = layers_of(net, KEY, batch=8)
    for step in steps:
        squares = jax.jit(lambda h, step=step: (step(h) ** 2).sum())
        np.testing.assert_allclose(squares(h), np.square(step(h)).sum(), rtol=1e-4)


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_he_keeps_the_second_moment_on_a_circle(place):
    net = pp.Network(4, 32, family="conv2d(positions=4)", activation="relu", init="he_normal")
    expect(growth(net, place), 1)


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_zero_padding_leaks_at_the_borders(place):
    """E q at each position is a third of those of its neighbours and itself: 2/3 at an end."""
    positions, depth = 5, 4
    taps = sum(np.eye(positions, k=k) for k in (-1, 0, 1)) / 3
    profile = [np.linalg.matrix_power(taps, k) @ np.ones(positions) for k in range(depth + 1)]
    steps = range(depth + 1) if place == "forward" else range(depth, -1, -1)
    expected = np.asarray([profile[k].mean() for k in steps])
    assert expected.min() < 0.7
    spelling = f"conv1d(padding=zero,positions={positions})"
    net = pp.Network(depth, 64, spelling, "identity", "lecun_normal")
    expect(growth(net, place), expected)


def test_statistics_of_channels_are_those_of_numpy():
    net = pp.Network(3, 6, "conv2d(positions=4)", "relu", "he_normal")
    chosen = [f"forward_{name}" for name in NAMES]
    record = pp.measure(net, KEY, seeds=1, batch=5, measures=chosen).isel(seed=0)
    h, steps = layers_of(net, KEY, batch=5)
    for layer in range(4):
        channels = np.asarray(h, np.float64).reshape(-1, 6)
        mean_q, variance = np.mean(channels.mean(0) ** 2), np.mean(channels.var(0))
        found = [10 ** record[f"log10_forward_{name}"].values[layer] for name in NAMES]
        np.testing.assert_allclose(found, [mean_q, variance, mean_q + variance], rtol=1e-5)
        h = steps[layer](h) if layer < 3 else h


@pytest.mark.parametrize("padding", ["circular", "zero"])
@pytest.mark.parametrize("kernel", [2, 3])
def test_is_the_sum_over_taps(kernel, padding):
    """y_p = sum_t x_{p + t - (k-1)//2} W_t, around the circle or with zeros beyond the ends."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(kernel, kernel, 3, 6))
    block = Conv2d(kernel=kernel, padding=padding, positions=4)
    mode = {"circular": "wrap", "zero": "constant"}[padding]
    around = ((kernel - 1) // 2, kernel // 2)
    wide = np.pad(x, [(0, 0), around, around, (0, 0)], mode=mode)
    each = [(i, j) for i in range(kernel) for j in range(kernel)]
    expected = sum(wide[:, i : i + 4, j : j + 5] @ w[i, j] for i, j in each)
    found = block.convolve(jnp.float32(w), jnp.float32(x), "highest")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fans_count_the_kernel():
    """He draws variance 2/(k² c_in) by fan_in, 2/(k² c_out) by fan_out."""
    own = Conv2d(kernel=5).init(Size(4, 8, 1, 1))["weight"]
    assert own.shape == (5, 5, 4, 8)
    assert own.scale(initializer("he_normal")) ** 2 == pytest.approx(2 / (25 * 4))
    assert own.scale(initializer("he_normal(mode=fan_out)")) ** 2 == pytest.approx(2 / (25 * 8))
    bias = Conv1d(kernel=3).init(Size(4, 8, 1, 1))["bias"]
    assert bias.scale(initializer("torch")) ** 2 == pytest.approx(1 / (3 * 3 * 4))


@pytest.mark.parametrize("options", [{"family": "conv1d(kernel=2)"}, {"input_size": 16}])
def test_delta_orthogonal_kernels_that_cannot_be_are_refused_at_construction(options):
    net = {"depth": 2, "width": 8, "family": "conv1d"} | options
    with pytest.raises(pp.UnusableInput, match="odd kernels and no more inputs than outputs"):
        pp.Network(init="delta_orthogonal", **net)
    with pytest.raises(pp.UnusableInput, match="odd kernels and no more inputs than outputs"):
        pp.sweep(pp.Network(**net), init=["he_normal", "delta_orthogonal"], key=KEY)
    assert pp.Network(init="he_normal", **net).family == family(options.get("family", "conv1d"))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_loss_sees_the_mean_over_positions(loss):
    """Two classes of a linear stack: the gradient of the pooled outputs, spread over positions."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(6, 16)), rng.integers(0, 2, 6)
    y = labels if loss == "cross_entropy" else rng.normal(size=(6, 2))
    net = pp.Network(2, 8, "conv2d(positions=4)", "identity", "he_normal", 1, 2)
    options = {"inputs": x, "labels": y, "loss": loss, "measures": ("q",)}
    record = pp.measure(net, KEY, seeds=1, **options).isel(seed=0)
    h, steps = layers_of(net, KEY, batch=6)
    h = x.reshape(h.shape).astype("float32")
    for step in steps:
        h = step(h)
    pooled = np.asarray(h, np.float64).mean((1, 2))
    share = np.exp(pooled) / np.exp(pooled).sum(1, keepdims=True)
    g = (share - np.eye(2)[labels]) / 6 if loss == "cross_entropy" else (pooled - y) / 6
    assert 10 ** record.log10_backward_q[-1] == pytest.approx(np.mean((g / 16) ** 2), rel=1e-4)
