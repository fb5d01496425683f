"""The phase diagram against the fixed points found one by one."""

import numpy as np
import pytest

import propagate as pp
from propagate.cli import command
from propagate.plot import phase_diagram
from propagate.theory.phase_diagram import check_size
from propagate.types import UnusableInput

W2, B2 = np.linspace(0.02, 4, 60), np.linspace(0.004, 0.5, 40)


@pytest.mark.parametrize("name", ["tanh", "hard_tanh", "silu", "sigmoid", "softplus"])
def test_every_point_is_a_fixed_point(name):
    plane = pp.phase(name, W2, B2)
    for i, j in np.random.default_rng(0).integers([40, 60], size=(10, 2)):
        here = plane.isel(sigma_b2=i, sigma_w2=j)
        points = pp.fixed_points(name, W2[j], B2[i])
        if not np.isfinite(here.q):
            assert not [p for p in points if 1 < p.q < 1e6]
            continue
        nearest = min(points, key=lambda p: abs(p.q - float(here.q)))
        found = tuple(float(here[k]) for k in ("q", "chi_1", "chi_par"))
        assert found == pytest.approx((nearest.q, nearest.chi_1, nearest.chi_par), rel=2e-5)


@pytest.mark.parametrize("name", ["tanh", "hard_tanh", "erf", "sin", "elu"])
def test_correlations_settle_where_they_do_one_by_one(name):
    plane = pp.phase(name, np.array([0.5, 1.9, 2.5, 4.0]), np.array([0.01, 0.2]))
    for i, j in np.argwhere(np.isfinite(plane.q.values)):
        here = plane.isel(sigma_b2=i, sigma_w2=j)
        points = pp.fixed_points(name, float(here.sigma_w2), float(here.sigma_b2))
        point = min(points, key=lambda p: abs(p.q - float(here.q)))
        found = [float(here[k]) for k in ("one_minus_c", "xi_q", "xi_c", "xi_grad")]
        expected = [point.one_minus_c, point.xi_q, point.xi_c, point.xi_grad]
        assert found == pytest.approx(expected, rel=1e-2)


def test_where_nothing_settles_there_is_no_depth_scale():
    plane = pp.phase("relu", np.array([1.0, 3.0]), np.array([0.0]))
    assert np.isnan(plane.xi_c).all()
    assert np.isnan(plane.one_minus_c).all()


def test_every_q_stays_where_it_is_for_a_critical_relu():
    plane = pp.phase("relu", np.array([1.0, 2.0, 3.0]), np.array([0.0]))
    assert plane.q.values.tolist() == [[0.0, pytest.approx(1), np.inf]]
    np.testing.assert_allclose(plane.chi_1, [[0.5, 1, 1.5]], rtol=1e-9)


def test_at_the_origin_of_the_edge_the_signal_dies_slowly():
    """tanh at (1, 0): q falls as 1/l, chi_1 tends to 1."""
    here = pp.phase("tanh", np.array([1.0]), np.array([0.0])).squeeze()
    assert (float(here.q), float(here.chi_1)) == (0.0, pytest.approx(1, abs=1e-9))


def test_the_start_decides_between_two_fixed_points():
    """At (2.9, 0.04) SiLU has a stable and an unstable one, 0.243 and 0.502."""
    at = {
        q: float(pp.phase("silu", np.array([2.9]), np.array([0.04]), q=q).q.item())
        for q in (0.4, 1.0)
    }
    assert at[0.4] == pytest.approx(0.243134832, rel=1e-5)
    assert at[1.0] == np.inf


@pytest.mark.parametrize("bad", [[1.0, 0.5], [-1.0, 1.0], [0.0, np.nan]])
def test_variances_are_checked(bad):
    with pytest.raises(UnusableInput, match="increasing"):
        pp.phase("tanh", np.array(bad), B2)
    with pytest.raises(UnusableInput, match="q must be"):
        pp.phase("tanh", W2, B2, q=0.0)


def test_the_picture_has_the_edge_and_the_points():
    ax = phase_diagram.phase(pp.phase("tanh", W2, B2), measured=[(1.0, 0.1, -0.2), (3.0, 0.1, 0.1)])
    assert len(ax.collections[-1].get_offsets()) == 2
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any("edge of chaos" in name for name in named)
    with pytest.raises(UnusableInput, match="two values"):
        phase_diagram.phase(pp.phase("tanh", W2[:1], B2))


def test_the_command(tmp_path, capsys):
    size = ["--points", "30", "20", "--measured", "1", "--depth", "6", "--width", "32"]
    with pytest.raises(SystemExit) as left:
        command.main(["phase", "--out", str(tmp_path / "out"), *size])
    assert left.value.code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"phase.nc", "phase.png"}
    assert "no critical point" not in capsys.readouterr().out


def test_a_plane_that_fills_the_memory_is_refused_before_it_is_made():
    axis = np.linspace(0.0, 1.0, 100_000)
    with pytest.raises(UnusableInput, match=r"1.28e\+03 GB, more than 4 GB: take fewer points"):
        pp.phase("tanh", axis, axis)
    check_size(1000, 1000)
