"""Training against independent loops, closed forms and least squares; outcomes and refusals."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

import propagate as pp
from propagate.training import optimizers
from propagate.training.folds import Split

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
CLASSES = pp.Batch(X, labels=(X[:, 0] + X[:, 1] > 0).astype(np.int64))
NET = pp.Network(depth=3, width=8, activation="tanh")
SMALL = {"data": CLASSES, "key": KEY, "seeds": 2, "epochs": 3, "batch": 8, "measures": "forward_q"}


def linear(rows: int, noise: float) -> pp.Batch:
    x = RNG.normal(size=(rows, 6)).astype(np.float32)
    return pp.Batch(x, x @ RNG.normal(size=6) + noise * RNG.normal(size=rows))


def by_hand(params: list, pair, rows: np.ndarray, steps: int, decay: float) -> list[float]:
    """Descend the loss of whole batches, written anew; return the losses before each step."""

    def loss(params):
        h = jnp.asarray(X[rows])
        for k, (w, b) in enumerate(params):
            h = (jnp.tanh(h) if k else h) @ w + b[None]
        labels = jnp.asarray(CLASSES.labels[rows])
        return optax.softmax_cross_entropy_with_integer_labels(h, labels).mean()

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        grads = [(dw + decay * w, db) for (dw, db), (w, _) in zip(grads, params, strict=True)]
        updates, state = pair.update(grads, state, params)
        return value, optax.apply_updates(params, updates), state

    state, found = pair.init(params), []
    for _ in range(steps):
        value, params, state = step(params, state)
        found.append(float(value))
    return found


def drawn(net: pp.Network) -> list:
    """The weights that `measure` draws with the same key, read off unit vectors; biases are 0."""
    _, layers = pp.jacobian.layers_of(replace(net, activation="identity"), KEY, batch=1)
    rows = [
        [layer(row[None]) for row in np.eye(fan_in, dtype=np.float32)]
        for layer, (fan_in, _) in zip(layers, net.shapes, strict=True)
    ]
    return [(jnp.concatenate(one), jnp.zeros(one[0].shape[1])) for one in rows]


def trained_rows(data: pp.Batch, folds: int | None = None) -> list[np.ndarray]:
    generator = np.random.default_rng(np.asarray(jax.random.key_data(KEY)).ravel())
    return [np.flatnonzero(~mask) for mask in Split(folds).masks(data, generator)]


def test_whole_batches_descend_as_a_loop_with_optax_does():
    """With momentum and L2. Weights are those of a sweep with the same key."""
    options = {"optimizer": "momentum", "learning_rate": 0.05, "weight_decay": 0.1}
    whole = SMALL | {"batch": 32, "epochs": 5, "seeds": 1}
    found = pp.train(NET, init="he_normal", **whole, **options).record
    params = drawn(pp.Network(3, 8, activation="tanh", input_size=6, output_size=2))
    (rows,) = trained_rows(CLASSES)
    expected = by_hand(params, optax.sgd(0.05, momentum=0.9), rows, 5, decay=0.1)
    assert_allclose(found.train_loss.squeeze()[1:], expected, rtol=2e-5)


@pytest.mark.lenient
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_optimisers_are_optaxs(name):
    theirs = {"momentum": optax.sgd(1.0, momentum=0.9), "adam": optax.adam(1.0)}[name]
    ours, params = optimizers.OPTIMIZERS[name], {"w": jnp.ones(3)}
    states = [one.init(params) for one in (ours, theirs)]
    for scale in (1.0, -2.0, 0.5):
        grads = {"w": scale * jnp.arange(1.0, 4.0)}
        pairs = [
            one.update(grads, s, params) for one, s in zip((ours, theirs), states, strict=True)
        ]
        states = [state for _, state in pairs]
        assert_allclose(pairs[0][0]["w"], pairs[1][0]["w"], rtol=1e-5)


def flat(h):
    return 0 * h


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weights_without_a_gradient_decay_by_the_closed_form(optimizer):
    """Behind an activation that is 0 weights have no gradient: each update leaves 1 - rate λ."""
    options = {"optimizer": optimizer, "learning_rate": 0.1, "weight_decay": 0.5}
    found = pp.train(NET, activation=flat, init="he_normal", **SMALL, **options).record
    q = found.log10_weight_q.squeeze().isel(layer=slice(1, None))
    per_epoch = 2 * 4 * np.log10(1 - 0.1 * 0.5)
    assert_allclose(np.diff(q, axis=0)[1:], np.full((2, 2, 3), per_epoch), atol=1e-5)


LINEAR = pp.Network(depth=1, width=6, activation="identity", init="lecun_normal")
OF_LINEAR = {"key": KEY, "loss": "mse", "measures": "forward_q"}


def test_l2_and_dropout_leave_smaller_weights_and_a_larger_training_loss():
    """Dropout of a linear map's inputs is a penalty on its weights: Wager et al. (2013)."""
    options = OF_LINEAR | {"data": linear(40, 1.0), "batch": 32, "epochs": 300, "seeds": 2}
    options |= {"learning_rate": 0.05}
    plain = pp.train(LINEAR, **options).record.isel(step=-1)
    for change in ({"weight_decay": 0.5}, {"dropout": 0.4}):
        other = pp.train(LINEAR, **change, **options).record.isel(step=-1)
        assert (other.log10_weight_q < plain.log10_weight_q - 0.05).sel(layer=1).all()
        assert (other.train_loss > plain.train_loss).all()


