"""The lab without a browser: settings, what is said and drawn of them, and the page's cells.

`tests/benchmarks/lab_in_browser.py` opens the page in Chromium.
"""

import base64
import dataclasses
import re
import subprocess
import sys

import jax
import matplotlib
import numpy as np
import pytest

import propagate as pp
from propagate.cli import command
from propagate.cli.verbs.lab import APP, Lab
from propagate.lab import look, pictures, words
from propagate.lab.app import app
from propagate.lab.presets import PRESETS
from propagate.lab.setting import CHOICES, FAMILIES, MOST, SCALED, Setting, from_address
from propagate.run.dispatch import _compiled

SMALL = Setting(width=32)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_the_setting_of_a_preset_is_one_that_the_controls_can_show(preset):
    assert from_address(preset.setting.address) == preset.setting
    assert preset.setting.network.depth == preset.setting.depth


@pytest.mark.parametrize("name", ["init", "activation", "norm", "dtype", "depth", "width"])
def test_every_choice_makes_a_network(name):
    for value in CHOICES[name]:
        assert dataclasses.replace(Setting(), **{name: value}).network


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_every_family_takes_norm_and_scale(family, scale):
    setting = Setting(family=family, scale=scale, norm="rms", width=32)
    assert str(setting.network.family).startswith(FAMILIES[family].split("(")[0])
    assert ("alpha=0.5" in str(setting.network.family)) == (family in SCALED and scale == 0.5)


@pytest.mark.parametrize(
    "given",
    [
        {"depth": "7"},
        {"depth": "x"},
        {"sigma_w": "nan"},
        {"sigma_w": "1e9"},
        {"seed": "-1"},
        {"family": "cnn"},
        {"access_token": "secret"},
        {"init": ["he_normal", "zeros"]},
    ],
)
def test_what_no_control_shows_is_left_out_of_an_address(given):
    assert from_address(given) == Setting()


def test_an_address_has_what_differs():
    setting = Setting(sigma_w=1.2, activation="formula", formula="tanh(h)/2", seed=3)
    expected = {"sigma_w": "1.2", "activation": "formula", "formula": "tanh(h)/2", "seed": "3"}
    assert setting.address == expected and from_address(expected) == setting


def run(setting: Setting) -> dict:
    """Return what the page's cells define for a setting."""
    return dict(app.run(defs={"setting": setting})[1])


def test_the_verdict_flips_at_the_critical_gain():
    r"""ReLU over 50 layers grows by 50 log10(sigma_w²/2) decades: -7.1, -0.1 and +6.7."""
    words_of = {}
    _compiled.cache_clear()
    for sigma_w in (1.2, 1.41, 1.65):
        found = run(dataclasses.replace(SMALL, sigma_w=sigma_w))
        words_of[sigma_w] = re.findall(r"(Signal|Gradient): (\w+)", found["verdict"])
        assert "**sigma_w = 1.414**" in found["recipe"]
        assert found["curves"].text.count("<svg") == 1 and 'class="here"' in found["phase"].text
        assert "density" in found["histograms"].text
        assert found["point"].sigma_w2 == pytest.approx(sigma_w**2, rel=1e-6)
    both = {1.2: "vanishing", 1.41: "stable", 1.65: "exploding"}
    assert words_of == {k: [("Signal", v), ("Gradient", v)] for k, v in both.items()}
    others = {"activation": "tanh", "sigma_b": 0.3, "seed": 2}
    run(dataclasses.replace(SMALL, **others))
    look.measure(dataclasses.replace(SMALL, init="he_normal"))
    assert _compiled.cache_info().misses == 1  # one program for all of them


def test_the_page_opens_with_every_control_and_a_setting_that_they_show():
    """Of the cells that are no picture: what is measured is given."""
    _, defs = app.run(defs={"record": look.measure(SMALL)})
    assert defs["setting"] == PRESETS["the edge of chaos"].setting
    assert {*defs["controls"].elements} == {field.name for field in dataclasses.fields(Setting)}
    for name, most in MOST.items():
        assert defs["controls"].elements[name].stop == most


def test_a_setting_that_is_none_is_said_and_not_drawn():
    outputs, defs = app.run(defs={"setting": Setting(activation="formula", formula="tanh(h")})
    assert any("a formula must be an expression" in getattr(o, "text", "") for o in outputs)
    assert "curves" not in defs and "verdict" not in defs


def test_a_record_of_ones_own_is_judged_and_drawn(tmp_path):
    net = pp.Network(depth=4, width=8)
    record = pp.measure(net, jax.random.key(0), seeds=2, batch=4, measures=("q",))
    pp.save(record, tmp_path / "record.nc")
    contents = (tmp_path / "record.nc").read_bytes()
    _, defs = app.run(defs={"contents": contents, "setting": SMALL})
    told, drawn = defs["shown"]
    assert "he_normal + relu, forward" in told.text and "<svg" in drawn.text
    np.testing.assert_array_equal(look.opened(contents).log10_forward_q, record.log10_forward_q)
    for wrong in (b"", b"CDF", contents[:200]):
        with pytest.raises(pp.UnusableInput):
            look.opened(wrong)


