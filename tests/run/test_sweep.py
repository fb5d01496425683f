"""The sweep: one compilation, any device, paired draws, clear errors, nothing lost."""

import itertools
import json
import re

import jax
import numpy as np
import pytest
import xarray as xr
from lowering import abstract, callbacks, mesh, whole_grid

import propagate as pp
from propagate.batches import Batch, load
from propagate.run import dispatch
from propagate.run.dispatch import _compiled, jitted
from propagate.run.pairings import Grouping, blocks_of, turns
from propagate.run.sweep import Interrupted

KEY = jax.random.key(3)
SMALL = {"depth": 4, "width": 16}
WHOLE = Grouping(activations=True)
FEW = {"key": KEY, "seeds": 1, "batch": 4, "measures": ("forward_q",)}
SOME = ("forward_q", "activation_saturated_fraction", "backward_q", "weight_gradient_q")
INITS = ["normal_0.01", "lecun_normal", "he_uniform", "torch", "orthogonal", "constant_0.1"]


def test_lowers_for_every_platform_without_a_callback():
    program, block = abstract(pp.Network(6, 16))
    assert not callbacks(jitted(program, mesh()), block)


def test_a_callback_would_be_found():
    def fn(x):
        jax.debug.print("{}", x)
        return x

    spec = jax.ShapeDtypeStruct((2,), "float32")
    lowered = jax.jit(fn).trace(spec).lower(lowering_platforms=("cpu",)).as_text()
    assert re.findall(r"custom_call *@([\w.]+callback)", lowered)


def test_program_does_not_grow_with_depth():
    def size(depth):
        program, block = abstract(pp.Network(depth, 16))
        return str(jitted(program, mesh()).lower(block).as_text()).count("\n")

    assert size(10) == size(1000)


def test_one_compilation_for_the_whole_grid():
    _compiled.cache_clear()
    net = pp.Network(**SMALL)
    options = {"key": KEY, "seeds": 2, "batch": 8, "measures": ("forward_q",)}
    pp.sweep(net, init=INITS, activation=["relu", "tanh", "sin"], **options)
    assert _compiled.cache_info().misses == 1


def test_one_compilation_for_activations_that_are_swept_later():
    """And the record is what it is without; an activation from elsewhere takes its own program."""
    options = {"key": KEY, "seeds": 1, "batch": 8, "measures": SOME[:3]}
    net, known = pp.Network(**SMALL), ("relu", "tanh")
    alone = [pp.sweep(net, activation=phi, **options) for phi in known]
    _compiled.cache_clear()
    for phi, expected in zip(known, alone, strict=True):
        found = pp.sweep(net, activation=phi, compile_for=known, **options)
        xr.testing.assert_identical(found.drop_attrs(deep=False), expected.drop_attrs(deep=False))
    assert _compiled.cache_info().misses == 1
    pp.sweep(net, activation="erf", compile_for=known, **options)
    assert _compiled.cache_info().misses == 2


def test_eight_devices_give_the_same_record():
    options = {"init": ["he_normal", "torch", "lsuv"], "activation": ["relu", "tanh"]}
    options |= {"key": KEY, "seeds": 4, "batch": 8, "measures": SOME}
    one, eight = (
        pp.sweep(pp.Network(**SMALL), devices=jax.devices()[:count], **options) for count in (1, 8)
    )
    assert eight.attrs["device"].startswith("8 ×")
    for name in one:
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chosen", [None, "cpu", jax.devices()[1]], ids=str)
def test_all_devices_are_used_unless_one_was_chosen(chosen):
    with jax.default_device(chosen):
        found = pp.sweep(pp.Network(depth=1, width=2), **FEW | {"seeds": 3})
    assert found.attrs["device"] == f"{1 if chosen else 3} × cpu (cpu)"


@pytest.mark.parametrize("devices", [[], ["cpu"], "cpu", 0, jax.devices()[0]], ids=str)
def test_what_is_no_device_is_refused(devices):
    with pytest.raises(pp.UnusableInput, match=r"devices must be some of jax.devices\(\)"):
        pp.sweep(pp.Network(**SMALL), **FEW, devices=devices)


def test_pairings_do_not_depend_on_their_company():
    net = pp.Network(**SMALL, activation="tanh", init="he_uniform")
    options = {"key": KEY, "seeds": 2, "batch": 8, "measures": SOME}
    alone = pp.measure(net, **options)
    grid = pp.sweep(net, init=INITS, activation=["relu", "tanh"], **options)
    among = grid.sel(init="he_uniform", activation="tanh")
    for name in alone:
        np.testing.assert_allclose(among[name], alone[name], rtol=1e-5, atol=1e-6)


