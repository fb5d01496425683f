"""Plots by structure: lines, labels, marks of non-finite layers and words on an injected axis."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

import propagate as pp
from propagate.plot import (
    growth_colours,
    growth_curves,
    heat_map,
    histogram,
    jacobian_spectrum,
    phase_diagram,
    style,
    width_curves,
)
from propagate.plot.while_training import film
from propagate.record.statistics import HISTOGRAM_EDGES
from propagate.theory.jacobian_spectrum import Density, Spectrum
from propagate.types import DIRECTIONS, UnusableInput
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.thresholds import FINE_DECADES

DEPTH = 10
FINE = "fine: within 2.6 decades"
LAYERS = np.arange(DEPTH + 1)


def finding(init: str, activation: str, direction, verdict: Verdict, rate: float) -> Finding:
    """One of `judge`'s, of which a map shows these."""
    interval, fine = (rate, rate), 1.0
    return Finding(init, activation, direction, verdict, rate, interval, 9.0, fine, None, "seen")


def straight(slopes: dict, seeds: int = 3) -> xr.Dataset:
    """A record whose forward curves rise by `slopes` per layer, and backward ones from the end."""
    inits, activations = (list(dict.fromkeys(names)) for names in zip(*slopes, strict=True))
    coords = {"init": inits, "activation": activations, "seed": np.arange(seeds), "layer": LAYERS}
    rate = np.array([[slopes[i, a] for a in activations] for i in inits])[..., None, None]
    noise = 0.1 * (np.arange(seeds) - (seeds - 1) / 2)[:, None]
    forward = xr.DataArray(rate * LAYERS + noise, coords)
    backward = xr.DataArray(rate * (DEPTH - LAYERS) + noise, coords)
    return xr.Dataset(
        {
            "log10_forward_q": forward,
            "log10_forward_variance": forward - 1,
            "log10_backward_q": backward,
        }
    )


def one(slope: float = -0.5, **options) -> xr.Dataset:
    return straight({("he", "relu"): slope}, **options).squeeze(("init", "activation"), drop=True)


def axis():
    return Figure().subplots()


def drawn(ax):
    """The curves, without the marks where they end."""
    return [line for line in ax.lines if len(line.get_xdata()) > 1]


