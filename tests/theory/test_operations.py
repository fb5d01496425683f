"""Rules of single operations, against exact laws, other routes to the same number, and simulation.

Failure probability of the simulations: seeds are fixed; with new ones, 5 standard errors on about
60 means fail once in 10^4 runs, allowing for tails heavier than a Gaussian's.
"""

import math

import jax
import numpy as np
import pytest
from benchmarks import theory_error

from propagate.activations import activation
from propagate.theory import gauss, mean_field
from propagate.theory.operations import norms, rules
from propagate.theory.operations.signal import Signal
from propagate.theory.operations.softmax_moments import Rows, overlap
from propagate.types import UnusableInput

KEY = jax.random.key(0)
SIGMAS = 5
NEXT = 0.01  # what a rule may leave out, of the value: attention's next order in 1/width


@pytest.fixture
def small(monkeypatch):
    sizes = {"WIDTHS": (64,), "LENGTHS": (32,), "HEADS": (16,), "UNITS": 256, "CHUNK": 2**21}
    for name, value in sizes.items():
        monkeypatch.setattr(theory_error, name, value)


def simulated(setting):
    return theory_error.simulate(setting, KEY, precision=0.02, most=1e7)


def positions(setting):
    """Return E y^2 and E y y' of at least 250 draws, by the program that simulates."""
    seen = []
    while sum(len(one) for one, _ in seen) < 250:
        _, second, shared, _ = theory_error.some(setting, jax.random.fold_in(KEY, len(seen)))
        seen.append((second, shared))
    return (np.concatenate(values) for values in zip(*seen, strict=True))


@pytest.mark.parametrize("name", theory_error.SETTINGS)
def test_theory_and_simulation_agree(name, small):
    """The benchmark, small: variance and gradient within 5 standard errors, each at most 3 %.

    And what two positions share, E y y' in the scale of E y^2, to 0.01 beside 5 standard errors.
    """
    rng = np.random.default_rng(1)
    for _ in range(2):
        setting = theory_error.SETTINGS[name](rng)
        for found, theory in zip(simulated(setting), theory_error.expected(setting), strict=True):
            assert found.error < 0.03 * found.value
            assert abs(found.value - theory) < SIGMAS * found.error + NEXT * theory
    setting = theory_error.SETTINGS[name](np.random.default_rng(2))
    x = setting.x._replace(correlation=0.6)
    second, shared = positions(setting._replace(x=x))
    theory = setting.operation.forward(x)
    ratio = shared / np.mean(second)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - theory.cosine) < SIGMAS * error + 0.01
    assert 0.05 < theory.cosine < 1


def test_a_wrong_rule_would_be_seen(small):
    setting = theory_error.linear(np.random.default_rng(1))
    wrong = rules.Linear(64, 64, setting.operation.sigma_w2 * 1.2)
    for found, theory in zip(
        simulated(setting), theory_error.expected(setting._replace(operation=wrong)), strict=True
    ):
        assert abs(found.value - theory) > SIGMAS * found.error + NEXT * theory


def test_relu_of_a_shifted_gaussian():
    """Closed forms with Phi(m/s)."""
    mean, deviation = 0.7, 1.3
    below = 0.5 * math.erfc(-mean / deviation / math.sqrt(2))
    density = math.exp(-((mean / deviation) ** 2) / 2) / math.sqrt(2 * math.pi)
    first = mean * below + deviation * density
    second = (mean**2 + deviation**2) * below + mean * deviation * density
    x = Signal(mean, deviation**2)
    after = rules.Nonlinearity("relu").forward(x)
    assert after.mean == pytest.approx(first, rel=1e-12)
    assert after.second == pytest.approx(second, rel=1e-12)
    assert rules.Nonlinearity("relu").backward(x) == pytest.approx(below, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "gelu", "hard_tanh"])
def test_a_shift_of_the_input_is_a_shift_of_the_function(name):
    """Another route: the same function, moved, of a centred Gaussian."""
    own = activation(name)
    moved = gauss.moments(lambda h: own.fn(h + 0.8), 1.7)
    at = gauss.moments(name, 1.7, 0.8)
    for key, value in at.items():
        assert value[0] == pytest.approx(moved[key][0], rel=1e-8), key


def test_perfectly_correlated_positions_stay_so():
    x = Signal(0.3, 2.0, 1.0)
    for rule in (
        rules.Nonlinearity("gelu"),
        rules.Softmax(32),
        norms.LayerNorm(64),
        rules.Linear(8, 8),
    ):
        assert rule.forward(x).correlation == pytest.approx(1, abs=1e-4)


