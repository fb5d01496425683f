"""Gradients that are cut off, not finite or flushed are named with cause and remedy; twins pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import propagate as pp
from pytest_propagate import assert_healthy

K = jax.random.key
N = 16
X = jax.random.normal(K(2), (32, N))
WITH_ZERO = X.at[0].set(0.0)
WEIGHTS = [jax.random.normal(k, (N, N)) / N**0.5 for k in jax.random.split(K(5), 6)]


def diagnosed(model, params, x=X, **options):
    return pp.diagnose(model, params, x, key=K(0), **options)


def faults(found, verdict="untrained"):
    own = [f for f in found.findings.faults if f.verdict.value == verdict]
    return {name for f in own for name in (f.parameter, *f.also)}


# What is zero on purpose, and what is not.


def low_rank(dead, a="lora_a", b="lora_b"):
    def model(params, x):
        for p in params:
            x = jnp.tanh(x @ p["w"] + x @ p[a] @ p[b])
        return x

    params = [{"w": w, a: w[:, :4], b: jnp.zeros((4, N))} for w in WEIGHTS[:4]]
    for k in dead:
        params[k][a] = jnp.zeros((N, 4))
    return diagnosed(model, params)


@pytest.mark.parametrize("names", [("lora_a", "lora_b"), ("a", "b"), ("kernel", "bias")])
def test_zeros_that_close_each_other_are_told_from_those_that_learn(names):
    a, b = names
    found = low_rank([3], a, b)
    assert {f.parameter for f in found.findings} == {f"3.{a}", f"3.{b}"}
    reasons = {f.parameter: f.reason for f in found.findings}
    assert f"multiplies it by 3.{b}" in reasons[f"3.{a}"]
    assert low_rank([], a, b).findings == ()


def test_in_a_scan_the_turn_is_named():
    def model(p, x):
        def turn(x, p):
            return jnp.tanh(x @ p["w"] + x @ p["a"] @ p["b"]), None

        return jax.lax.scan(turn, x, p)[0]

    a = jnp.stack([w[:, :4] for w in WEIGHTS])
    params = {"w": jnp.stack(WEIGHTS), "a": a, "b": jnp.zeros((6, 4, N))}
    assert diagnosed(model, params).findings == ()
    assert faults(diagnosed(model, params | {"a": a.at[3].set(0.0)})) == {"a[3]", "b[3]"}


def adaptive(gate):
    """A residual block whose branch is scaled by what a layer of zeros makes of the input."""

    def model(ps, x):
        for p in ps:
            h = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x + gate(jnp.tanh(x) @ p["m"] + p["mb"][None]) * (jnp.tanh(h @ p["w"]) @ p["v"])
        return x

    zeros = {"m": jnp.zeros((N, N)), "mb": jnp.zeros(N)}
    return diagnosed(model, [{"w": w, "v": w.T, **zeros} for w in WEIGHTS[:1]])


def test_what_a_layer_of_zeros_scales_is_meant_unless_that_layer_is_cut_off():
    assert adaptive(lambda g: g).findings == ()
    assert adaptive(jnp.tanh).findings == ()
    stopped = adaptive(jax.lax.stop_gradient)
    assert {"0.w", "0.v", "0.m", "0.mb"} <= faults(stopped)
    assert {"0.w", "0.v"} <= faults(adaptive(jnp.square))  # whose slope at 0 is 0


def before_zeros(scale, gain):
    """Two residual branches with a scale of zero each, and a readout of zeros."""

    def model(p, x):
        for layer in p["layers"]:
            x = x + layer["z"] * jnp.tanh(x @ (gain * layer["w"]))
        return (scale * x) @ p["out"]

    layers = [{"w": w, "z": jnp.zeros(())} for w in WEIGHTS[:2]]
    return faults(diagnosed(model, {"layers": layers, "out": jnp.zeros((N, 2))}))


def test_zeros_may_wait_for_others_that_learn():
    """The readout moves at the first step, then the scales, then the branches."""
    assert before_zeros(1.0, 1.0) == set()
    branches = {f"layers.{k}.{name}" for k in range(2) for name in "wz"}
    assert before_zeros(1.0, 0.0) == branches  # tanh(0) = 0: the scales will not
    assert before_zeros(0.0, 1.0) == branches | {"out"}  # without features the readout will not


# Which operation cuts the gradient off.


def planted(f, at=2):
    def model(params, x):
        for k, w in enumerate(params):
            x = jnp.tanh(x @ w)
            x = f(x) if k == at else x
        return x

    return diagnosed(model, WEIGHTS[:4])


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (jnp.round, "round"),
        (jnp.sign, "sign"),
        (jax.lax.stop_gradient, "stop_gradient"),
        (lambda x: jax.nn.one_hot(x.argmax(-1), N), "argmax"),
        (lambda x: (x > 0).astype(x.dtype), "gt"),
        (lambda x: x * 0.0 + 1, "mul"),
        (lambda x: jnp.where(x > 2, x, 1.0), "select_n"),
        (lambda x: 1 + jax.nn.softmax(x[..., None], -1)[..., 0], "single element"),
        (lambda x: 1 + x - x.reshape(-1, N, 1).mean(-1), "single element"),
    ],
)
def test_the_operation_that_cuts_a_gradient_off_is_named(f, words):
    found = planted(f)
    assert faults(found) == {"0", "1", "2"} and "so at 1 and 2" in str(found)
    assert all(words in x.reason for x in found.findings if x.verdict.value == "untrained")
    assert "test_cases_gradients.py" in str(found) or words in ("round", "select_n")


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x),
        lambda x: jnp.where(x > 0, x, 0.1 * x),
        lambda x: x - x.mean(-1, keepdims=True) + jax.lax.stop_gradient(x),
        lambda x: x + jax.nn.one_hot(x.argmax(-1), N),
    ],
)
def test_a_gradient_that_goes_around_the_operation_is_no_finding(f):
    assert not faults(planted(f))


def test_a_parameter_that_is_not_used_and_one_that_is_not_chosen():
    unused = diagnosed(lambda p, x: jnp.tanh(x @ p["a"]), dict(zip("ab", WEIGHTS, strict=False)))
    assert faults(unused) == {"b"} and "no result is computed from it" in str(unused)

    def experts(p, x):
        gates = jax.nn.one_hot((x[:, 0] > 1e9).astype(jnp.int32), 2)
        return sum(gates[:, k : k + 1] * jnp.tanh(x @ p[k]) for k in range(2))

    def branches(p, x):
        return jax.lax.cond(x[0, 0] > 1e9, *(lambda x, w=w: jnp.tanh(x @ w) for w in p), x)

    for model, name in ((experts, "1"), (branches, "0")):  # it depends on the data: a note
        found = diagnosed(model, WEIGHTS[:2])
        assert not found.findings.faults
        assert [f.parameter for f in found.findings.notes] == [name]


# Gradients that are not finite behind values that are.


def bent(f, x=WITH_ZERO):
    return diagnosed(lambda p, x: f(jnp.tanh(x @ p[0])) @ p[1], WEIGHTS[:2], x)


def test_distances_of_points_to_themselves():
    def model(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return jnp.linalg.norm(x[:, None] - x[None], axis=-1)

    (finding,) = diagnosed(model, WEIGHTS[:2], X).findings
    assert (finding.verdict.value, finding.direction) == ("non-finite", "backward")
    assert "sqrt" in finding.reason and "operand is 0," in finding.reason
    assert "sqrt(x + 1e-12)" in finding.reason


@pytest.mark.parametrize(
    ("f", "operation", "operand", "masked"),
    [
        (lambda h: jnp.sqrt(jnp.abs(h)), "sqrt", 0, False),
        (lambda h: jnp.abs(h) ** 0.5, "pow", 0, False),
        (lambda h: (h**2) ** 0.7, "pow", 0, False),
        (lambda h: jnp.arccos(1 - h**2), "acos", 1, False),
        (lambda h: jnp.where(h > 0, jnp.log(h), 0.0), "log", 0, True),
        (lambda h: jnp.where(h != 0, jnp.sin(h) / h, 1.0), "div", 0, True),
    ],
)
def test_the_first_operation_without_a_finite_derivative_is_named(f, operation, operand, masked):
    found = bent(f)
    finding = next(iter(found.findings.faults))
    assert finding.verdict.value == "non-finite"
    assert f"the derivative of {operation} at test_cases_gradients.py" in finding.reason
    assert f"operand is {operand}," in finding.reason
    assert ("second where" in finding.reason) is masked
    table = Console(record=True, width=160)
    with table.capture() as text:
        table.print(found.table())
    assert "NaN" in text.get() or "∞" in text.get()


def sinc(h):
    fine = jnp.where(h != 0, h, 1.0)
    return jnp.where(h != 0, jnp.sin(fine) / fine, 1.0)


@pytest.mark.parametrize(
    "f",
    [
        lambda h: jnp.sqrt(jnp.abs(h) + 1e-3),
        sinc,
        lambda h: jax.nn.softmax(jnp.where(h > 0.5, -jnp.inf, h)),
    ],
)
def test_twins_with_a_finite_derivative_get_no_finding(f):
    assert bent(f).findings == ()


def test_a_value_that_is_not_finite_names_its_operation():
    (finding,) = bent(jnp.log).findings.faults[:1]
    assert finding.verdict.value == "overflowed" and finding.direction == "forward"
    assert "log at test_cases_gradients.py" in finding.reason


# Dtypes of few exponents.


def in_float16(scale, dtype=jnp.float16):
    def model(params, x):
        x = x.astype(dtype)
        for w in params:
            x = jax.nn.relu(x @ (2**0.5 * w).astype(dtype))
        return x

    def loss(out, _):
        return scale * jnp.mean(out.astype(jnp.float32) ** 2)

    return diagnosed(model, WEIGHTS[:3], loss=loss)


@pytest.mark.parametrize(("scale", "share"), [(1e-7, 1.0), (3e-5, 0.1)])
def test_a_gradient_below_float16_asks_for_a_scale_of_the_loss_that_mends_it(scale, share):
    found = in_float16(scale)
    (finding,) = found.findings.faults
    assert finding.verdict.value == "underflowed" and finding.direction == "backward"
    assert "float16" in finding.reason and "path" not in finding.reason
    assert float(found.record.gradient_flushed_fraction.max()) >= share
    k = int(finding.reason.partition("about 2^")[2].partition(" ")[0])
    assert in_float16(scale * 2.0**k).findings == ()
    assert in_float16(scale, jnp.bfloat16).findings == ()


def test_shares_that_are_flushed_are_those_of_the_gradient_in_float32():
    """Of a linear model, whose gradient is known: that of the outputs, 2 s x w / size."""
    scale = 3e-5
    found = diagnosed(
        lambda w, x: x.astype(jnp.float16) @ w.astype(jnp.float16),
        WEIGHTS[0],
        loss=lambda out, _: scale * jnp.sum(out.astype(jnp.float32) ** 2),
    )
    out = X.astype(jnp.float16) @ WEIGHTS[0].astype(jnp.float16)
    exact = 2 * scale * np.asarray(out, np.float64)
    tiny = float(jnp.finfo(jnp.float16).tiny)
    flushed, small = np.abs(exact) <= 2.0**-25, np.abs(exact) < tiny
    record = found.record
    assert abs(float(record.backward_flushed_fraction[0]) - flushed.mean()) < 0.01
    assert abs(float(record.backward_subnormal_fraction[0]) - (small & ~flushed).mean()) < 0.01


def test_a_gradient_beyond_float16_asks_for_a_smaller_loss():
    (finding,) = in_float16(1e9).findings.faults[:1]
    assert finding.verdict.value == "overflowed" and finding.direction == "backward"
    k = int(finding.reason.partition("about 2^")[2].partition(" ")[0])
    assert k < 0
    assert not [f for f in in_float16(1e9 * 2.0**k).findings.faults if f.direction == "backward"]


def test_a_signal_below_float16_names_the_operation():
    def model(params, x):
        x = x.astype(jnp.float16)
        for k, w in enumerate(params):
            x = x @ w.astype(jnp.float16)
            x = x * jnp.asarray(5e-8, jnp.float16) if k == 1 else x
        return x

    finding = next(iter(diagnosed(model, WEIGHTS[:4]).findings.faults))
    assert (finding.verdict.value, finding.direction) == ("underflowed", "forward")
    assert "mul at test_cases_gradients.py" in finding.reason


# Nothing seen is not healthy.


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda p, x: (x @ p).argmax(-1), "the output is an integer and has no gradient"),
        (lambda p, x: x @ p > 0, "the output is a truth value and has no gradient"),
        (lambda p, x: [x @ p, None][1], "returned None: return its output"),
        (lambda p, x: jax.lax.stop_gradient(x @ p), "cut off: stop_gradient at test_cases"),
        (lambda p, x: jax.lax.stop_gradient(jnp.tanh(x) @ p), "gradient must flow"),
    ],
)
def test_an_output_without_a_gradient_is_an_error(model, words):
    with pytest.raises(pp.PropagateError, match=words):
        diagnosed(model, WEIGHTS[0])
    with pytest.raises(pp.PropagateError, match=words):
        assert_healthy(model, WEIGHTS[0], X)


def test_one_of_several_outputs_with_a_gradient_is_enough():
    found = diagnosed(lambda p, x: ((h := jnp.tanh(x @ p)), h.argmax(-1), None), WEIGHTS[0])
    assert found.findings == ()


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda out, _: (out > 0).sum(), "the loss is an integer"),
        (lambda out, _: out, "the loss must be a scalar"),
        (lambda out, _: jax.lax.stop_gradient(out.sum()), "gradient must flow"),
    ],
)
def test_a_loss_without_a_gradient_is_an_error(loss, words):
    with pytest.raises(pp.PropagateError, match=words):
        diagnosed(lambda p, x: x @ p, WEIGHTS[0], loss=loss)


@pytest.mark.parametrize(("value", "word"), [(jnp.nan, "NaN"), (jnp.inf, "infinite")])
def test_data_that_are_not_finite_are_an_error(value, word):
    model = lambda p, x: jnp.tanh(x @ p)  # noqa: E731
    with pytest.raises(
        pp.UnusableInput, match=rf"1 of 512 values .* {word}, the first at \(3, 0\)"
    ):
        diagnosed(model, WEIGHTS[0], X.at[3, 0].set(value))
    with pytest.raises(pp.UnusableInput, match="labels must be finite"):
        loss = lambda out, y: jnp.mean((out - y) ** 2)  # noqa: E731
        diagnosed(model, WEIGHTS[0], loss=loss, labels=X.at[3, 0].set(value))
    mask = jnp.where(jnp.tri(32) > 0, 0.0, -jnp.inf)
    masked = lambda p, x, m: jax.nn.softmax(x @ p @ x.T + m) @ x  # noqa: E731
    assert np.isfinite(
        pp.diagnose(masked, WEIGHTS[0], X, mask, key=K(0)).record.log10_backward_q[0]
    )


@pytest.mark.parametrize(
    ("model", "params", "x"),
    [
        (lambda p, x: x * 1e-30, [], jax.ShapeDtypeStruct((8, N), "float32")),
        (
            lambda p, x: jax.lax.while_loop(lambda x: x.sum() > 1e9, lambda x: x @ p, x),
            WEIGHTS[0],
            X,
        ),
    ],
)
def test_a_model_of_which_nothing_was_seen_does_not_pass(model, params, x):
    with pytest.raises(pp.PropagateError):
        assert_healthy(model, params, x)


def test_a_record_that_is_all_nan_is_an_error():
    found = diagnosed(lambda p, x: jnp.tanh(x @ p), WEIGHTS[0])
    blank = found.record.map(lambda v: v * np.nan if v.dtype.kind == "f" else v)
    with pytest.raises(pp.UnusableInput, match="something was measured"):
        pp.judge(blank)


def test_a_model_that_prints_is_traced(capfd):
    def model(p, x):
        h = jnp.tanh(x @ p)
        jax.debug.print("rms {}", jnp.sqrt((h**2).mean()))
        return h

    assert diagnosed(model, WEIGHTS[0]).findings == ()
