"""A coordinate check against updates made by hand, and the powers of width that theory has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import propagate as pp
from propagate.training import optimizers
from propagate.training.coordinate_check import coordinate_check
from propagate.types import UnusableInput
from propagate.verdicts.width_rules import exponents, power

KEY = jax.random.key(0)
WIDTHS = (64, 128, 256)


def mlp(readout, *, inputs=16, rows=32, outputs=4):
    """Two hidden ReLU layers with He weights; the readout has std width^-readout."""

    def build(width, key):
        normal, keys = jax.random.normal, jax.random.split(key, 4)
        params = {
            "first": normal(keys[0], (inputs, width)) / inputs**0.5,
            "second": normal(keys[1], (width, width)) * (2 / width) ** 0.5,
            "third": normal(keys[2], (width, outputs)) / width**readout,
        }
        x = normal(keys[3], (rows, inputs))

        def loss(p, batch):
            h = jax.nn.relu(batch[0] @ p["first"])
            return jnp.mean((jax.nn.relu(h @ p["second"]) @ p["third"] - batch[1]) ** 2)

        return loss, params, (x, jnp.sin(x[:, :outputs]))

    return build


def exponent(found, name, quantity, step=1):
    (one,) = (e for e in found.exponents if (e.name, e.quantity, e.step) == (name, quantity, step))
    return one


@pytest.fixture(scope="module")
def standard():
    options = {"widths": WIDTHS, "steps": 1, "parametrisation": "standard"}
    return coordinate_check(mlp(0.5), key=KEY, learning_rate=1e-3, **options)


@pytest.fixture(scope="module")
def lazy():
    """Standard initial values, SGD at a rate of 1/width: the kernel regime."""
    return coordinate_check(
        mlp(0.5, outputs=16),
        key=KEY,
        widths=WIDTHS,
        steps=1,
        optimizer="sgd",
        parametrisation="standard",
        scale=lambda path, shape, width: 64 / width,
    )


def test_mup_passes():
    found = coordinate_check(mlp(1.0), key=KEY, widths=WIDTHS, steps=2, learning_rate=1e-3)
    assert found.passed is True
    assert "passed, 0 of 15 exponents" in str(found)
    assert exponent(found, "third", "size", 0).outcome == "allowed"  # width^-1/2
    for name, p in {"first": 0, "second": -1, "third": -1}.items():  # Table 3, for Adam
        assert exponent(found, name, "update", 0).value == pytest.approx(p, abs=0.02)


def test_standard_parametrisation_with_adam_grows(standard):
    """An update is ±η at every weight, and it adds up over the inputs of a layer.

    Of a hidden layer these are n: width^1. The change of the output is that of its own weights,
    width^1, and, through weights of width^-1/2 whose signs made the change of the n hidden units,
    width^3/2 in the limit. Standard errors are 0.06 and 0.09: four of them, and no 1/2.
    """
    assert standard.passed is False
    assert exponent(standard, "first", "change").outcome == "steady"
    second, third = (exponent(standard, name, "change") for name in ("second", "third"))
    assert second.outcome == third.outcome == "grows"
    assert min(second.low, third.low) > 0.5
    assert second.value == pytest.approx(1, abs=0.25)
    assert 1 - 0.36 < third.value < 1.5 + 0.36
    assert exponent(standard, "third", "size", 0).outcome in ("steady", "inconclusive")
    assert str(standard).splitlines()[1].startswith("third, change after 1 update: grows (width^(")


def test_the_kernel_regime_is_stable_but_learns_no_features(lazy):
    """Yang and Hu (2021): changes go as width^-3/2, width^-1/2 and width^0; 4 standard errors."""
    expected = {"first": -1.5, "second": -0.5, "third": 0.0}
    for name, p in expected.items():
        assert exponent(lazy, name, "change").value == pytest.approx(p, abs=0.4)
    assert lazy.passed is not False
    assert exponent(lazy, "second", "change").outcome == "allowed"
    judged = exponents(lazy.record, "mup")
    assert judged.passed is False
    assert {e.name for e in judged if e.outcome == "shrinks"} >= {"first", "second"}


def scanned(width, key):
    normal, keys = jax.random.normal, jax.random.split(key, 3)
    params = {
        "layers": normal(keys[0], (3, width, width)) / width**0.5,
        "out": normal(keys[1], (width, 2)),
    }

    def loss(p, x):
        x, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["layers"])
        return jnp.mean((x @ p["out"]) ** 2)

    return loss, params, normal(keys[2], (4, width))


def test_changes_are_those_of_updates_made_by_hand():
    rate, widths = 0.3, (4, 6)
    options = {"widths": widths, "steps": 2, "seeds": 1, "learning_rate": rate}
    pair = optimizers.pair("sgd")  # as one of Optax's would be passed
    made = coordinate_check(scanned, key=KEY, optimizer=pair, parametrisation=None, **options)
    assert made.passed is None and "nothing judged" in str(made)
    record = made.record.isel(seed=0)
    rms = lambda name: 10 ** (record[name] / 2)  # noqa: E731

    @jax.jit
    def signals(p, x):
        found = []
        for w in p["layers"]:
            found += [x @ w, jnp.tanh(x @ w)]
            x = found[-1]
        return [*found, x @ p["out"]]

    for width in widths:
        loss, start, x = scanned(width, jax.random.fold_in(KEY, 0))
        params, slopes = start, jax.jit(jax.grad(loss))
        for step in range(3):
            own = record.sel(width=width, step=step)
            pairs = list(zip(signals(start, x), signals(params, x), strict=True))
            changes = [float(jnp.sqrt(jnp.mean((b - a) ** 2))) for a, b in pairs]
            measured = rms("log10_change_q").sel(width=width, step=step).values[: len(pairs)]
            np.testing.assert_allclose(measured, changes, rtol=1e-3, atol=0)
            grads = slopes(params, x)
            updates = jax.tree.map(lambda g: -rate * g, grads)
            expected = [*updates["layers"], updates["out"]]
            log_q = [2 * float(jnp.log10(jnp.linalg.norm(u) / u.size**0.5)) for u in expected]
            np.testing.assert_allclose(own["log10_update_q"].values, log_q, rtol=1e-4)
            params = jax.tree.map(jnp.add, params, updates)


def test_adam_is_that_of_its_paper():
    grads = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    m = v = 0.0
    pair = optimizers.pair("adam")
    state = pair.init(jnp.zeros(3))
    for t, g in enumerate(grads, 1):
        update, state = pair.update(jnp.asarray(g), state, jnp.zeros(3))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        expected = -(m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(update, expected, rtol=1e-4)


def turned(width, key):
    """Weights that act from the left, with biases, as Equinox's."""
    normal, keys = jax.random.normal, jax.random.split(key, 4)
    shapes = {"a": (width, 3), "b": (width, width), "c": (2, width)}
    params = {k: normal(q, s) for (k, s), q in zip(shapes.items(), keys, strict=False)}
    params |= {"bias": jnp.ones(width), "last": jnp.ones(2)}

    def loss(p, x):
        one = lambda x: p["c"] @ jnp.tanh(p["b"] @ jnp.tanh(p["a"] @ x + p["bias"])) + p["last"]  # noqa: E731
        return jnp.mean(jax.vmap(one)(x) ** 2)

    return loss, params, normal(keys[3], (4, 3))