def test_layer_norm_is_exact():
    """(n - 2)/((n - 3) Var x), from E 1/chi^2; the output has unit variance."""
    norm = norms.LayerNorm(10, eps=0.0)
    assert norm.backward(Signal(5.0, 2.0)) == pytest.approx(8 / 7 / 2, rel=1e-9)
    assert norm.forward(Signal(5.0, 2.0)).second == pytest.approx(1, rel=1e-12)
    assert norms.RMSNorm(10, eps=0.0).backward(Signal(0.0, 2.0)) == pytest.approx(
        9 / 8 / 2, rel=1e-9
    )
    assert norms.LayerNorm(64).forward(Signal(0.0, 1e-9)).second < 1e-3  # eps is larger


def test_a_softmax_of_two_is_a_sigmoid():
    """y_1 = sigmoid(x_1 - x_2): one-dimensional Gaussian expectations, another route."""
    for variance in (0.1, 3.0, 40.0):
        at = gauss.moments("sigmoid", 2 * variance)
        rule, x = rules.Softmax(2), Signal(1.0, variance)
        assert rule.forward(x).second == pytest.approx(at["second"][0], rel=1e-8)
        assert rule.backward(x) == pytest.approx(2 * at["slope2"][0], rel=1e-7)


@pytest.mark.parametrize("variance", [1e-3, 1.0, 10.0, 300.0])
def test_rows_of_a_softmax_add_up_to_one(variance):
    rows = Rows(variance, 64)
    assert rows.expect((1, 0)) == pytest.approx(1, rel=1e-9)
    assert rows.expect((1, 0), (2, 0)) == pytest.approx(rows.expect((2, 0)), rel=1e-9)
    assert overlap(variance, 64, 1.0) == pytest.approx(rows.expect((2, 0)), rel=1e-3)
    assert overlap(variance, 64, 0.0) == pytest.approx(1 / 64, rel=1e-3)


def test_a_softmax_of_little_variance():
    """Var y = v (1 - 1/L)/L^2 on both sides of where the rule changes."""
    for variance in (0.9e-5, 1.1e-5):
        after = rules.Softmax(32).forward(Signal(0.0, variance, 0.5))
        assert after.variance == pytest.approx(variance / 32**2 * 31 / 32, rel=1e-4)
        assert after.correlation == pytest.approx(0.5, abs=0.02)


def test_attention_to_all_alike_is_a_mean():
    """Without scores a row is 1/L; the gradient comes back through the values alone."""
    rule = rules.Attention(16, 64, 32, sigma_q2=0.0, sigma_v2=2.0)
    x = Signal(0.0, 3.0, 0.25)
    assert rule.forward(x).second == pytest.approx(2 * 3 * (0.25 + 0.75 / 16), rel=1e-6)
    assert rule.forward(x).correlation == pytest.approx(1, abs=1e-4)
    assert rule.backward(x) == pytest.approx(2 / 16, rel=1e-6)


def test_a_chain_of_rules_is_mean_field_theory():
    """phi after Linear, again and again: the q-map, the c-map and chi."""
    x = Signal(0.0, 1.0, 0.5)
    chain = [rules.Linear(64, 64, 1.69, 0.09), rules.Nonlinearity("tanh")]
    q, apart, chi, gradient = 1.69 + 0.09, 1.69 / 2 / 1.78, 1.0, 1.0
    x = chain[0].forward(x)
    for _ in range(6):
        for rule in chain[::-1]:
            gradient *= rule.backward(x)
            x = rule.forward(x)
        chi *= 1.69 * gauss.moments("tanh", q)["slope2"][0]
        apart = mean_field.c_map("tanh", 1.69, 0.09, q, apart)
        q = mean_field.q_map("tanh", 1.69, 0.09, q)
    assert x.second == pytest.approx(q, rel=1e-9)
    assert 1 - x.correlation == pytest.approx(apart, rel=1e-8)
    assert gradient == pytest.approx(chi, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: rules.Linear(0, 8), "fan_in"),
        (lambda: rules.Linear(8, 8, -1.0), "sigma_w2 must be a variance"),
        (lambda: rules.Dropout(0.0), "keep"),
        (lambda: norms.LayerNorm(3), "infinite second moment"),
        (lambda: rules.Softmax(0), "length"),
        (lambda: rules.Attention(8, 8, 8, sigma_o2=math.nan), "sigma_o2"),
    ],
)
def test_bad_input_is_named(make, why):
    with pytest.raises(UnusableInput, match=why):
        make()
