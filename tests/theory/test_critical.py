"""The initialiser `critical`: theory's choice, against integrals by another route and networks."""

import re

import jax
import numpy as np
import pytest
from rich.console import Console
from scipy import integrate, stats

import propagate as pp
from propagate.activations import activation
from propagate.initializers import initializer
from propagate.report import sweep_table
from propagate.theory import criticality
from propagate.theory.criticality import critical_at_unit, tuned

KEY = jax.random.key(0)


def mean(f, q: float) -> float:
    """E f(h) for h ~ N(0, q), by adaptive integration on both sides of 0."""
    density = stats.norm(scale=q**0.5).pdf
    far = 12 * q**0.5
    parts = [(-far, 0), (0, far)]
    return sum(integrate.quad(lambda h: f(h) * density(h), *p, limit=200)[0] for p in parts)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "gelu", "silu", "selu"])
def test_gradient_and_second_moment_stay_at_the_point(name):
    """The slope is a difference quotient here."""
    point, step = critical_at_unit(name), 1e-5
    phi = jax.jit(activation(name).fn)
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        value = lambda h: float(phi(np.float64(h)))  # noqa: E731
        slope = lambda h: (value(h + step) - value(h - step)) / (2 * step)  # noqa: E731
        slope2, second = (mean(lambda h, f=f: f(h) ** 2, point.q) for f in (slope, value))
    assert point.sigma_w2 * slope2 == pytest.approx(1, rel=1e-4)
    assert point.sigma_w2 * second + point.sigma_b2 == pytest.approx(point.q, rel=1e-4)


@pytest.mark.parametrize("name", criticality.SEARCHED)
def test_the_table_of_searched_points_is_what_theory_finds(name):
    found = criticality._searched(activation(name))
    assert found[:3] == pytest.approx(criticality.SEARCHED[name][:3], rel=1e-6)
    assert found[3:] == criticality.SEARCHED[name][3:]


def test_each_kind_of_choice():
    kinds = {name: critical_at_unit(name).kind for name in ("relu", "tanh", "gelu", "sigmoid")}
    assert kinds == {
        "relu": "every q",
        "tanh": "unit q",
        "gelu": "half-stable",
        "sigmoid": "far q",
    }
    assert critical_at_unit("relu6").sigma_b2 == 0  # and not 2e-9
    for name, why, sigma_w2 in (
        ("softplus", "softplus has no critical point at sigma_b^2 = 0", 2.0),
        ("squared_relu", "its critical points are unstable", 2 / 3),
    ):
        none = critical_at_unit(name)
        assert none.kind == "none" and none.reason.startswith(f"none: {why}")
        assert none.sigma_w2 == pytest.approx(sigma_w2, rel=1e-3)


def test_a_multiple_of_it_has_weights_so_many_times_as_large():
    phi = activation("tanh")
    whole, half = (tuned(initializer(name), phi) for name in ("critical", "0.5*critical"))
    assert half.moments(9, 9)[1] == pytest.approx(whole.moments(9, 9)[1] / 4)
    assert half.bias(9, 9) == whole.bias(9, 9) > 0
    point = critical_at_unit("tanh")
    orthogonal = tuned(initializer("critical_orthogonal"), phi)
    for own in (whole, orthogonal):
        assert 9 * own.moments(9, 9)[1] == pytest.approx(point.sigma_w2)
    other = initializer("he_normal")
    assert tuned(other, phi) is other


@pytest.fixture(scope="module")
def swept():
    phis = ["relu", "tanh", "gelu", "silu", "selu", "sigmoid", "softplus"]
    inits = ["critical", "critical_orthogonal", "he_normal"]
    options = {"key": KEY, "seeds": 4, "batch": 8, "measures": ("q", "variance")}
    return pp.sweep(pp.Network(50, 128), init=inits, activation=phis, **options)


