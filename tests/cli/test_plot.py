"""`propagate plot`: every kind from a saved record, formats and styles, marks, and mistakes."""

import numpy as np
import pytest
import xarray as xr
from matplotlib import colors
from site_records import finding, transformer

import propagate as pp
from propagate.cli import command
from propagate.cli.verbs import plot as verb
from propagate.plot import kinds, marks
from propagate.plot.growth_curves import variance
from propagate.plot.style import COLUMN_INCHES, STYLES
from propagate.verdicts.findings import Findings, Verdict

LAYERS = np.arange(9)
GRID = {"init": ["he", "normal"], "activation": ["relu", "tanh"], "seed": [0, 1], "layer": LAYERS}


def sweep() -> xr.Dataset:
    rate = np.array([0.0, -0.9])[:, None, None, None] * np.ones((2, 2, 2, 1)) * LAYERS
    both = {"log10_forward_q": rate, "log10_backward_q": rate[..., ::-1]}
    return xr.Dataset({name: (tuple(GRID), q) for name, q in both.items()}, GRID)


def histograms() -> xr.Dataset:
    edges = np.linspace(-5, 5, 12)
    bins = {"seed": [0], "layer": LAYERS, "bin": (edges[1:] + edges[:-1]) / 2}
    shares = xr.DataArray(np.full((1, 9, 11), 1 / 11), bins)
    q = xr.DataArray(np.zeros((1, 9)), {"seed": [0], "layer": LAYERS})
    places = ("activation", "backward")
    made = {f"{place}_histogram": shares for place in places}
    return xr.Dataset(made | {f"log10_{place}_q": q for place in places})


def widths() -> xr.Dataset:
    """Of a coordinate check: two sites of layers at two widths, before and after an update."""
    dims = ("width", "seed", "step", "site")
    values = np.zeros((2, 2, 2, 2))
    made = dict.fromkeys(("log10_forward_q", "log10_change_q"), (dims, values))
    names = ["in.kernel", "out.kernel"]
    words = {"name": names, "kind": ["matmul"] * 2, "parameter": names, "wide": [True] * 2}
    coords = {"width": [8, 16], "seed": [0, 1], "step": [0, 1]}
    return xr.Dataset(made, coords | {k: ("site", v) for k, v in words.items()})


def plane() -> xr.Dataset:
    return pp.phase("tanh", np.linspace(0.5, 3, 5), np.linspace(0, 0.5, 4))


def training() -> xr.Dataset:
    """Of a training: two initialisers, the second of which learns."""
    rise = np.stack([np.full((4, 2), 0.1), np.linspace(0.1, 0.9, 4)[:, None].repeat(2, 1)])
    dims = ("init", "activation", "step", "seed")
    score = xr.DataArray(rise[:, None], dims=dims)
    made = {"test_accuracy": score, "test_loss": 1 - score, "train_loss": 1 - score}
    made["log10_forward_q"] = xr.zeros_like(score).expand_dims(layer=3)
    coords = {"init": ["zeros", "he_normal"], "activation": ["relu"], "step": [0, 9, 18, 27]}
    return xr.Dataset(made, coords | {"epoch": ("step", range(4))})


def stream() -> xr.Dataset:
    """Of a residual network whose branches add 1 to a stream of 1, with half of it in the mean."""
    q = np.log10(1 + LAYERS)
    branch = np.where(LAYERS == 0, np.nan, 0.0)
    made = {"log10_forward_q": q, "log10_forward_variance": q + np.log10(0.5)}
    dims = ("seed", "layer")
    made = {
        name: (dims, values[None]) for name, values in (made | {"log10_branch_q": branch}).items()
    }
    return xr.Dataset(made, {"seed": [0], "layer": LAYERS})


RECORDS = {
    "learning": training,
    "curves": sweep,
    "map": sweep,
    "variance": lambda: sweep().isel(init=0, activation=0),
    "histograms": histograms,
    "ridge": histograms,
    "exponents": histograms,
    "phase": plane,
    "stream": stream,
    "film": training,
    "widths": widths,
}
PICTURES = [name for name in RECORDS if kinds.KINDS[name].still]