def test_block_size_changes_nothing():
    options = {"init": INITS, "activation": ["relu"], "key": KEY, "seeds": 1, "batch": 8}
    options["measures"] = SOME
    own, *chosen = (pp.sweep(pp.Network(**SMALL), block=b, **options) for b in (None, 1, 7))
    for other, name in itertools.product(chosen, own):
        np.testing.assert_allclose(other[name], own[name], rtol=1e-5, atol=1e-5)


def test_seeds_differ_and_a_key_repeats():
    options = {"seeds": 3, "batch": 8, "measures": ("forward_q",)}
    one, two = (pp.measure(pp.Network(**SMALL), k, **options) for k in (KEY, jax.random.PRNGKey(3)))
    assert one.equals(two)
    assert len(np.unique(one.log10_forward_q[:, -1])) == 3


def test_input_pairs_have_their_cosine():
    """One hundred seeds of width 64: the mean cosine has a standard error below 0.01; 5 sigma."""
    net = pp.Network(depth=1, width=64)
    options = {"seeds": 100, "batch": 8, "measures": ("forward_correlation",)}
    record = pp.measure(net, KEY, input="pairs", cosine=0.7, **options)
    assert record.forward_correlation[:, 0].mean() == pytest.approx(0.7, abs=0.05)


def test_records_carry_their_provenance_and_only_what_was_asked_for():
    record = pp.measure(pp.Network(**SMALL), KEY, seeds=1, batch=8, measures=("mean", "q"))
    spec = json.loads(record.attrs["network"])
    assert spec["depth"] == 4 and spec["init"] == "he_normal"
    assert {"jax", "jaxlib", "date", "device", "dtype", "key", "batch"} <= set(record.attrs)
    asked = {name for name in record if "expected" not in name}  # theory, where one seed is too few
    assert asked == {
        f"{prefix}{place}_{name}"
        for place in ("forward", "activation", "backward")
        for prefix, name in (("log10_", "q"), ("", "mean"))
    }


def test_an_interrupted_sweep_keeps_what_it_measured():
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        grid = {"init": ["he_normal"], "activation": ["relu", "tanh", "gelu", "silu"]}
        options = {"seeds": 1, "batch": 8, "devices": jax.devices()[:1], "progress": stop}
        options["measures"] = ("forward_q",)
        pp.sweep(pp.Network(**SMALL), **grid, key=KEY, **options)
    measured = stopped.value.record.log10_forward_q.notnull().all("layer").values
    assert measured.ravel().tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be a whole number"),
        ({"batch": -1}, "batch must be a whole number"),
        ({"block": 0}, "block must be a whole number"),
        ({"measures": ("qq",)}, "measures must be some of"),
        ({"init": ["hee_normal"]}, "did you mean 'he_normal'"),
        ({"activation": ["rellu"]}, "did you mean 'relu'"),
        ({"init": ["torch", "torch"]}, "torch more than once"),
        ({"loss": "cross_entropy"}, "needs inputs"),
        ({"loss": "nll"}, "loss must be one of"),
        ({"inputs": np.ones((3, 2)), "loss": "mse"}, "needs labels"),
        ({"inputs": np.ones((3, 2)), "labels": np.ones(2), "loss": "mse"}, "as many labels"),
        ({"inputs": np.ones((3, 2)), "labels": -np.ones(3), "loss": "cross_entropy"}, "whole numb"),
        ({"inputs": np.full((3, 2), np.nan)}, r"first at \(0, 0\)"),
        ({"inputs": np.ones(3)}, "shape"),
        ({"input": "pairs", "cosine": 2.0}, "cosine must lie"),
        ({"input": "noise"}, "random inputs are"),
    ],
)
def test_unusable_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        pp.sweep(pp.Network(**SMALL), key=KEY, **options)


def test_memory_is_asked_for_beforehand():
    with pytest.raises(pp.PropagateError, match="GB"):
        pp.measure(pp.Network(depth=2, width=2_000_000), KEY, seeds=1)


def test_running_out_of_memory_is_told_in_words(monkeypatch):
    def full(*args):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nAt"
        )

    monkeypatch.setattr(dispatch, "_run", full)
    with pytest.raises(pp.PropagateError, match=r"smaller width, batch or block.*9 bytes\.$"):
        pp.measure(pp.Network(**SMALL), KEY, seeds=1, batch=8)