def circle(point: look.Point) -> np.ndarray:
    drawn = pictures.phase(pp.Network(activation="tanh").activation, point)
    (at,) = re.findall(r'class="here" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    return np.array(at, float)


def test_the_point_lies_where_the_axes_say():
    """Between the corners of the axes, and on their edge if beyond; y is downwards in an SVG."""
    low = circle(look.Point(0.0, 0.0))
    high = circle(look.Point(pictures.SIGMA_W2[1], pictures.SIGMA_B2[1]))
    middle = circle(look.Point(pictures.SIGMA_W2[1] / 2, pictures.SIGMA_B2[1] / 2))
    assert high[0] > low[0] and high[1] < low[1]
    np.testing.assert_allclose(middle, (low + high) / 2, atol=0.11)
    np.testing.assert_array_equal(circle(look.Point(100.0, 7.0)), high)
    drawn = pictures.phase(pp.Network(activation="tanh").activation, look.Point(0.0, 0.0))
    (coded,) = re.findall('base64,([^"]+)', drawn)
    diagram = base64.b64decode(coded).decode()
    frames = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \n?L ([\d.]+) ([\d.]+) ', diagram)
    assert any(np.allclose(np.array(f[:2], float), low, atol=0.06) for f in frames)


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("he_normal", (2.0, 0.0)),
        ("torch", (1 / 3, 1 / (3 * 32))),
        ("critical", (2.0, 0.0)),
        ("orthogonal", (1.0, 0.0)),
    ],
)
def test_named_initialisers_have_their_place_on_the_diagram(init, expected):
    setting = dataclasses.replace(SMALL, init=init)
    np.testing.assert_allclose(look.place(setting, look.measure(setting)), expected, rtol=1e-6)


def test_a_share_is_not_compared_with_the_size_that_theory_expects():
    """PyTorch's own story: inputs become alike while q settles, as theory says of q."""
    setting = dataclasses.replace(PRESETS["PyTorch's defaults"].setting, width=32)
    record, theory = look.measure(setting), look.predict(setting)
    forward = pp.judge(record, theory)[0]
    assert "collapsing" in str(forward) and "q itself is within the band of theory" in str(forward)


def test_other_stacks_have_none_and_the_recipe_says_why():
    assert look.place(Setting(norm="layer"), pp.predict(Setting(norm="layer").network)) is None
    assert "plain stacks" in words.recipe(Setting().network.activation, None)
    softplus = pp.Network(activation="softplus").activation
    for phi in ("selu", "tanh"):  # at q = 0 alone, beside which signals are lost
        said = words.recipe(pp.Network(activation=phi).activation, look.Point(1.0, 0.0))
        assert "sigma_w =" not in said and "`critical`" in said
        assert "q = 0." in words.recipe(
            pp.Network(activation=phi).activation, look.Point(1.0, 0.01)
        )
    assert "No scale keeps the gradient" in words.recipe(softplus, look.Point(1.0, 0.05))


def test_a_family_without_theory_is_measured_alone():
    assert look.predict(PRESETS["Pre-LN"].setting) is None
    assert look.predict(SMALL) is not None


def test_theory_is_asked_once_for_all_seeds():
    assert look.predict(dataclasses.replace(SMALL, seed=5)) is look.predict(SMALL)


def test_a_figure_that_is_kept_draws_what_a_new_one_does(monkeypatch):
    """Whatever it drew before: curves that overflow, an end of the signal, no activation at all."""
    monkeypatch.setitem(matplotlib.rcParams, "svg.hashsalt", "the same for both")
    curves, histograms = pictures.Curves(), pictures.Histograms()
    for other in ({"sigma_w": 2.5, "dtype": "float16"}, {"init": "zeros"}, {"sigma_w": 1.2}, {}):
        setting = dataclasses.replace(SMALL, **other)
        record, theory = look.measure(setting), look.predict(setting)
        assert curves.draw(record, theory) == pictures.Curves().draw(record, theory), other
        for one in (record, without_activation(record)):
            assert histograms.draw(one) == pictures.Histograms().draw(one), other


def without_activation(record):
    return record.assign(log10_activation_q=record.log10_activation_q * np.nan)


def test_layers_without_activation_have_no_histogram():
    record, panels = look.measure(SMALL), pictures.Histograms()
    assert "without an activation" in panels.draw(without_activation(record))
    assert "without an activation" not in panels.draw(record)


def test_a_picture_has_words_for_who_cannot_see_it():
    drawn = pictures.Curves().draw(look.measure(SMALL), look.predict(SMALL))
    assert 'role="img" aria-label="second moment' in drawn and "theory" in drawn


def test_the_page_is_served_to_this_machine_alone_and_with_a_token(tmp_path):
    served = Lab().served
    assert served[served.index("--host") + 1] == "127.0.0.1" and "--token" in served
    assert "--no-token" in Lab(no_token=True).served
    assert Lab(record=tmp_path / "a.nc", port=1234).served[-3:-1] == ["--", "--record"]
    help_ = subprocess.run(
        [sys.executable, "-m", "marimo", "run", "--help"], capture_output=True, text=True
    )
    for option in ("--host", "--token", "--no-token", "--no-sandbox", "--port", "--headless"):
        assert option in help_.stdout
    assert APP.is_file()


def test_without_marimo_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as left:
        command.main(["lab"])
    assert left.value.code == 3 and "propagate-jax[lab]" in capsys.readouterr().err


def test_a_record_that_is_not_there_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["lab", "nowhere.nc"])
    assert left.value.code == 2 and "nowhere.nc" in capsys.readouterr().err