def test_dropout_adds_the_penalty_that_theory_says():
    """E loss = loss + p/(1 - p) mean_i sum_j w_j² x_ij², at weights that do not move.

    1000 steps; 6 standard errors of the mean, which fails by chance in 2e-9 of all cases.
    """
    data = linear(40, 0.0)
    options = OF_LINEAR | {"data": data, "batch": 32, "epochs": 1000, "seeds": 2}
    plain = pp.train(LINEAR, learning_rate=1e-12, **options).record.train_loss
    noisy = pp.train(LINEAR, learning_rate=1e-12, dropout=0.4, **options).record.train_loss
    added = (noisy - plain).squeeze().sel(seed=0).values[1:]
    ((w, _),) = drawn(replace(LINEAR, input_size=6, output_size=1))
    (rows,) = trained_rows(data)
    expected = 0.4 / 0.6 * np.mean((data.inputs[rows] ** 2) @ np.asarray(w**2))
    error = added.std(ddof=1) / np.sqrt(len(added))
    assert abs(added.mean() - expected) < 6 * error
    assert error < 0.1 * expected


def test_folds_end_where_least_squares_does():
    """And more folds, which leave more rows to train on, are off by less on those held out."""
    data, errors = linear(24, 1.0), {}
    for folds in (2, 8):
        batch = 24 - 24 // folds
        options = OF_LINEAR | {"data": data, "folds": folds, "batch": batch, "seeds": 1}
        options |= {"optimizer": "momentum", "learning_rate": 0.05}
        found = pp.train(LINEAR, epochs=400, **options).record
        last = found.isel(step=-1).squeeze()
        assert_allclose(last.test_loss, least_squares(data, folds), rtol=2e-3)
        assert (last.test_r2 < 1).all()
        errors[folds] = float(last.test_loss.mean())
    assert errors[8] < errors[2]


def least_squares(data: pp.Batch, folds: int) -> list[float]:
    x, found = np.c_[data.inputs, np.ones(24)], []
    for rows in trained_rows(data, folds):
        w, *_ = np.linalg.lstsq(x[rows], data.labels[rows], rcond=None)
        others = np.setdiff1d(np.arange(24), rows)
        found.append(float(np.mean((x[others] @ w - data.labels[others]) ** 2)))
    return found


def test_a_run_is_the_same_alone_and_in_a_grid():
    rates = {"learning_rate": (0.01, 0.1)}
    grid = pp.train(NET, init=["he_normal", "zeros", "orthogonal"], **SMALL, **rates).record
    alone = pp.train(NET, init="orthogonal", learning_rate=0.1, **SMALL).record
    own = grid.sel(init=["orthogonal"], learning_rate=0.1)
    assert_allclose(own.test_loss, alone.test_loss, rtol=1e-5)
    assert set(grid.dims) == {"init", "activation", "learning_rate", "step", "seed", "layer"}


def test_the_statistics_are_those_of_a_sweep():
    """Of one row, repeated, so that any batch of the data is the same."""
    same = pp.Batch(np.tile(X[:1], (40, 1)), labels=np.zeros(40, int), classes=2)
    options = {"measures": ("q", "mean", "weight_gradient_q"), "init": ["he_normal"]}
    trained = pp.train(NET, **(SMALL | {"data": same, "epochs": 1, "learning_rate": 0.1} | options))
    inputs, loss = pp.Batch(same.inputs[:8], same.labels[:8], classes=2), "cross_entropy"
    swept = pp.sweep(NET, key=KEY, seeds=2, inputs=inputs, loss=loss, **options)
    start = trained.record.isel(step=0)
    for name in swept.data_vars:
        assert_allclose(start[name].values, swept[name].values, rtol=1e-4, atol=1e-4)
    assert [f.verdict for f in trained.findings] == [f.verdict for f in pp.judge(swept)]