def test_equal_laws_are_run_once_and_written_to_all():
    net, inits = pp.Network(**SMALL), ["lecun_normal", "he_normal", "xavier_normal"]
    (block,) = blocks_of(net, [pp.Network(init=name).init for name in inits], 1, Grouping(2))
    assert block.inits == ((0, 2), (1,))
    record = pp.sweep(
        net, init=inits, key=KEY, seeds=1, batch=8, measures=("backward_q",)
    ).squeeze()
    assert record.sel(init="lecun_normal", drop=True).equals(
        record.sel(init="xavier_normal", drop=True)
    )
    narrowing = pp.Network(**SMALL, output_size=3)
    assert len(blocks_of(narrowing, [pp.Network(init=n).init for n in inits], 1, Grouping(2))) == 2


def test_the_grid_is_dealt_once():
    """Every pairing of every seed is run, whatever the number of devices."""
    net = pp.Network(**SMALL)
    inits = [pp.Network(init=name).init for name in INITS]
    for together, most in (
        (Grouping(), 1),
        (Grouping(activations=True), 1),
        (WHOLE, 3),
        (WHOLE, 99),
    ):
        blocks = blocks_of(net, inits, 3, together)
        for slots, seeds in itertools.product((1, 2, 3, 8), (2, 5)):
            dealt = turns(blocks, seeds, slots, most)
            cells = {
                (i, phi, seed)
                for turn in dealt
                for jobs in turn.slots
                for seed, block in jobs
                for phi in block.activations
                for same in block.inits
                for i in same
            }
            assert len(cells) == len(INITS) * 3 * seeds
            for turn in dealt:
                assert len(turn.slots) == len(dealt[0].slots) <= slots
                assert len(turn.bases) <= most
                assert all(
                    tuple(block.base for _, block in jobs) == turn.bases for jobs in turn.slots
                )


@pytest.mark.parametrize(
    ("spelling", "slots", "scaled"),
    [("mlp(norm=batch,dropout=0.2)", 2, ["lsuv"]), ("residual(branch=nf)", 1, [])],
)
def test_the_whole_grid_as_one_batch_is_the_same_grid(spelling, slots, scaled, monkeypatch):
    """As on an accelerator: all activations on their slices, bases and seeds side by side."""
    net = pp.Network(**SMALL, family=spelling)
    options = {
        "init": ["lecun_normal", "he_normal", "he_uniform", *scaled],
        "activation": ["tanh", "relu"],
        "devices": jax.local_devices()[:slots],
    }
    options |= {"key": KEY, "seeds": 3, "batch": 6, "measures": SOME}
    apart = pp.sweep(net, **options)
    planned = []
    monkeypatch.setattr(
        "propagate.run.sweep.grouping", lambda platform, block: planned.append(platform) or WHOLE
    )
    whole = pp.sweep(net, **options)
    assert planned == ["cpu"]
    for name in apart:
        zero = apart[name] < -12 if name.startswith("log10") else False  # rounding of a zero
        np.testing.assert_allclose(
            xr.where(zero, 0, whole[name]), xr.where(zero, 0, apart[name]), atol=2e-5, rtol=2e-5
        )


def test_data_goes_past_the_activation_in_one_batch_too(monkeypatch):
    x = np.random.default_rng(0).normal(size=(6, 5))
    options = {"init": INITS[:3], "activation": ["tanh", "sigmoid"], "inputs": x, "seeds": 1}
    options |= {
        "key": KEY,
        "loss": "mse",
        "labels": x[:, :2],
        "measures": ("forward_q", "backward_q"),
    }
    apart = pp.sweep(pp.Network(**SMALL), **options)
    monkeypatch.setattr("propagate.run.sweep.grouping", lambda platform, block: WHOLE)
    whole = pp.sweep(pp.Network(**SMALL), **options)
    for name in apart:
        np.testing.assert_allclose(whole[name], apart[name], atol=2e-5, rtol=2e-5)


def test_the_default_grid_on_a_gpu_is_two_loops():
    """Lowered for CUDA: one scan forward, one backward, no callback, whatever the grid."""
    net = pp.Network(depth=6, width=16)
    fn, numbers = whole_grid(net, ["he_normal", "he_uniform", "torch"], ["relu", "tanh", "gelu"])
    text = jax.export.export(fn, platforms=("cuda",))(numbers).mlir_module()
    assert text.count("stablehlo.while") == 2
    assert "callback" not in text


