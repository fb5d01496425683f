"""Maps, fixed points and criticality against numbers computed independently of this package."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import propagate as pp
from propagate.theory import gauss, mean_field
from propagate.theory.finite_width import layer_theory
from propagate.types import UnusableInput

T = json.loads((Path(__file__).parents[1] / "theory.json").read_text())
OWN = {"gaussian": lambda h: jnp.exp(-h * h)}


@pytest.mark.parametrize("name", T["unit_gaussian"])
def test_gains(name):
    found, row = pp.gain(OWN.get(name, name)), T["unit_gaussian"][name]
    assert found == pytest.approx((row["gain_rms"], row["gain_var"]), rel=1e-12)


@pytest.mark.parametrize("name", T["edge_of_chaos"])
def test_critical_points(name):
    """Every one, and no other: `1e-8` is asked, `q` to the same."""
    rows, phi = T["edge_of_chaos"][name], OWN.get(name, name)
    if "scale_invariant" in rows:
        (point,) = pp.critical(phi, 0.0)
        assert point == pytest.approx((rows["scale_invariant"], 0, 1, 1, True), abs=1e-9)
        assert not pp.critical(phi, 0.05)
        return
    for sigma_b2, points in rows.items():
        found = pp.critical(phi, float(sigma_b2))
        assert [p.sigma_w2 for p in found] == pytest.approx([p["sw2"] for p in points], rel=1e-8)
        assert bool(found) != bool(found.reason)
        for ours, theirs in zip(found, points, strict=True):
            assert ours.q == pytest.approx(theirs.get("q_star", ours.q), rel=1e-8, abs=1e-12)
            assert ours.chi_par == pytest.approx(theirs.get("chi_par", ours.chi_par), rel=1e-7)
            assert ours.stable == theirs.get("stable", ours.stable)


@pytest.mark.parametrize("row", T["depth_scales"], ids=lambda r: f"{r['sw2']:g},{r['sb2']:g}")
def test_depth_scales_of_tanh(row):
    point = pp.fixed_points("tanh", row["sw2"], row["sb2"])[-1]
    found = point.q, point.c, point.chi_1, point.chi_par, point.xi_q, point.xi_grad
    keys = "q_star", "c_star", "chi_1", "chi_par", "xi_q", "xi_grad"
    assert found == pytest.approx(tuple(row[k] for k in keys), rel=1e-9)
    assert point.trainable_depth == pytest.approx(row["six_xi_c"], rel=1e-9)


@pytest.mark.parametrize("row", T["dropout"], ids=lambda r: str(r["keep_prob"]))
def test_dropout_moves_the_correlation_from_one(row):
    (point,) = pp.fixed_points("tanh", row["sw2"], row["sb2"], keep=row["keep_prob"])
    found = point.q, point.c, point.chi_1, point.trainable_depth
    keys = "q_star", "c_star", "chi_grad", "six_xi_c"
    assert found == pytest.approx(tuple(row[k] for k in keys), rel=1e-9)


@pytest.mark.parametrize("name", T["half_stable"])
def test_half_stable_points(name):
    (point,) = pp.half_stable(name)
    assert point[:3] == pytest.approx(T["half_stable"][name], rel=1e-9)


def test_the_saddle_node_of_silu():
    """Where it is often taken for an edge of chaos: sigma_w = 1.7147, sigma_b = 0.2."""
    first = pp.saddle_nodes("silu", 0.04)[0]
    assert first == pytest.approx((2.9402443, 0.3418359), rel=1e-6)
    below, above = (pp.fixed_points("silu", first[0] + by, 0.04) for by in (-1e-3, 1e-3))
    assert [p.stable for p in below] == [True, False]
    assert above == ()


@pytest.mark.parametrize(("sigma_w", "q", "c", "xi_c"), [
    (1.3, 0.6070467919, 1, 16.108173),
    (2.5, 4.0791238753, 0.1221037473, 5.108919),
    (4.0, 12.6041494978, 0.0296959216, 3.639351),
])  # fmt: skip
def test_order_to_chaos(sigma_w, q, c, xi_c):
    """Poole et al. (2016), sigma_b = 0.3."""
    (point,) = pp.fixed_points("tanh", sigma_w**2, 0.09)
    assert (point.q, point.c) == pytest.approx((q, c), rel=1e-9)
    assert point.xi_c == pytest.approx(xi_c, rel=1e-6)


@pytest.mark.parametrize(
    "row", T["trajectories"], ids=lambda r: f"{r['activation']},{r['sw2']:.3g}"
)
def test_trajectories(row):
    q, log_chi = 1.0, 0.0
    for layer in range(1, 101):
        at = gauss.moments(row["activation"], q)
        log_chi += math.log10(row["sw2"] * at["slope2"][0])
        q = row["sw2"] * float(at["second"][0])
        if str(layer) in row["q"]:
            assert (q, log_chi) == pytest.approx(tuple(row["q"][str(layer)]), rel=1e-9, abs=1e-11)


def test_the_correlation_of_a_relu_over_a_thousand_layers():
    apart, at = 1.0, {}
    for layer in range(1, 1001):
        apart = mean_field.c_map("relu", 2.0, 0.0, 1.0, apart)
        at[layer] = 1 - apart
    expected = {int(k): v for k, v in T["relu_c"].items()}
    assert {k: at[k] for k in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("row", T["finite_width"], ids=lambda r: f"n={r['n']}")
def test_the_logarithm_of_a_layer_of_n_units(row):
    relu, linear = (layer_theory.log_mean_square(phi, row["n"]) for phi in ("relu", "identity"))
    assert relu == pytest.approx((row["relu_E_log"], row["relu_Var_log"]), rel=1e-9)
    assert linear == pytest.approx((row["linear_E_log"], row["linear_Var_log"]), rel=1e-9)
    with pytest.raises(UnusableInput, match="homogeneous"):
        layer_theory.log_mean_square("tanh", row["n"])


@settings(max_examples=15)
@given(st.floats(0.05, 6), st.floats(0.001, 1))
def test_fixed_points_stay(sigma_w2, sigma_b2):
    for point in pp.fixed_points("tanh", sigma_w2, sigma_b2):
        q = mean_field.q_map("tanh", sigma_w2, sigma_b2, point.q)
        assert q == pytest.approx(point.q, rel=1e-9)
        if 0 < point.one_minus_c < 1:
            apart = mean_field.c_map("tanh", sigma_w2, sigma_b2, point.q, point.one_minus_c)
            assert apart == pytest.approx(point.one_minus_c, rel=1e-8)


def test_zero_and_every_q_are_fixed_points():
    assert [p.q for p in pp.fixed_points("tanh", 0.5, 0.0)] == [0.0]
    (relu,) = pp.fixed_points("relu", 2.0, 0.0)
    assert (relu.chi_1, relu.chi_par) == pytest.approx((1, 1), abs=1e-12)
    assert math.isinf(relu.xi_grad) or abs(relu.xi_grad) > 1e9
    assert pp.fixed_points("relu", 3.0, 0.1) == ()
    (origin,) = pp.fixed_points("tanh", 0.5, 0.0)
    assert (origin.chi_c, math.isnan(origin.c)) == (1, True)
    assert [p.q for p in pp.fixed_points("sigmoid", 0.0, 0.0)] == [0.0]


@pytest.mark.parametrize("call", [pp.gain, pp.critical, lambda phi: pp.fixed_points(phi, 1, 0.1)])
def test_an_activation_without_moments(call):
    with pytest.raises(UnusableInput, match="no finite"):
        call(jnp.log)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_variances_are_checked(bad):
    for call in (
        lambda: pp.critical("tanh", bad),
        lambda: pp.fixed_points("tanh", bad, 0.1),
        lambda: pp.fixed_points("tanh", 1.0, 0.1, keep=bad),
    ):
        with pytest.raises(UnusableInput, match="must be"):
            call()


def test_selu_keeps_a_unit_gaussian_but_not_its_gradient():
    point = next(p for p in pp.fixed_points("selu", 1.0, 0.0) if p.q)
    assert (point.q, point.chi_par) == pytest.approx((1, 0.78264788), rel=1e-8)
    assert point.chi_1 == pytest.approx(1.0715749925, rel=1e-9)
    np.testing.assert_allclose(pp.gain("selu"), 1, rtol=1e-12)