def test_it_is_stable_wherever_theory_allows(swept):
    """He's factor is 13 decades off for GELU and SiLU, the same as critical for ReLU."""
    found = {(f.init, f.activation, f.direction): f for f in pp.judge(swept)}
    for (init, phi, _), finding in found.items():
        if init != "he_normal" and phi != "softplus":
            assert finding.verdict.value == "stable", finding
        if init == "he_normal" and phi in ("gelu", "silu"):
            assert finding.verdict.value == "vanishing"
    for direction in ("forward", "backward"):
        critical, he = (found[i, "relu", direction].rate for i in ("critical", "he_normal"))
        assert critical == pytest.approx(he, abs=1e-5)


def test_theory_predicts_it(swept):
    """Within its band or, by the next order in 1/width of a few layers, 0.1 decades beside it."""
    for init in ("critical", "critical_orthogonal"):
        for phi in ("tanh", "gelu", "sigmoid"):
            theory = pp.predict(pp.Network(50, 128, activation=phi, init=init), batch=8)
            off = pp.departures(swept.sel(init=init, activation=phi), theory)
            assert all(abs(one.decades) < 0.1 for one in off), (init, phi, off)


def test_a_sweep_ends_with_the_recipe_in_numbers(swept):
    findings = pp.judge(swept)
    gelu = next(
        line for line in sweep_table.recipes(findings, swept).splitlines() if "gelu" in line
    )
    assert gelu.startswith("gelu: sigma_w² = 1.983, sigma_b² = 0.1729 (half-stable")
    assert "critical forward stable +0.0" in gelu and "fine to depth" in gelu
    assert "variance_scaling(1.983, 'fan_in', 'normal') with biases of std 0.4158" in gelu
    assert "nn.init.normal_(w, std=(1.983 / fan_in) ** 0.5)" in gelu
    console = Console(width=100, record=True, quiet=True)
    console.print(sweep_table.report(findings, swept))
    assert sweep_table.recipes(findings, swept.drop_attrs()) == ""


def test_advice_where_none_suits_names_the_scale_of_theory(swept):
    he = swept.sel(init=["he_normal"])
    sigmoid = next(
        line for line in sweep_table.advice(pp.judge(he), he).splitlines() if "sigmoid" in line
    )
    assert "sigma_w² = 103 and sigma_b² = 0" in sigmoid and "smaller biases" not in sigmoid


def test_a_function_of_ones_own_has_a_critical_point_too():
    def bent(h):
        return jax.numpy.tanh(1.3 * h)

    net = pp.Network(20, 64, activation=bent, init="critical")
    record = pp.measure(net, KEY, seeds=3, batch=8, measures=("q", "variance"))
    assert {f.verdict.value for f in pp.judge(record)} == {"stable"}


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("0*h", "E phi'^2 = 0"),
        ("0*h + 1", "E phi'^2 = 0"),
        ("sign(h)", "E phi'^2 = 0"),
        ("1/h", "1 / h has no finite E phi^2"),
        ("sqrt(h)", "no finite E phi^2"),
    ],
)
def test_an_activation_without_a_critical_scale_is_one_clear_line(formula, said):
    """Constants have no slope to keep; of 1/h² a Gaussian mean is infinite, whatever is summed."""
    with pytest.raises(pp.UnusableInput, match=re.escape(said)):
        critical_at_unit(activation(formula))
    with pytest.raises(pp.UnusableInput, match=re.escape(said)):
        pp.predict(pp.Network(4, 8, activation=formula))
    net = pp.Network(4, 8, activation=formula)
    record = pp.sweep(net, init="he_normal", key=KEY, seeds=2, batch=4, measures="q")
    assert pp.judge(record)  # without its scale the sweep goes on


@pytest.mark.parametrize("formula", ["abs(h)**0.5", "exp(h)", "h**5", "1/(h*h + 0.001)"])
def test_a_steep_activation_is_no_pole(formula):
    assert critical_at_unit(activation(formula)).sigma_w2 > 0