def test_targets_of_one_output_may_be_a_row_or_a_column():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 5)), rng.normal(size=16)
    options = {"key": KEY, "loss": "mse", "seeds": 1, "measures": ("backward_q",)}
    row, column = (
        pp.sweep(pp.Network(**SMALL), inputs=x, labels=labels, **options)
        for labels in (y, y[:, None])
    )
    assert row.equals(column)
    with pytest.raises(pp.UnusableInput, match="targets"):
        pp.sweep(pp.Network(**SMALL), inputs=x, labels=np.ones((16, 2, 3)), **options)


def test_classes_are_counted_over_the_whole_file(tmp_path):
    np.savez(tmp_path / "sorted.npz", x=np.eye(30), y=np.repeat([0, 1, 2], 10))
    data = load(str(tmp_path / "sorted.npz"), 8)
    assert set(data.labels) == {0}
    options = {"seeds": 1, "loss": "cross_entropy", "measures": ("backward_q",)}
    record = pp.measure(pp.Network(**SMALL), KEY, inputs=data, **options)
    assert json.loads(record.attrs["network"])["output_size"] == 3
    one = {"inputs": np.eye(4), "labels": np.zeros(4, int), "loss": "cross_entropy"}
    with pytest.raises(pp.UnusableInput, match="at least two classes"):
        pp.measure(pp.Network(**SMALL), KEY, **one)


def test_one_specification_alone_is_a_list_of_one():
    net = pp.Network(**SMALL)
    for spec in ("torch", (1.5, 0.1), jax.nn.initializers.he_normal()):
        record = pp.sweep(net, init=spec, activation="tanh", **FEW)
        assert dict(record.sizes) == {"init": 1, "activation": 1, "seed": 1, "layer": 5}


def test_functions_of_one_name_are_numbered():
    phis = [lambda h: h, lambda h: 2 * h]
    laws = [jax.nn.initializers.he_normal(), jax.nn.initializers.lecun_normal()]
    record = pp.sweep(pp.Network(**SMALL), init=laws, activation=phis, **FEW)
    assert list(record.activation.values) == ["<lambda>", "<lambda>_2"]
    assert len(set(record.init.values)) == 2


@pytest.mark.lenient
def test_functions_of_ones_own_may_change_the_dtype_and_be_gentle():
    net = pp.Network(6, 32, init="25*lecun_normal", activation=lambda h: h * np.float32(0.04))
    chosen = ("q", "variance", "correlation")
    found = pp.judge(pp.measure(net, KEY, seeds=3, measures=chosen))
    assert found[0].verdict is pp.Verdict.STABLE
    short = pp.Network(6, 32, activation=net.activation, dtype="bfloat16")
    assert np.isfinite(
        pp.measure(short, KEY, seeds=1, measures=("backward_q",)).log10_backward_q
    ).all()


def test_a_sampler_named_uniform_is_not_asked_for_biases():
    def uniform(key, shape, dtype):
        fan_in, _ = shape
        return jax.random.uniform(key, shape, dtype) / fan_in

    assert pp.measure(pp.Network(**SMALL, init=uniform), **FEW).sizes["layer"] == 5


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda net: pp.measure(net, KEY, init=["zeros"]), "use sweep"),
        (lambda net: pp.sweep(net, key=0), "key must be one random key"),
        (lambda net: pp.sweep(net, key=KEY, inputs=Batch(np.eye(2)), labels=[0, 1]), "own labels"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, message):
    with pytest.raises(pp.UnusableInput, match=message):
        run(pp.Network(**SMALL))


def test_short_floats_overflow_only_where_the_network_would():
    """h_1 = 0.001 · 784 · 180 = 141 lies within float16; the unscaled sum does not."""
    x = np.full((4, 784), 180, np.uint8)
    net = pp.Network(2, 8, init="constant_0.001", dtype="float16", activation="tanh")
    record = pp.measure(net, KEY, seeds=1, inputs=x, measures=("forward_max",))
    assert 10 ** record.log10_forward_max[0, 1] == pytest.approx(141.1, rel=2e-3)


def test_draws_on_a_cpu_are_compiled_with_less_optimisation_unless_flags_say_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    assert dispatch._for_draws("cpu") == {"xla_backend_optimization_level": 1}
    assert dispatch._for_draws("gpu") is None
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    assert dispatch._for_draws("cpu") is None