@pytest.mark.parametrize(
    ("name", "powers"),
    [
        ("adam", {"a": 0, "b": -1, "c": -1, "bias": 0, "last": 0}),
        ("sgd", {"a": 1, "b": 0, "c": -1, "bias": 1, "last": 0}),
    ],
)
def test_rates_of_mup_do_not_depend_on_the_layout_of_weights(name, powers):
    """The first update is the rate times the sign of the gradient, or times the gradient."""
    options = {"widths": (4, 8), "steps": 1, "seeds": 1, "learning_rate": 0.01}
    record = coordinate_check(turned, key=KEY, optimizer=name, **options).record
    first = record.isel(seed=0, step=0)
    log_q = first.log10_update_q - (first.log10_gradient_q if name == "sgd" else 0)
    rates = 10 ** (log_q.transpose("weight", "width").values / 2)
    np.testing.assert_allclose(rates[:, 0], 0.01, rtol=2e-3)
    found = np.log2(rates[:, 1] / rates[:, 0])
    assert dict(zip(record["weight"].values, found, strict=True)) == pytest.approx(powers, abs=0.01)


def test_a_run_that_diverges_fails():
    options = {"widths": (4, 6), "steps": 2, "seeds": 2, "learning_rate": 1e30}
    found = coordinate_check(
        scanned_linear, key=KEY, optimizer="sgd", parametrisation="standard", **options
    )
    assert found.passed is False
    assert "not finite" in {e.outcome for e in found.exponents}


