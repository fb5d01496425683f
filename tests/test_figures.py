"""The gallery: every script draws at reduced size and its numbers hold; a wrong one is told."""

from pathlib import Path

import pytest

from propagate.cli import command
from propagate.cli.verbs import figures, sweep
from propagate.types import PropagateError, UnusableInput

FOLDER = Path(__file__).parent.parent / "figures"
SCRIPTS = figures.scripts(FOLDER)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_numbers_hold_at_reduced_size(script):
    assert figures.run(script, small=True) is None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_has_its_picture(script):
    assert len(script.read_text().splitlines()) <= 50
    assert script.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_what_a_user_can_write(script):
    """Of the package it imports the public face alone."""
    lines = [line for line in script.read_text().splitlines() if "import" in line]
    ours = [line for line in lines if "propagate" in line.split("import")[0] + line.split()[1]]
    assert ours == ["import propagate as pp"]


def test_the_map_shows_the_default_sweep():
    shown = figures.load(FOLDER / "which_suits_which.py")
    assert (shown.INITS, shown.PHIS) == (sweep.INITS, sweep.PHIS)


def test_a_number_that_does_not_hold_is_told_and_nothing_is_written(tmp_path):
    (tmp_path / "wrong.py").write_text("def draw(small):\n    assert 1 == 2, 'one is 1.000'\n")
    with pytest.raises(PropagateError, match=r"wrong.py: a number does not hold: one is 1.000"):
        figures.run(tmp_path / "wrong.py")
    assert not list(tmp_path.glob("*.png"))


def test_a_picture_is_written_beside_its_script(tmp_path):
    lines = [
        "from matplotlib.figure import Figure",
        "def draw(small):",
        "    return Figure((1, 1))",
    ]
    (tmp_path / "tiny_one.py").write_text("\n".join(lines))
    with pytest.raises(SystemExit) as left:
        command.main(["figures", "tiny-one", "--folder", str(tmp_path), "--format", "png", "svg"])
    assert left.value.code == 0
    assert (tmp_path / "tiny_one.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "tiny_one.svg").read_bytes()


def test_other_scripts_of_a_folder_are_left_out_and_not_run(tmp_path, capfd):
    (tmp_path / "draws.py").write_text("def draw(small):\n    pass\n")
    others = {
        "train.py": "raise SystemExit('it was run')",
        "draw_large.py": "def draw(large):\n    raise SystemExit",
        "broken.py": "def draw(small:",
    }
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as left:
        command.main(["figures", "--small", "--folder", str(tmp_path)])
    assert left.value.code == 0
    first, second = capfd.readouterr().err.splitlines()
    assert first.endswith("no function draw(small): broken.py, draw_large.py, train.py")
    assert "draws: numbers hold" in second
    with pytest.raises(UnusableInput, match="unknown figure 'train'"):
        figures.scripts(tmp_path, ["train"])


def test_an_unknown_figure_gets_the_nearest_name():
    with pytest.raises(UnusableInput, match="did you mean 'he-30'"):
        figures.scripts(FOLDER, ["he-31"])


def test_a_folder_without_scripts_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="no figure scripts"):
        figures.scripts(tmp_path)