def test_a_loss_that_is_no_number_is_an_outcome():
    options = SMALL | {"init": ["he_normal", "zeros"], "activation": "relu"}
    found = pp.train(NET, learning_rate=1e30, **options)
    he, zeros = sorted(found.outcomes(), key=lambda one: one.init)
    assert he.diverged == he.runs == 2 and he.score == 0
    assert np.isinf(found.record.test_loss.sel(init="he_normal")[..., -1, :]).all()
    assert "2 of 2" in str(found)
    mild = pp.train(NET, learning_rate=0.1, **options).outcomes()
    assert [one.diverged for one in mild] == [0, 0]
    assert zeros.init == "zeros"


def test_what_trains_ranks_first_and_says_when():
    found = pp.train(NET, init=["zeros", "he_normal"], **(SMALL | {"epochs": 30}))
    best, worst = found.outcomes(target=0.8)
    assert (best.init, worst.init) == ("he_normal", "zeros")
    assert best.score > 0.7 and best.epochs < 30 and best.reached == best.runs == 2
    assert np.isinf(worst.epochs) and worst.reached == 0
    assert best.learning_rate == 0.1  # of the three by default, that of the lowest training loss
    text = str(found)
    assert text.index("he_normal") < text.index("zeros") and "never" in text
    (ax,) = found.plot().axes
    drawn = {line.get_label(): line.get_ydata()[-1] for line in ax.get_lines()}
    assert drawn["he_normal"] == pytest.approx(best.score)


def test_an_interruption_keeps_what_was_reached():
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(pp.Interrupted, match="after 2 of 4") as stopped:
        pp.train(NET, init="he_normal", **SMALL, learning_rate=0.1, progress=stop)
    reached = stopped.value.record.test_loss.squeeze().notnull().all("seed")
    assert reached.values.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "folds must be a whole number of at least 2, got 1"),
        ({"folds": 41}, "folds must be at most 40, got 41"),
        ({"folds": 4, "held_out": 0.5}, "leave held_out away"),
        ({"held_out": 1.0}, r"held_out must be a share in \(0, 1\), got 1"),
        ({"held_out": 0.001}, "held_out must leave rows on both sides"),
        ({"batch": 33}, "batch, out of the rows to train on, must be at most 32"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"optimizer": "newton"}, "optimizer must be one of sgd, momentum, adam, adamw"),
        ({"optimizer": optax.sgd(1.0)}, "an optimizer of your own needs a learning_rate"),
        ({"learning_rate": 0.0}, "numbers above 0"),
        ({"learning_rate": (0.1, 0.1)}, "different numbers"),
        ({"data": pp.Batch(X)}, "loss 'cross_entropy' needs labels"),
        ({"data": X}, "data must be a Batch"),
        ({"data": pp.Batch(X, X[:, 0])}, "cross_entropy needs labels of shape"),
        ({"data": "nowhere.npz"}, "no file 'nowhere.npz'"),
        ({"loss": "gaussian"}, "cross_entropy or mse to train"),
        ({"init": "lsuv"}, "lsuv takes its scale from a batch"),
        ({"init": "he_norma"}, "did you mean"),
    ],
)
def test_a_bad_option_gets_one_clear_line(options, said):
    with pytest.raises(pp.UnusableInput, match=said) as refused:
        pp.train(NET, **(SMALL | options))
    assert "\n" not in str(refused.value)


def test_targets_that_are_no_numbers_are_refused():
    with pytest.raises(pp.UnusableInput, match="labels must be numbers"):
        pp.Batch(X, labels=np.array(["a"] * 40))


@pytest.mark.parametrize(
    ("family", "said"), [("rnn", "noise"), ("residual(branch=rezero)", "never learn")]
)
def test_a_family_that_cannot_learn_is_refused(family, said):
    with pytest.raises(pp.UnusableInput, match=said):
        pp.train(pp.Network(depth=2, width=6, family=family), **SMALL)


@pytest.mark.parametrize(
    ("family", "width"), [("residual(branch=depth)", 6), ("conv1d(positions=6)", 8)]
)
def test_other_families_learn(family, width):
    net = pp.Network(depth=2, width=width, family=family, activation="tanh")
    options = SMALL | {"epochs": 8, "learning_rate": 0.1}
    losses = pp.train(net, init="lecun_normal", **options).record.train_loss.squeeze().mean("seed")
    assert losses[-1] < 0.9 * losses[1]


def test_an_optimizer_of_optax_takes_the_rate():
    ours = pp.train(NET, init="he_normal", **SMALL, learning_rate=0.1).record
    theirs = {"optimizer": optax.sgd(1.0), "learning_rate": 0.1}
    assert_allclose(
        ours.test_loss, pp.train(NET, init="he_normal", **SMALL, **theirs).record.test_loss
    )
