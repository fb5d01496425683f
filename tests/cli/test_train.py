"""`propagate train`: what it prints and leaves, interrupted or not, and what it refuses."""

import json

import numpy as np
import pytest

import propagate as pp
from propagate.cli import command
from propagate.cli.verbs import train as verb

TINY = ["--depth", "2", "--width", "8", "--epochs", "2", "--seeds", "1", "--learning-rate", "0.1"]


@pytest.fixture
def rows(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    path = tmp_path / "rows.npz"
    np.savez(path, x=x, y=(x[:, 0] > 0).astype(int))
    return path


def run(*args: object) -> int:
    with pytest.raises(SystemExit) as left:
        command.main(["--no-cache", "train", *TINY, *map(str, args)])
    return left.value.code


def test_folds_of_own_rows_leave_a_record_a_summary_and_a_picture(rows, tmp_path, capfd):
    out = tmp_path / "out"
    page = out / "report.html"
    options = ["--init", "he_normal", "zeros", "--activation", "tanh", "--batch", "8", "--json"]
    options += ["--report", page]
    out.mkdir()
    (out / "record.partial.nc").touch()
    assert run("--data", rows, "--folds", 3, "--out", out, *options) == 0
    told = json.loads(capfd.readouterr().out)
    assert {one["init"] for one in told["outcomes"]} == {"he_normal", "zeros"}
    assert [one["runs"] for one in told["outcomes"]] == [3, 3]
    assert told["provenance"]["input"] == "rows.npz" and told["provenance"]["rows"] == 30
    assert not (out / "record.partial.nc").exists()  # what was left by an interrupted run
    files = {"record.nc", "summary.json", "curves.png", "curves.svg", "report.html"}
    assert {path.name for path in out.iterdir()} == files
    record = pp.load(out / "record.nc")
    shown = page.read_text()
    assert "Outcomes" in shown and "zeros + tanh" in shown and "held-out score" in shown
    assert pp.judge(record)[0].init == "he_normal"  # as it was before the first step
    assert record.sizes["fold"] == 3 and record.test_accuracy.notnull().all()
    assert json.loads((out / "summary.json").read_text())["outcomes"] == told["outcomes"]


def test_an_interruption_keeps_what_was_reached(tmp_path, monkeypatch, capfd):
    def stopped(net, **options):
        raise pp.Interrupted(
            pp.measure(net, options["key"], seeds=1, batch=2, measures="q"), 3, 8, "epochs"
        )

    monkeypatch.setattr(verb, "train", stopped)
    assert run("--out", tmp_path) == 130
    assert "stopped after 3 of 8 epochs; what was reached is in" in capfd.readouterr().err
    assert (tmp_path / "record.partial.nc").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", "1"], "folds must be a whole number of at least 2, got 1"),
        (["--folds", "31"], "folds must be at most 30, got 31"),
        (["--folds", "2", "--held-out", "0.5"], "leave held_out away"),
        (["--init"], "--init needs one value or more"),
        (["--batch", "64"], "must be at most 24, got 64"),
        (["--data", "nowhere.npz"], "data must be digits, or an .npz file with inputs and labels;"),
        (["--family", "residual"], "as many outputs as inputs: use width 4, got width 8"),
    ],
)
def test_a_bad_option_is_one_line(options, said, rows, tmp_path, capfd):
    data = [] if "--data" in options else ["--data", rows]
    assert run("--out", tmp_path / "out", *data, *options) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("propagate: error: ") and said in line


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((30, 2))}, "needs labels"),
        ({"x": np.zeros((30, 2)), "y": np.array(["a"] * 30)}, "labels must be numbers"),
        ({"x": np.zeros((30, 2)), "y": np.zeros(29)}, "30 inputs need as many labels"),
    ],
)
def test_unusable_rows_are_one_line(arrays, said, tmp_path, capfd):
    np.savez(tmp_path / "bad.npz", **arrays)
    assert run("--data", tmp_path / "bad.npz", "--out", tmp_path / "out") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
