"""Pictures of the values of all layers: ridges, and exponents beside what dtypes hold."""

import math

import numpy as np
import pytest
import xarray as xr

from propagate import plot
from propagate.plot import kinds
from propagate.plot.by_layer.shares import of_octaves
from propagate.record.statistics import HISTOGRAM_EDGES
from propagate.types import UnusableInput

EDGES = np.asarray(HISTOGRAM_EDGES)
NORMAL = np.array([math.erf(e / 2**0.5) / 2 for e in EDGES])
PLACES = ("forward", "activation", "backward")


def gaussian(log10_q, zeros: float = 0.0) -> xr.Dataset:
    """A record of Gaussian values, a share of which is zero, at the second moments given."""
    shares = np.diff(NORMAL) * (1 - zeros)
    shares[np.flatnonzero(EDGES == 0)[0]] += zeros
    layer = np.arange(len(log10_q))
    bins = np.tile(shares, (len(layer), 1))
    coords = {"layer": layer, "bin": (EDGES[1:] + EDGES[:-1]) / 2}
    q = xr.DataArray(np.asarray(log10_q, float), {"layer": layer})
    found = {f"{p}_histogram": (("layer", "bin"), bins) for p in PLACES}
    found |= {f"log10_{p}_q": q for p in PLACES}
    found |= {f"{p}_zero_fraction": xr.full_like(q, zeros) for p in PLACES}
    return xr.Dataset(found, coords)


@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_the_share_below_a_power_of_two_is_that_of_a_normal_distribution(zeros):
    """What a bin of a quarter of the rms does to it is below 1 % of the values."""
    octaves, shares = of_octaves(gaussian([0.0, 4 * math.log10(2)], zeros), "backward")
    for row, shift in ((0, 0), (1, 2)):
        for k in range(-8, 2):
            below = math.erf(2.0**k / 2**0.5) * (1 - zeros)
            assert abs(shares[row][octaves < k + shift].sum() - below) < 0.01 * (1 - zeros)


def test_zeros_are_in_no_octave():
    _, shares = of_octaves(gaussian([0.0], 0.5), "backward")
    np.testing.assert_allclose(shares.sum(), 0.5, atol=1e-5)
    _, counted = of_octaves(gaussian([0.0], 0.5).drop_vars("backward_zero_fraction"), "backward")
    assert counted.sum() > 0.9


def test_exponents_have_the_ranges_of_dtypes():
    ax = plot.exponents(gaussian([0.0, -1.0, -2.0]), dtypes=("float16", "bfloat16"), title="bits")
    ends = [tuple(line.get_ydata()) for line in ax.lines]
    assert ends[1] == (-24, -14) and ends[3] == (-133, -126)
    assert ends[0][0] == -14 and abs(ends[0][1] - 16) < 1e-3
    assert [text.get_text() for text in ax.texts] == ["float16", "bfloat16"]
    assert ax.get_title() == "bits" and ax.get_xlabel() == "layer"


def test_layers_of_zeros_or_beyond_the_dtype_are_empty():
    record = gaussian([0.0, -np.inf, np.inf, np.nan])
    _, shares = of_octaves(record, "backward")
    assert np.isfinite(shares).all(axis=1).tolist() == [True, False, False, False]
    nothing = of_octaves(gaussian([np.nan, np.nan]), "backward")[1]
    assert np.isnan(nothing).all()
    for drawn in (plot.exponents, plot.ridge):
        drawn(record), drawn(gaussian([np.nan]))


def test_a_ridge_is_as_wide_as_its_values_and_as_high_as_others():
    ax = plot.ridge(gaussian([0.0, -2.0]))
    first, second = (line.get_xydata() for line in ax.lines if len(line.get_xdata()) > 2)
    np.testing.assert_allclose(first[:, 0], 10 * second[:, 0])
    np.testing.assert_allclose(np.ptp(first[:, 1]), np.ptp(second[:, 1]))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "1"]
    same = plot.ridge(gaussian([0.0, -2.0]), units="rms", title="h").lines
    np.testing.assert_allclose(same[0].get_xdata(), same[2].get_xdata())


def test_at_most_twelve_layers_are_shown_the_ends_among_them():
    labels = plot.ridge(gaussian(np.zeros(100))).get_yticklabels()
    assert len(labels) == 12
    assert (labels[0].get_text(), labels[-1].get_text()) == ("0", "99")


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(UnusableInput, match=r'no backward_histogram.*"histogram"'):
        plot.exponents(gaussian([0.0]).drop_vars("backward_histogram"))
    with pytest.raises(UnusableInput, match="one pairing is required, got 2"):
        plot.ridge(gaussian([0.0]).expand_dims(init=["he_normal", "zeros"]))
    with pytest.raises(UnusableInput, match="place"):
        plot.ridge(gaussian([0.0]), "weights")


@pytest.mark.parametrize("name", ["ridge", "exponents"])
def test_a_saved_record_has_both_kinds(name):
    record = gaussian([0.0, -1.0]).expand_dims(init=["he_normal"], activation=["relu"])
    assert name in kinds.suitable(record)
    assert kinds.drawn(record, name, style="paper").axes


def residual(depth: int = 6, seeds: int = 2) -> xr.Dataset:
    """A stream of q = 1 + l, three quarters of it in the mean, to which every branch adds 1."""
    q = np.tile(1.0 + np.arange(depth + 1), (seeds, 1))
    branch = np.where(np.arange(depth + 1) == 0, np.nan, 0.0 * q)
    made = {"log10_forward_q": np.log10(q), "log10_forward_variance": np.log10(q / 4)}
    made["log10_branch_q"] = branch
    coords = {"seed": range(seeds), "layer": range(depth + 1)}
    return xr.Dataset({name: (("seed", "layer"), v) for name, v in made.items()}, coords)


def test_a_signal_propagation_plot_has_mean_variance_and_branch_of_each_block():
    ax = plot.signal_propagation(residual(), title="blocks")
    drawn = {line.get_label(): 10 ** line.get_ydata() for line in ax.lines}
    blocks = np.arange(1, 7)
    np.testing.assert_allclose(drawn["stream: squared mean"], 0.75 * (1 + blocks))
    np.testing.assert_allclose(drawn["stream: variance"], 0.25 * (1 + blocks))
    np.testing.assert_allclose(drawn["branch: second moment"], 1.0)
    assert list(ax.lines[0].get_xdata()) == list(blocks) and ax.get_title() == "blocks"


def test_a_signal_propagation_plot_needs_one_residual_network():
    plain = residual().drop_vars("log10_branch_q")
    several = residual().expand_dims(init=["a", "b"])
    for record in (plain, several):
        assert "stream" not in kinds.suitable(record)
        with pytest.raises(UnusableInput, match="needs the record of one residual network, with"):
            plot.signal_propagation(record)