def run(*args) -> int:
    with pytest.raises(SystemExit) as left:
        command.main(["plot", *map(str, args)])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file for each kind of record."""
    folder = tmp_path_factory.mktemp("records")
    return {name: pp.save(make(), folder / f"{name}.nc") for name, make in RECORDS.items()}


def test_there_is_a_record_for_every_kind():
    assert set(RECORDS) == set(kinds.KINDS)
    assert tuple(kinds.KINDS) == verb.NAMES


@pytest.mark.parametrize("kind", PICTURES)
def test_a_record_is_drawn_from_the_shell(kind, saved, tmp_path):
    assert run(saved[kind], "--kind", kind, "-o", tmp_path / "a.png") == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["learning", "curves", "map", "variance", "film"])
@pytest.mark.parametrize("gone", [0, 1])
def test_a_record_of_an_interrupted_run_is_drawn(kind, gone, saved, tmp_path):
    """What was not measured is NaN; matplotlib fails to space markers along such a curve."""
    whole = sweep() if kind == "variance" else pp.load(saved[kind])
    record = whole.copy(deep=True)
    for name in record.data_vars:
        record[name] = record[name].where(record["init"] != record["init"][gone])
    ending = kinds.KINDS[kind].formats[0]
    saved = pp.save(record, tmp_path / "record.partial.nc")
    assert run(saved, "--kind", kind, "-o", tmp_path / f"a.{ending}") == 0
    if kind in ("learning", "curves", "variance"):
        kept = {str(name) for k, name in enumerate(record["init"].values) if k != gone}
        shown = kinds.drawn(record, kind)
        shown.canvas.draw()
        legends = [*shown.legends, *(ax.get_legend() for ax in shown.axes if ax.get_legend())]
        words = {t.get_text().split(",")[0] for one in legends for t in one.get_texts()}
        assert words & {str(name) for name in record["init"].values} == kept


def test_a_record_of_a_run_that_measured_nothing_is_told(tmp_path, capfd):
    empty = pp.save(sweep() * np.nan, tmp_path / "record.partial.nc")
    assert run(empty) == 2
    assert "nothing in this record can be drawn" in capfd.readouterr().err
    assert "nothing was measured" in {
        text.get_text() for text in pp.plot.curves(sweep() * np.nan).legends[0].get_texts()
    }


@pytest.mark.parametrize(
    ("form", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89P")]
)
def test_a_picture_has_the_format_that_is_asked_for(form, start, saved, tmp_path):
    record = pp.save(sweep().isel(init=[0]), tmp_path / "own.nc")
    assert run(record, "--kind", "variance", "--format", form, "--style", "paper") == 0
    assert (tmp_path / f"own_variance.{form}").read_bytes().startswith(start)
    assert run(record, "--out", tmp_path / f"b.{form}") == 0
    assert (tmp_path / f"b.{form}").read_bytes().startswith(start)


def test_a_film_of_a_training_has_a_frame_for_each_epoch(saved, tmp_path):
    from PIL import Image

    assert run(saved["film"], "--kind", "film", "-o", tmp_path / "a.gif") == 0
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.format, film.n_frames) == ("GIF", 4)


def test_a_film_as_mp4_without_its_program_is_told(saved, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(kinds.writers, "is_available", lambda name: False)
    assert run(saved["film"], "--kind", "film", "-o", tmp_path / "a.mp4") == 3
    assert "a film as mp4 needs ffmpeg, which is not installed" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", RECORDS)
def test_the_first_kind_that_suits_is_drawn_by_default(kind, saved):
    record = pp.load(saved[kind])
    others = dict.fromkeys(("histograms", "ridge", "exponents", "stream"), "variance")
    others |= {"map": "curves", "film": "learning"}
    assert kinds.suiting(record) == others.get(kind, kind)
    assert kinds.suiting(record) == kinds.suitable(record)[0]


@pytest.mark.parametrize(
    ("record", "args", "message"),
    [
        ("variance", ["--kind", "map"], "map needs a sweep; this record can be drawn as variance"),
        ("curves", ["--kind", "phase"], "can be drawn as curves, map, variance"),
        ("phase", ["--kind", "curves"], "curves needs a sweep; this record can be drawn as phase"),
        ("curves", ["--kind", "mapp"], "no picture is called 'mapp': this record can be drawn as"),
        ("curves", ["--init", "hee"], "--init must be of he, normal, got hee"),
        ("variance", ["--init", "he"], "--init has no effect on a record without dim init"),
        ("curves", ["--direction", "forward"], "--direction has no effect on the picture curves"),
        ("map", ["--kind", "map", "--ylim", "0", "1"], "--ylim has no effect on the picture map"),
        ("curves", ["--ylim", "1", "0"], "--ylim needs two numbers, the lower first"),
        ("curves", ["-o", "a.jpg"], "FILE of curves must end in one of png, svg, pdf, or --format"),
        ("curves", ["--format", "gif"], "or --format say it, got the format gif"),
        ("film", ["--kind", "film", "-o", "a.png"], "FILE of film must end in one of gif, mp4"),
        ("film", ["--kind", "film", "--title", "a"], "--title has no effect on the picture film"),
    ],
)
def test_mistakes_are_told_in_one_line(record, args, message, saved, capfd):
    assert run(saved[record], *args) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_record_of_nothing_says_what_is_needed():
    with pytest.raises(pp.UnusableInput, match="nothing in this record can be drawn"):
        kinds.suiting(xr.Dataset({"x": ("layer", [1.0])}))


def test_many_pairings_are_not_drawn_on_one_axis():
    many = sweep().reindex(init=["he", *map(str, range(kinds.MOST_CURVES))])
    assert kinds.suitable(many) == ["curves", "map"]


def test_titles_labels_and_limits_are_ones_own():
    words = {"title": "mine", "xlabel": "depth", "ylabel": "size", "ylim": (-3.0, 2.0)}
    (ax,) = kinds.drawn(RECORDS["variance"](), "variance", **words).axes
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("mine", "depth", "size")
    assert ax.get_ylim() == (-3.0, 2.0)
    figure = kinds.drawn(sweep(), "curves", **words)
    assert figure.get_suptitle() == "mine"
    assert {ax.get_title() for ax in figure.axes} == {"relu", "tanh", ""}
    assert {ax.get_ylim() for ax in figure.axes} == {(-3.0, 2.0)}
    assert [ax.get_ylabel() for ax in figure.axes] == ["size", "", "size", ""]
    figure = kinds.drawn(plane(), "phase", title="mine")
    assert figure.axes[0].get_title() == "mine" and not figure.get_suptitle()


def test_one_direction_alone():
    record = sweep()
    titles = [ax.get_title() for ax in kinds.drawn(record, "map", ("backward",)).axes]
    assert [title for title in titles if title] == ["growth of the gradient,\ndecades per layer"]
    assert len([ax for ax in kinds.drawn(record, "map").axes if ax.get_title()]) == 2
    (ax,) = kinds.drawn(record.isel(init=0, activation=0), "variance", ("forward",)).axes
    assert [line.get_label() for line in ax.lines] == ["second moment of h"]


@pytest.mark.parametrize("kind", PICTURES)
def test_on_paper_a_picture_fills_columns_in_eight_points(kind):
    import matplotlib

    with matplotlib.rc_context(STYLES["paper"]):
        figure = kinds.drawn(RECORDS[kind](), kind, style="paper")
        figure.draw_without_rendering()
    assert figure.get_figwidth() == COLUMN_INCHES[kinds.KINDS[kind].columns]
    labels = [ax.xaxis.label for ax in figure.axes if ax.get_xlabel()]
    assert all(label.get_fontsize() == 8 for label in labels)
    width = figure.get_figwidth() * figure.dpi
    for legend in figure.legends:  # below, within the figure, and off the panels
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width
        assert all(box.y1 <= ax.get_window_extent().y0 for ax in figure.axes)
    within = ("map", "histograms", "ridge", "exponents", "phase", "widths")
    assert figure.legends or kind in within


def test_a_finding_is_marked_where_it_is():
    record = transformer(6, q=0.1 * np.arange(44))
    names = record["name"].values.tolist()
    at, between = names.index("blocks.3/add"), names.index("blocks.1.attn.o.kernel")
    found = Findings(
        [
            finding(site=names[at], layer=at),
            finding(Verdict.VANISHING, "backward", site=names[between], layer=between),
            finding(Verdict.COLLAPSING, site="the whole"),
        ]
    )
    ax = marks.mark_findings(variance(record), record, found)
    rings = [line for line in ax.lines if line.get_marker() == "o"]
    assert [ring.get_xydata().tolist() for ring in rings] == [[[3, pytest.approx(2.8)]], [[1, -2]]]
    words = [text.get_text() for text in ax.texts]
    assert words == ["blocks.3/add: dead", "blocks.1.attn.o.kernel: vanishing"]
    assert [colors.to_hex(ring.get_color()) for ring in rings] == ["#0072b2", "#d55e00"]
    healthy = marks.mark_findings(variance(record), record, Findings())
    assert not healthy.texts and not [x for x in healthy.lines if x.get_marker() == "o"]


def test_a_mark_covers_no_curve_where_there_is_room():
    record = transformer(6, q=np.linspace(0, 5, 44))  # the signal rises, the gradient is level
    names = record["name"].values.tolist()
    k = names.index("blocks.5/add")
    found = Findings([finding(site=names[k], layer=k)])
    ax = marks.mark_findings(variance(record), record, found)
    (text,) = ax.texts
    ax.figure.draw_without_rendering()
    box = text.get_window_extent()
    curves = [line for line in ax.lines if len(line.get_xdata()) > 2]
    for line in curves:
        assert not box.count_contains(ax.transData.transform(line.get_xydata()))


def test_a_place_that_is_not_finite_has_no_ring_but_words():
    q = np.where(np.arange(44) < 20, 0.0, -np.inf)
    record = transformer(6, q=q)
    ax = marks.mark_findings(variance(record), record, [finding(site="x", layer=40)])
    assert [text.get_text() for text in ax.texts] == ["x: dead"]
    assert not [line for line in ax.lines if line.get_marker() == "o"]


def test_findings_on_layers_of_one_network_are_marked_too():
    record = RECORDS["variance"]()
    ax = marks.mark_findings(variance(record), record, [finding(layer=4)])
    assert [text.get_text() for text in ax.texts] == ["layer 4: dead"]
