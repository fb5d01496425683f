"""The engine against `jax.grad` on the unrolled network, and at the edges of float32."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import propagate as pp
from propagate.activations import ACTIVATIONS, activation
from propagate.batches import Batch
from propagate.blocks import FAMILIES
from propagate.network import layer_table
from propagate.record.measures import select
from propagate.run import engine, memory, plan, program
from propagate.run.feed import Feed
from propagate.run.pairings import Grouping, blocks_of

KEY = jax.random.key(7)
DEPTH, WIDTH, BATCH = 3, 12, 9
COMPARED = ("q", "variance", "weight_gradient_q")  # with what is unrolled


def unrolled(net: pp.Network, data: Batch | None, loss: str):
    """Signals and gradients of seed 0 by `jax.grad` with respect to zero perturbations."""
    feed = Feed(net, KEY, data, "gaussian", BATCH, 0.5, loss)
    h0, target, keys = feed.inputs(0), feed.target(0), feed.layer_keys(0)
    named = [dict(spec.parameters) for spec in layer_table(net, len(h0))]
    pairs = list(zip(named, keys, strict=True))
    draws = [program.draw(net.init.base, own, "float32", key) for own, key in pairs]
    weights = [net.init.scale(*s) * d["weight"] for s, d in zip(net.shapes, draws, strict=True)]
    biases = [net.init.bias(*s) * d["bias"] for s, d in zip(net.shapes, draws, strict=True)]

    def forward(weights, zeros):
        h, signals = h0 + zeros[0], [h0]
        for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
            x = h if layer == 0 and feed.raw else net.activation(h)
            h = x @ w + b[None]
            if net.init.data_scaled:
                h = h / jax.lax.stop_gradient(jnp.std(h))
            h = h + zeros[layer + 1]
            signals.append(h)
        return h, signals

    def value(weights, zeros):
        h, signals = forward(weights, zeros)
        if loss == "gaussian":
            return jnp.sum(h * target), signals
        if loss == "mse":
            return jnp.mean((h - target) ** 2), signals
        return -jnp.mean(jax.nn.log_softmax(h)[jnp.arange(len(h)), target]), signals

    sizes = [net.shapes[0][0], *(o for _, o in net.shapes)]
    zeros = [jnp.zeros((len(h0), n)) for n in sizes]
    (dw, dh), signals = jax.grad(value, argnums=(0, 1), has_aux=True)(weights, zeros)
    return signals, dh, dw


def log_q(arrays) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log10([np.mean(np.square(np.asarray(a, np.float64))) for a in arrays])


def check(net: pp.Network, data: Batch | None = None, loss: str = "gaussian") -> None:
    options = {"seeds": 1, "batch": BATCH, "measures": COMPARED}
    record = pp.measure(net, KEY, inputs=data, loss=loss, **options).isel(seed=0)
    compare(record, net, data, loss)


def compare(record, net: pp.Network, data: Batch | None = None, loss: str = "gaussian") -> None:
    signals, dh, dw = unrolled(net, data, loss)
    np.testing.assert_allclose(record.log10_forward_q, log_q(signals), atol=2e-5)
    np.testing.assert_allclose(record.log10_backward_q, log_q(dh), atol=1e-4)
    if not net.init.data_scaled:  # there the oracle's weights are not the scaled ones
        np.testing.assert_allclose(record.log10_weight_gradient_q[1:], log_q(dw), atol=1e-4)
    spread = np.log10([np.asarray(s, np.float64).var(0).mean() for s in signals])
    np.testing.assert_allclose(record.log10_forward_variance, spread, atol=1e-4)


def test_equals_gradients_of_zero_perturbations():
    net = pp.Network(DEPTH, WIDTH, init="he_normal")
    options = {"key": KEY, "seeds": 1, "batch": BATCH, "measures": COMPARED}
    grid = pp.sweep(net, activation=list(ACTIVATIONS), **options)
    for phi in ACTIVATIONS:
        record = grid.sel(activation=phi).isel(seed=0, init=0)
        compare(record, pp.Network(DEPTH, WIDTH, activation=phi, init="he_normal"))


@pytest.mark.parametrize(
    "init", ["torch", "lsuv", "orthogonal", "sigma(1.5,0.4)", "sparse(0.5,0.6)"]
)
def test_equals_gradients_for_every_kind_of_law(init):
    check(pp.Network(DEPTH, WIDTH, activation="tanh", init=init))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "gaussian"])
def test_equals_gradients_of_a_real_loss_on_data_of_another_size(loss):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, BATCH) if loss == "cross_entropy" else rng.normal(size=(BATCH, 3))
    data = Batch(rng.normal(size=(BATCH, 20)), labels)
    net = pp.Network(DEPTH, WIDTH, activation="gelu", input_size=20)
    check(pp.Network(DEPTH, WIDTH, "mlp", "gelu", "he_normal", 20, 3), data, loss)
    if loss != "gaussian":
        sized = pp.measure(net, KEY, seeds=1, inputs=data, loss=loss, measures=("backward_q",))
        assert np.isfinite(sized.log10_backward_q).all()


def test_takes_any_callables():
    def tent(h):
        return jnp.maximum(1 - jnp.abs(h), 0)

    def wide(key, shape, dtype):
        return 0.4 * jax.random.laplace(key, shape, dtype)

    check(pp.Network(DEPTH, WIDTH, activation=tent, init=wide))


def test_chunks_and_drawn_weights_change_nothing(monkeypatch):
    net = pp.Network(11, WIDTH, "mlp(norm=batch,dropout=0.25)", "selu", "torch")
    options = {"seeds": 2, "batch": BATCH}
    options["measures"] = ("q", "saturated_fraction", "weight_gradient_q")  # of each kind of place
    plain = pp.measure(net, KEY, **options)
    monkeypatch.setattr(memory, "KEPT_BYTES", 0)
    assert [part.chunks for part in plan.cut(layer_table(net)[0], 11, 1, 0)] == [3, 1]
    chunked = pp.measure(net, KEY, **options)
    monkeypatch.setattr(memory, "WEIGHT_BYTES", 0)
    drawn = pp.measure(net, KEY, **options)
    for name in plain:
        np.testing.assert_allclose(chunked[name], plain[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(drawn[name], plain[name], rtol=1e-5, atol=1e-5)


def test_homogeneous_networks_are_followed_beyond_float32():
    net = pp.Network(depth=400, width=WIDTH)
    inits = ["1e-4*he_normal", "he_normal", "1e4*he_normal"]
    grid = {"init": inits, "activation": ["relu", "leaky_relu_0.2", "identity"]}
    record = pp.sweep(
        net, **grid, key=KEY, seeds=1, batch=4, measures=("forward_q", "backward_q")
    ).isel(seed=0)
    for name in ("log10_forward_q", "log10_backward_q"):
        off = (record[name] - record[name].sel(init="he_normal")).transpose("init", ..., "layer")
        steps = np.arange(401) if "forward" in name else np.arange(400, -1, -1)
        np.testing.assert_allclose(off[0], np.broadcast_to(-8.0 * steps, off[0].shape), atol=1e-3)
        np.testing.assert_allclose(off[2], np.broadcast_to(8.0 * steps, off[2].shape), atol=1e-3)


def test_three_thousand_sigmoid_layers_lose_three_thousand_decades():
    """Slope 1.2540 decades per layer at infinite width (sigma_w2 = 1, q* = 0.2647)."""
    net = pp.Network(depth=3_000, width=64, activation="sigmoid", init="xavier_normal")
    record = pp.measure(net, KEY, seeds=1, batch=2, measures=("q",)).isel(seed=0)
    assert record.log10_backward_q[0] == pytest.approx(-3_762, rel=5e-3)
    assert 10 ** record.log10_forward_q[1500:].mean() == pytest.approx(0.2647, rel=0.05)


@pytest.mark.parametrize("factor", [1e-30, 1e-18, 1e17])
def test_one_extreme_layer_neither_over_nor_underflows_the_statistics(factor):
    def law(scale):
        return lambda key, shape, dtype: scale * jax.random.normal(key, shape, dtype)

    plain, extreme = (
        pp.measure(pp.Network(1, WIDTH, init=law(scale)), KEY, seeds=1, measures=("q", "variance"))
        for scale in (1.0, factor)
    )
    shift = 2 * np.log10(factor)
    for name in ("log10_forward_q", "log10_forward_variance"):
        off = (extreme[name] - plain[name]).values[0, 1]
        assert off == pytest.approx(shift, abs=1e-4)
    assert (extreme - plain).log10_backward_q[0, 0] == pytest.approx(shift, abs=1e-4)


def test_lsuv_makes_every_variance_one():
    net = pp.Network(depth=30, width=64, activation="gelu", init="lsuv")
    record = pp.measure(net, KEY, seeds=2, measures=("forward_q", "forward_mean"))
    total = 10**record.log10_forward_q * (1 - record.forward_mean**2)
    np.testing.assert_allclose(total[:, 1:], 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_runs_and_names_its_dtype(dtype):
    net = pp.Network(depth=20, width=64, activation="tanh", init="xavier_normal", dtype=dtype)
    options = {"seeds": 2, "measures": (*COMPARED, "saturated_fraction")}
    record = pp.measure(net, KEY, **options)
    short = {"seeds": 2, "measures": ("forward_q",)}
    exact = pp.measure(replace(net, dtype="float32"), KEY, **short)
    assert record.attrs["dtype"] == dtype
    np.testing.assert_allclose(record.log10_forward_q, exact.log10_forward_q, atol=0.1)


def test_saturation_is_judged_by_the_slope():
    options = {"init": ["sigma(100,0)", "sigma(0.1,0)"], "activation": ["tanh"], "key": KEY}
    record = pp.sweep(pp.Network(6, 64), **options, measures=("activation_saturated_fraction",))
    wide, narrow = record.activation_saturated_fraction.isel(activation=0).mean("seed").values
    assert wide[1:6].min() > 0.9 and narrow[:6].max() < 0.2
    assert activation("tanh").slope == 1


@pytest.mark.parametrize("spelling", FAMILIES)
def test_a_layer_keeps_no_weights_for_the_way_back(spelling):
    """They come again; if a vjp held its own, memory would grow by the weights times the depth."""
    net = pp.Network(3, 32, f"{spelling}", activation="tanh")
    (block,) = blocks_of(net, [net.init], 1, Grouping(1))
    chosen = select(table=net.family.table)
    made = plan.program(net, [net.activation], block, chosen, "gaussian", 2)
    part = made.stretches[0]
    shapes = {name: p.shape for name, p in part.spec.parameters if p.kind == "weight"}
    array = lambda *shape, dtype="float32": jax.ShapeDtypeStruct(shape, dtype)  # noqa: E731
    params = {name: array(*p.shape) for name, p in part.spec.parameters}
    layer = program.Layer(
        {name: v for name, v in params.items() if name in part.spec.own(shared=False)},
        {name: array(1) for name in params},
        array(dtype="int32"),
        array(dtype="bool"),
        array(dtype="int32"),
    )
    y = array(1, 2, *net.family.signal(32))
    signal = engine.Signal(y, array(1, dtype="int32"), array(1, dtype="int32"))
    shared = {name: v for name, v in params.items() if name not in layer.draw}
    step = partial(engine.forward, made, np.zeros(1, bool), part)
    _, (_, kept) = jax.eval_shape(step, (signal, shared), layer)
    held = [leaf.shape for leaf in jax.tree.leaves(kept)]
    assert not [shape for shape in shapes.values() if shape in held]