def scanned_linear(width, key):
    w = jax.random.normal(key, (width, width))
    return (lambda p, x: jnp.mean((x @ p["w"]) ** 4)), {"w": w}, jnp.ones((3, width))


def test_for_a_pair_like_optaxs_the_rates_of_mup_must_be_given():
    with pytest.raises(UnusableInput, match="pass scale"):
        coordinate_check(scanned, key=KEY, widths=(4, 6), optimizer=optimizers.pair("sgd"))


def test_a_power_is_that_of_a_regression():
    widths = np.array([32, 64, 128, 256])
    y = np.random.default_rng(0).normal(size=(4, 1))
    line = stats.linregress(np.log10(widths), y[:, 0])
    half = stats.t.ppf(0.975, 2) * line.stderr
    expected = line.slope, line.slope - half, line.slope + half
    assert power(widths, y) == pytest.approx(expected)


def test_intervals_hold_the_power_as_often_as_they_say():
    """95 % of 2000 intervals; outside 0.95 ± 0.02 with probability 4e-5 (4.1 sd)."""
    rng, widths = np.random.default_rng(0), np.array([32, 64, 128, 256])
    held = 0
    for _ in range(2000):
        levels, noise = rng.normal(size=(1, 4)), 0.1 * rng.normal(size=(4, 4))
        _, low, high = power(widths, 0.5 * np.log10(widths)[:, None] + levels + noise)
        held += low < 0.5 < high
    assert abs(held / 2000 - 0.95) < 0.02


def test_the_picture_has_a_panel_for_each_step_and_a_line_for_each_layer(standard):
    figure = standard.plot()
    first, second, *_ = figure.axes
    assert (first.get_title(), second.get_title()) == ("initialisation", "change, 1 update")
    names = ["first", "first/relu", "second", "second/relu", "third"]
    for ax in (first, second):
        assert [line.get_label() for line in ax.lines] == names
    shown = standard.record.log10_change_q.sel(step=1).mean("seed").values[:, 0] / 2
    np.testing.assert_allclose(second.lines[0].get_ydata(), shown)
    with pytest.raises(UnusableInput, match="coordinate_check"):
        pp.plot.coordinate_check(standard.record.isel(width=[0]))


def test_a_record_can_be_kept(standard, tmp_path):
    again = pp.load(pp.save(standard.record, tmp_path / "r.nc"))
    assert exponents(again, "standard") == standard.exponents


def alike(width, key):
    return scanned(8, key)


def renamed(width, key):
    loss, params, x = scanned(width, key)
    extra = {f"of_{width}": jnp.ones(2)}
    return (lambda p, x: loss({k: p[k] for k in params}, x)), params | extra, x


@pytest.mark.parametrize(
    ("build", "options", "match"),
    [
        (scanned, {"widths": (8,)}, "two or more"),
        (scanned, {"widths": (16, 8)}, "increasing"),
        (scanned, {"widths": (8, 8.5)}, "whole number"),
        (scanned, {"steps": 0}, "steps"),
        (scanned, {"seeds": 0}, "seeds"),
        (scanned, {"learning_rate": float("nan")}, "learning_rate"),
        (scanned, {"parametrisation": "ntk"}, "standard, mup"),
        (scanned, {"optimizer": "lion"}, "sgd, momentum, adam"),
        (scanned, {"optimizer": 3}, "init and update"),
        (scanned, {"only": "nowhere*"}, "matches no site"),
        (alike, {}, "widen the model"),
        (renamed, {}, "one architecture"),
        (lambda width, key: 3, {}, "must return"),
        (
            lambda width, key: (lambda p, x: x, {"w": jnp.ones(width)}, jnp.ones(3)),
            {},
            "one number",
        ),
        (lambda width, key: (lambda p, x: 1.0, {"w": 3}, jnp.ones(3)), {}, "floating-point"),
    ],
)
def test_bad_input_is_told(build, options, match):
    with pytest.raises(UnusableInput, match=match):
        coordinate_check(build, key=KEY, **{"widths": (8, 16)} | options)