def marks(ax) -> list[tuple]:
    single = [line for line in ax.lines if len(line.get_xdata()) == 1]
    return [(m.get_marker(), int(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in single]


def labels(legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def test_one_record_has_both_directions_in_two_colours():
    given = axis()
    ax = growth_curves.variance(one(), ax=given)
    assert ax is given
    q, dashed, gradient = sorted(drawn(ax), key=lambda line: line.get_color() != style.COLOURS[0])[
        :3
    ]
    assert {q.get_linestyle(), dashed.get_linestyle()} == {"-", "--"}
    assert gradient.get_color() == style.COLOURS[1]
    assert ax.get_xlabel() == "layer" and ax.get_ylabel() == "second moment\n(decades)"
    assert labels(ax.get_legend()) == [
        "second moment of h",
        "second moment of the gradient at h",
        "variance over inputs of h",
        FINE,
    ]
    assert ax.get_legend().get_title().get_text() == "median and range of 3 seeds"


def test_curve_is_the_median_and_the_band_the_range():
    ax = growth_curves.variance(one(-0.5), ax=axis(), direction="backward")
    (line,), (band,) = drawn(ax), ax.collections
    np.testing.assert_allclose(line.get_ydata(), -0.5 * (DEPTH - LAYERS), atol=1e-12)
    at_end = band.get_paths()[0].vertices
    at_end = at_end[at_end[:, 0] == DEPTH, 1]
    np.testing.assert_allclose([at_end.min(), at_end.max()], [-0.1, 0.1], atol=1e-12)
    assert ax.get_ylabel() == "second moment of the gradient at h\n(decades)"


def test_record_without_seeds_has_no_band():
    ax = growth_curves.variance(one().isel(seed=0, drop=True), ax=axis())
    assert not ax.collections and len(drawn(ax)) == 3


@pytest.mark.parametrize(("beyond", "marker"), [(-np.inf, "x"), (np.inf, "^"), (np.nan, "^")])
@pytest.mark.parametrize(("direction", "last"), [("forward", 6), ("backward", 4)])
def test_end_of_the_finite_layers_is_marked(beyond, marker, direction, last):
    record = one(-0.5)[[f"log10_{direction}_q"]]
    record[f"log10_{direction}_q"][:, slice(7, None) if direction == "forward" else slice(0, 4)] = (
        beyond
    )
    ax = growth_curves.variance(record, ax=axis(), direction=direction)
    assert marks(ax) == [(marker, last, pytest.approx(-3))]
    assert labels(ax.get_legend())[-2:] == [
        {"x": "exact zero beyond", "^": "overflow beyond"}[marker],
        FINE,
    ]


@pytest.mark.parametrize("hole", [slice(None), slice(3, 6)])
def test_what_was_not_measured_is_not_marked(hole):
    record = one()[["log10_forward_q"]]
    record["log10_forward_q"][:, hole] = np.nan
    assert not marks(growth_curves.variance(record, ax=axis()))


def test_median_of_seeds_that_die_apart():
    record = one()[["log10_forward_q"]]
    record["log10_forward_q"][0, 3:] = -np.inf
    record["log10_forward_q"][1, 8:] = np.inf
    ax = growth_curves.variance(record, ax=axis())
    assert not marks(ax), "the third seed lies between"
    assert np.isfinite(drawn(ax)[0].get_ydata()).all()


def test_pairings_have_colour_by_init_and_marker_by_activation():
    record = straight({(i, a): -0.1 for i in ("he", "zeros") for a in ("relu", "tanh")})
    lines = drawn(growth_curves.variance(record, ax=axis(), direction="backward"))
    assert [line.get_label() for line in lines] == [
        "he, relu",
        "he, tanh",
        "zeros, relu",
        "zeros, tanh",
    ]
    assert [line.get_color() for line in lines] == [c for c in style.COLOURS[:2] for _ in range(2)]
    assert [line.get_marker() for line in lines] == [*style.MARKERS[:2]] * 2


def test_no_two_pairings_look_alike():
    record = straight({(f"init{k}", "relu"): -0.1 for k in range(20)})
    lines = drawn(growth_curves.variance(record, ax=axis(), direction="backward"))
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 20


def test_swept_numbers_are_pairings_too():
    record = xr.concat([one(-0.1), one(-0.2)], dim=xr.Variable("sigma_w", [1.0, 1.5]))
    lines = drawn(growth_curves.variance(record, ax=axis(), direction="backward"))
    assert [line.get_label() for line in lines] == ["sigma_w 1", "sigma_w 1.5"]


def test_theory_is_drawn_over_in_black():
    ax = growth_curves.variance(one(), ax=axis(), theory=one(-0.4).isel(seed=0, drop=True))
    theory = [line for line in drawn(ax) if line.get_color() == "black"]
    assert [line.get_linestyle() for line in theory] == ["--", "--"]
    assert labels(ax.get_legend()).count("theory") == 1


def test_sites_of_custom_models():
    record = one().rename(layer="site").assign_coords(site=[f"s{k}" for k in LAYERS])
    ax = growth_curves.variance(record, ax=axis(), direction="forward")
    assert ax.get_xlabel() == "site"
    assert ax.get_ylabel() == "second moment of a site's output\n(decades)"


def custom(kinds: list[str], q) -> xr.Dataset:
    """A record of `diagnose`: a layer with a parameter opens each depth."""
    made = np.isin(kinds, ("matmul", "conv", "embedding"))
    columns = {
        "name": [f"net.{k}/{kind}" for k, kind in enumerate(kinds)],
        "kind": kinds,
        "parameter": ["w" if own else "" for own in made],
        "depth": np.cumsum(made),
    }
    coords = {name: ("site", values) for name, values in columns.items()}
    weights = {"weight": ["w"], "weight_fan_in": ("weight", [3.0])}
    both = {f"log10_{d}_q": ("site", np.asarray(q, float)) for d in DIRECTIONS}
    return xr.Dataset(both | weights, {"site": np.arange(len(kinds))} | coords)


def test_custom_models_are_drawn_along_their_layers():
    q = np.arange(6) / 2
    ax = growth_curves.variance(custom(["matmul", "activation", "elementwise"] * 2, q), ax=axis())
    assert [line.get_ydata().tolist() for line in drawn(ax)] == [[0, 1.5]] * 2
    assert [line.get_color() for line in drawn(ax)] == list(style.COLOURS[:2])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["net.0/matmul", "net.3/matmul"]


def test_custom_models_with_a_residual_stream_are_drawn_along_it():
    q = np.tile([7, 7, 0], 4) + np.arange(12)
    ax = growth_curves.variance(custom(["matmul", "activation", "add"] * 4, q), ax=axis())
    assert drawn(ax)[0].get_ydata().tolist() == [2, 5, 8, 11]
    assert ax.get_xticklabels()[0].get_text() == "net.2/add"


def test_sites_of_custom_models_without_values_are_gaps_and_zeros_are_marked():
    q = np.zeros(9)
    q[4], q[7:] = np.nan, -np.inf
    ax = growth_curves.variance(custom(["matmul"] * 9, q), ax=axis(), direction="forward")
    assert np.flatnonzero(np.isnan(drawn(ax)[0].get_ydata())).tolist() == [4, 7, 8]
    assert marks(ax) == [("x", 6, 0)]


@pytest.mark.parametrize(("sites", "named"), [(40, True), (170, False)])
def test_names_of_sites_are_written_while_there_is_room(sites, named):
    ax = growth_curves.variance(custom(["matmul"] * sites, np.zeros(sites)), ax=axis())
    assert any("net." in t.get_text() for t in ax.get_xticklabels()) == named
    assert (len(ax.get_xticks()) == sites) == named
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_curves_is_a_grid_with_one_legend_and_marks_where_a_curve_leaves():
    record = straight(
        {("he", "relu"): 0.0, ("he", "tanh"): -1, ("big", "relu"): 9, ("big", "tanh"): 1}
    )
    record["log10_forward_q"][1, 0, :, 8:] = np.nan
    fig = growth_curves.curves(record, reach=7.5)
    top, bottom = np.reshape(fig.axes, (2, 2))
    assert [ax.get_title() for ax in top] == ["relu", "tanh"]
    words = ["he", "big", "overflow beyond", "variance over inputs of h"]
    words += ["leaves the picture above", "leaves the picture below", FINE]
    assert labels(fig.legends[0]) == words
    assert all(ax.get_legend() is None for ax in fig.axes)
    for row in (top, bottom):
        assert row[0].get_ylim() == row[1].get_ylim()
    end = top[0].get_ylim()[1]
    assert end == pytest.approx(7.5 + 0.06 * 15)
    overflow, leaves = marks(top[0])
    assert overflow == ("^", 7, 7.5) and leaves == ("^", 0, end)
    (place,) = [m.get_xdata()[0] for m in top[0].lines if m.get_ydata()[0] == end]
    assert place == pytest.approx(end / 9)
    assert sorted(mark[0] for mark in marks(bottom[1])) == ["^", "v"]


def test_curves_on_axes_that_are_given_in_units_of_the_variance():
    axes = Figure().subplots(2, 1, squeeze=False)
    fig = growth_curves.curves(one(-0.5), axes=axes, units="variance", title="a stack")
    assert fig is axes[0, 0].figure and fig.get_suptitle() == "a stack"
    assert axes[0, 0].get_ylabel() == "second moment of h"
    assert axes[0, 0].yaxis.get_major_formatter()(-3.0, 0) == "$10^{-3}$"
    with pytest.raises(UnusableInput, match="'decades' or 'variance', got 'db'"):
        growth_curves.variance(one(), ax=axis(), units="db")


def test_what_is_fine_is_tinted_where_all_curves_begin_at_one_level():
    def ground(record):
        ax = growth_curves.variance(record, ax=axis(), direction="forward", title="given")
        assert ax.get_title() == "given"
        return [a.get_bbox().intervaly for a in ax.patches]

    (found,) = ground(one() + 3)
    np.testing.assert_allclose(found, [3 - FINE_DECADES, 3 + FINE_DECADES])
    apart = straight({("he", "relu"): -0.1, ("big", "relu"): 0.1})
    apart["log10_forward_q"][1] += 2
    assert not ground(apart)


def test_a_band_of_theory_has_one_of_the_same_kind_beside_it():
    """Of 16 seeds that scatter by 0.1, ±2 sd of theory stand beside ±2 sd about their mean."""
    values = 0.1 * np.random.default_rng(0).standard_normal((16, DEPTH + 1))
    record = xr.Dataset({"log10_forward_q": (("seed", "layer"), values)}, {"layer": LAYERS})
    theory = xr.Dataset(
        {
            "log10_forward_q": ("layer", np.zeros(DEPTH + 1)),
            "log10_forward_q_sd": ("layer", np.full(DEPTH + 1, 0.1)),
        },
        {"layer": LAYERS},
    )
    ax = growth_curves.variance(record, ax=axis(), theory=theory)
    assert ax.get_legend().get_title().get_text() == "mean and ±2 sd of 16 seeds"
    measured = ax.collections[0].get_paths()[0].vertices
    first = measured[measured[:, 0] == 0, 1]
    middle, sd = values[:, 0].mean(), values[:, 0].std(ddof=1)
    np.testing.assert_allclose([first.min(), first.max()], [middle - 2 * sd, middle + 2 * sd])
    few = growth_curves.variance(record.isel(seed=slice(4)), ax=axis(), theory=theory)
    assert few.get_legend().get_title().get_text() == "median and range of 4 seeds"


def test_curves_of_one_network():
    fig = growth_curves.curves(one())
    assert len(fig.axes) == 2 and not any(ax.texts for ax in fig.axes)


def test_heatmap_has_a_word_and_a_rate_in_each_cell():
    findings = [
        finding("he", "relu", "backward", Verdict.STABLE, 0.004),
        finding("he", "tanh", "backward", Verdict.VANISHING, -0.31),
        finding("big", "relu", "backward", Verdict.EXPLODING, 1.7),
        finding("big", "tanh", "backward", Verdict.OVERFLOWED, np.inf),
        finding("big", "tanh", "forward", Verdict.STABLE, 0.0),
    ]
    given = axis()
    ax = heat_map.heatmap(iter(findings), ax=given)
    assert ax is given
    words = {text.get_position(): text.get_text() for text in ax.texts}
    assert words[0, 0] == "stable\n+0.004" and words[1, 0] == "vanishing\n−0.31"
    assert words[0, 1] == "exploding\n+1.70" and words[1, 1] == "overflowed"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["relu", "tanh"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["he", "big"]
    np.testing.assert_array_equal(np.ma.getmaskarray(ax.images[0].get_array())[1], [False, True])


def shade(verdict: Verdict, rate: float, depth: int = 50) -> tuple[float, ...]:
    """The colour that a map gives to one finding of a stack."""
    fine = np.inf if not rate else FINE_DECADES / abs(rate)
    numbers = (rate, (rate, rate), rate * depth, fine, None, "")
    found = Finding("he", "relu", "backward", verdict, *numbers, depth=depth)
    ax = heat_map.heatmap([found])
    return tuple(ax.images[0].to_rgba(ax.images[0].get_array())[0, 0])


def test_colours_say_what_verdicts_say():
    """One colour for all that is fine, however near to its end; red and blue only beyond."""
    fine = {shade(Verdict.STABLE, rate) for rate in (-0.05, -0.01, 0.0, 0.031, 0.052)}
    assert len(fine) == 1 and fine == {shade(Verdict.INCONCLUSIVE, 0.09)}
    red, blue = shade(Verdict.EXPLODING, 0.073), shade(Verdict.VANISHING, -0.073)
    assert red[0] > red[2] + 0.2 and blue[2] > blue[0] + 0.2
    assert shade(Verdict.EXPLODING, 0.053) == red and shade(Verdict.EXPLODING, 2.0) != red
    assert shade(Verdict.COLLAPSING, -0.3) == shade(Verdict.VANISHING, -0.3)
    other = {shade(v, 0.001) for v in (Verdict.SATURATED, Verdict.UNTRAINED, Verdict.DEAD)}
    assert len(other) == 1 and not other & (fine | {red, blue})


def test_words_fill_their_cells_and_no_more():
    """At 800 pixels across, the README's width, letters are 9 pixels high or more."""
    inits, phis = [f"init_{k}" for k in range(10)], [f"phi_{k}" for k in range(6)]
    every = [finding(i, p, "backward", Verdict.INCONCLUSIVE, -0.0312) for i in inits for p in phis]
    ax = heat_map.heatmap(every)
    figure = ax.figure
    figure.savefig(io.BytesIO(), dpi=100)
    across = ax.get_window_extent().width / 6
    assert all(text.get_window_extent().width < across for text in ax.texts)
    assert ax.texts[0].get_fontsize() / 72 / figure.get_size_inches()[0] * 800 > 9


def test_a_verdict_is_seen_without_its_colour():
    """What is fine has an outline, what is unsettled dots, what is at fault a hatch."""
    verdicts = {"relu": Verdict.STABLE, "tanh": Verdict.INCONCLUSIVE, "gelu": Verdict.EXPLODING}
    ax = heat_map.heatmap([finding("he", a, "backward", v, 0.1) for a, v in verdicts.items()])
    fine, unsettled, fault = ax.patches
    assert fine.get_linewidth() > 1 and fine.get_hatch() is None
    assert fine.get_edgecolor()[:3] == to_rgb(growth_colours.HEALTHY)
    assert unsettled.get_hatch() == "..." and fault.get_hatch() == "///"
    assert not unsettled.get_linewidth() and not fault.get_linewidth()
    assert [text.get_fontweight() for text in ax.texts] == ["bold", "normal", "normal"]


def test_maps_of_both_directions_share_their_bar():
    both = [finding("he", "relu", d, Verdict.STABLE, -0.0001) for d in DIRECTIONS]
    fig = heat_map.heatmaps(both, title="a sweep")
    forward, backward, bar = fig.axes
    assert fig.get_suptitle() == "a sweep" and "growth" in bar.get_ylabel()
    assert [ax.get_title().split(",")[0] for ax in (forward, backward)] == [
        "growth of the signal",
        "growth of the gradient",
    ]
    assert forward.texts[0].get_text() == "stable\n0.000"
    assert len(heat_map.heatmaps(both[:1]).axes) == 2
    with pytest.raises(UnusableInput, match="findings of a direction"):
        heat_map.heatmaps([])


@pytest.mark.parametrize(
    ("rate", "words"),
    [(2.7e-5, "0.000"), (-0.3, "−0.30"), (-0.0994, "−0.099"), (12.34, "+12.3"), (-1.0, "−1.00")],
)
def test_rates_are_written_in_one_way(rate, words):
    ax = heat_map.heatmap([finding("he", "relu", "backward", Verdict.VANISHING, rate)])
    assert ax.texts[0].get_text() == f"vanishing\n{words}"


def test_heatmap_leaves_absent_cells_empty():
    findings = [
        finding("he", "relu", "forward", Verdict.STABLE, 0.0),
        finding("big", "tanh", "forward", Verdict.STABLE, 0.0),
    ]
    ax = heat_map.heatmap(findings, "forward")
    words = {text.get_position(): text.get_text() for text in ax.texts}
    assert words == {(0, 0): "stable\n0.000", (1, 1): "stable\n0.000"}


def gaussian(slope: float) -> xr.Dataset:
    edges = np.asarray(HISTOGRAM_EDGES)
    centre = (edges[1:] + edges[:-1]) / 2
    share = np.exp(-(centre**2) / 2)
    bins = np.broadcast_to(share / share.sum(), (2, DEPTH + 1, centre.size)).copy()
    coords = {"seed": [0, 1], "layer": LAYERS, "bin": centre}
    q = xr.DataArray(
        np.tile(slope * LAYERS.astype(float), (2, 1)), {k: coords[k] for k in ("seed", "layer")}
    )
    record = {f"log10_{place}_q": q.copy() for place in ("activation", "backward")}
    record |= {
        f"{p}_histogram": xr.DataArray(bins.copy(), coords) for p in ("activation", "backward")
    }
    record = xr.Dataset(record)
    record["log10_activation_q"][:, -1] = np.nan  # the output has no activation
    record["activation_histogram"][:, -1] = np.nan
    return record


def test_histograms_are_densities_of_the_values():
    left, right = histogram.histograms(gaussian(-0.2), units="value").axes
    assert left.get_legend() is None
    assert labels(right.get_legend()) == ["0", "2", "4", "5", "7", "9"]
    assert left.get_xlabel() == "activation x" and right.get_xlabel() == "gradient at h"
    for line, layer in zip(drawn(right), (0, 2, 4, 5, 7, 9), strict=True):
        x, y = line.get_data()
        assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-3)
        assert np.trapezoid(y * x**2, x) == pytest.approx(10 ** (-0.2 * layer), rel=1e-3)


def test_histograms_on_axes_that_are_given():
    fig = Figure()
    axes = fig.subplots(2, 2)
    assert histogram.histograms(gaussian(0), axes=axes[1]) is fig
    assert not axes[0, 0].lines and axes[1, 0].lines and axes[1, 1].lines


def test_histograms_are_in_units_of_the_rms_without_the_bins_that_hold_all_beyond():
    record = gaussian(-0.5)
    record["backward_histogram"][..., [0, -1]] = 0.5
    for ax in histogram.histograms(record, title="he + relu").axes:
        assert ax.get_xlabel().endswith("÷ its rms") and ax.get_title().startswith("he + relu: ")
        assert ax.get_xlim() == (-5, 5) and ax.get_ylim() == (3e-4, 10)
        assert all(line.get_xdata()[-1] == 4.875 for line in drawn(ax))
        assert all(np.nanmax(line.get_ydata()) < 0.5 for line in drawn(ax))
    with pytest.raises(UnusableInput, match="'rms' or 'value', got 'metres'"):
        histogram.histograms(record, units="metres")


def test_histograms_of_nothing_measured_are_empty():
    left, right = histogram.histograms(gaussian(0) * np.nan).axes
    assert not left.lines and not right.lines


def test_histograms_name_layers_that_are_zero():
    record = gaussian(0)
    record["log10_backward_q"][:, :7] = -np.inf
    right = histogram.histograms(record).axes[1]
    assert labels(right.get_legend())[:4] == [
        "0: all zero",
        "2: all zero",
        "4: all zero",
        "5: all zero",
    ]
    assert [np.isfinite(line.get_ydata()).any() for line in right.lines] == [False] * 4 + [True] * 2


def test_a_coordinate_check_has_one_range_and_its_exponents():
    """rms of width^1 and width^0, written beside the ends of their lines."""
    widths, steps, sites = [64, 128, 256], [0, 1], ["a", "b"]
    log_q = 2 * np.array([1.0, 0.0]) * np.log10(widths)[:, None]  # (width, site)
    values = np.broadcast_to(log_q[:, None, None], (3, 1, 2, 2))
    dims = ("width", "seed", "step", "site")
    coords = {"width": widths, "step": steps, "name": ("site", sites)}
    coords |= {"kind": ("site", ["matmul"] * 2), "parameter": ("site", sites)}
    coords["wide"] = ("site", [True, True])
    names = ("log10_forward_q", "log10_change_q")
    record = xr.Dataset({name: (dims, values.copy()) for name in names}, coords)
    fig = width_curves.coordinate_check(record, title="check")
    first, second = fig.axes
    assert first.get_ylim() == second.get_ylim() and fig.get_suptitle() == "check"
    assert {text.get_text() for text in second.texts} == {"+1.00", "+0.00"}


def test_a_spectrum_has_its_shares_and_theory():
    """Of 8 values one is zero and one below rounding; what is seen adds up to the rest."""
    values = np.array([2.0, 1.0, 1.0, 0.5, 0.5, 0.1, 1e-9, 0.0])
    theory = Spectrum(mean=1.0, variance=1.5, edge=4.0)
    places = np.linspace(math.log10(4), -30, 400)
    density = Density(places, np.full(400, 1 / 35), 0.0)
    ax = jacobian_spectrum.spectrum(values, theory=theory, density=density)
    (bars,) = ax.patches
    shares, edges, _ = bars.get_data()
    assert np.sum(shares * np.diff(edges)) == pytest.approx(6 / 8)
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    spread = np.var(values**2) / np.mean(values**2) ** 2
    assert f"measured:\nvariance {spread:.3g}, 25% below rounding" in words
    assert [word for word in words if word.startswith("theory: variance 1.5, 9")]
    edge, curve = ax.lines
    assert edge.get_xdata()[0] == pytest.approx(math.log10(4))
    assert min(curve.get_xdata()) >= edges[0]


def test_a_spike_keeps_the_height_of_what_is_wide():
    wide = jacobian_spectrum.spectrum(np.logspace(-3, 1, 200), label="wide")
    top = wide.get_ylim()
    jacobian_spectrum.spectrum(np.ones(200), label="isometry", ax=wide)
    assert wide.get_ylim() == top
    words = [text.get_text() for text in wide.get_legend().get_texts()]
    assert words[-1] == "isometry: all the same"
    assert jacobian_spectrum.spectrum(np.ones(9)).get_ylim()[1] > 1
    marked = jacobian_spectrum.spectrum(np.ones(9), theory=Spectrum(1.0, 0.0, 1.0))
    assert "theory: all the same" in [t.get_text() for t in marked.get_legend().get_texts()]
    for nothing in ([], [0.0, 0.0], [1.0, np.nan]):
        with pytest.raises(UnusableInput, match="singular values"):
            jacobian_spectrum.spectrum(np.array(nothing))


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(UnusableInput, match="no log10_backward_q"):
        growth_curves.variance(one()[["log10_forward_q"]], direction="backward")
    with pytest.raises(UnusableInput, match=r'no activation_histogram.*"histogram"'):
        histogram.histograms(one())
    with pytest.raises(UnusableInput, match="one pairing is required, got 2"):
        histogram.histograms(gaussian(0).expand_dims(init=["he", "zeros"]))
    with pytest.raises(UnusableInput, match="direction 'backward' are required"):
        heat_map.heatmap([])


def test_every_figure_can_be_saved(tmp_path):
    findings = [finding("he", "relu", "backward", Verdict.STABLE, 0.0)]
    figures = [growth_curves.variance(one()).figure, heat_map.heatmap(findings).figure]
    for fig in [*figures, histogram.histograms(gaussian(-0.5))]:
        path, page = tmp_path / "picture.png", io.StringIO()
        fig.savefig(path, dpi=40)
        drawn = imread(path)[..., :3]
        assert drawn.shape[:2] == tuple(round(40 * size) for size in fig.get_size_inches()[::-1])
        assert drawn.std() > 0.02, "an empty page is white"
        fig.savefig(page, format="svg")
        assert page.getvalue().rstrip().endswith("</svg>")


def test_plot_leaves_pyplot_alone():
    files = list(Path(growth_curves.__file__).parent.glob("*.py"))
    assert len(files) > 5
    assert not [path.name for path in files if "pyplot" in path.read_text()]


def test_the_legend_explains_what_it_draws_whatever_its_colour():
    """Keys come last because they are keys, even where a curve has their grey."""
    record = straight({("he", "relu"): 0.0, ("big", "relu"): 9.0})
    record["log10_forward_q"][1, 0, :, 8:] = -np.inf
    axes = growth_curves.variance(record, ax=axis(), direction="forward")
    assert labels(axes.get_legend()) == [
        "he",
        "big",
        "exact zero beyond",
        "variance over inputs of h",
        FINE,
    ]
    gray = axis()
    (line,) = gray.plot([0, 1], [0, 1], color="0.3", label="a grey curve")
    options = style.legend_options([gray], [style.legend_key("a key"), line], record)
    assert options["labels"] == ["a grey curve", "a key"]


def test_a_title_is_no_wider_than_its_map():
    few = [finding("he", phi, "backward", Verdict.STABLE, 0.0) for phi in ("relu", "tanh")]
    ax = heat_map.heatmap(few)
    ax.figure.canvas.draw()
    title, bar = ax.title.get_window_extent(), ax.figure.axes[-1].get_window_extent()
    assert title.x1 < bar.x0


def test_labels_of_contours_stand_apart_within_the_plane_and_beside_what_is_measured():
    plane = pp.phase("relu", np.linspace(0, 6, 60), np.linspace(0, 1, 40))
    points = [(1.0, 0.5, -0.1)]
    ax = phase_diagram.phase(plane, measured=points)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) >= 3 and not any(
        one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[k + 1 :]
    )
    at = ax.transData.transform(points[0][:2])
    assert not any(box.contains(*at) for box in boxes)
    words = labels(ax.get_legend())
    assert "trainable depth" in words and "edge of chaos" not in words  # which is not drawn


def test_a_film_says_where_a_curve_ends():
    levels = np.array([[0.0], [np.nan], [np.nan]])
    assert film._ends(levels, np.arange(3)) == " (to epoch 0)"
    assert film._ends(levels * np.nan, np.arange(3)) == " (no number)"
    assert film._ends(levels[:1], np.arange(1)) == ""
