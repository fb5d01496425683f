"""The command as a user meets it: results, files, exit codes, and every mistake in one line."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import propagate as pp
from propagate.cli import command
from propagate.cli.verbs import predict
from propagate.run.sweep import Interrupted

SMALL = ["--depth", "6", "--width", "16", "--batch", "8", "--seeds", "3"]
GRID = ["--init", "he_normal", "zeros", "--activation", "relu", "tanh"]
FILES = {"record.nc", "summary.json"} | {
    f"{name}.{suffix}" for name in ("curves", "heatmap", "histograms") for suffix in ("png", "svg")
}


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as left:
        command.main(list(args))
    return left.value.code


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A small sweep with everything on: its folder, its output and its exit code."""
    out = tmp_path_factory.mktemp("sweep") / "deeper" / "out"
    command = [sys.executable, "-m", "propagate", "sweep", *SMALL, *GRID, "--out", str(out)]
    env = os.environ | {"NO_COLOR": "1", "COLUMNS": "100"}
    return out, subprocess.run(command, capture_output=True, text=True, env=env)


def test_a_sweep_leaves_record_summary_and_pictures(swept):
    out, done = swept
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == FILES
    assert {line.split("/")[-1] for line in done.stderr.splitlines()} == FILES
    assert pp.load(out / "record.nc").sizes["seed"] == 3
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "heatmap.svg").read_bytes()


def test_a_sweep_prints_verdicts_and_which_initialiser_suits(swept):
    _, done = swept
    assert "symmetric" in done.stdout and "\x1b[" not in done.stdout
    assert "depth 6, width 16, batch 8, 3 seeds, float32" in done.stdout
    assert "Which initialiser suits which activation?" in done.stdout
    for phi in ("relu", "tanh"):
        assert f"\n{phi}: " in done.stdout


def test_the_summary_is_what_the_record_is_judged_to_be(swept):
    out, _ = swept
    summary = json.loads((out / "summary.json").read_text())
    findings = pp.judge(pp.load(out / "record.nc"))
    assert {
        (f["init"], f["activation"], f["direction"], f["verdict"]) for f in summary["findings"]
    } == {(f.init, f.activation, f.direction, f.verdict.value) for f in findings}
    assert summary["provenance"]["network"]["depth"] == 6
    assert summary["suited"] == findings.suited()


def test_json_alone_goes_to_stdout_and_a_seed_repeats(tmp_path, capfd):
    printed = []
    for seed in ("3", "3", "4"):
        args = [*SMALL, *GRID, "--measures", "q", "--no-pictures", "--json", "--seed", seed]
        assert run("sweep", *args, "--out", str(tmp_path)) == 0
        printed.append(json.loads(capfd.readouterr().out)["findings"])
    assert printed[0] == printed[1] != printed[2]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "gaussian"])
def test_the_digits_run_with_every_loss(tmp_path, capfd, loss):
    args = [*SMALL, "--init", "he_normal", "--activation", "relu", "--input", "digits"]
    out = ["--no-pictures", "--measures", "q", "--out", str(tmp_path)]
    assert run("sweep", *args, "--loss", loss, *out) == 0
    record = pp.load(tmp_path / "record.nc")
    assert record.attrs["input"] == "digits" and record.attrs["loss"] == loss
    assert np.isfinite(record.log10_backward_q).all()
    assert json.loads(record.attrs["network"])["input_size"] == 64


def test_a_file_of_ones_own_and_correlated_pairs(tmp_path, capfd):
    np.savez(tmp_path / "rows.npz", x=np.ones((5, 3)), y=np.arange(5))
    few = [*SMALL, "--init", "torch", "--activation", "gelu", "--no-pictures", "--measures", "q"]
    own = ["--input", str(tmp_path / "rows.npz"), "--loss", "cross_entropy"]
    assert run("sweep", *few, *own, "--out", str(tmp_path / "a")) == 0
    assert pp.load(tmp_path / "a" / "record.nc").attrs["batch"] == "5"
    pairs = ["--input", "pairs", "--cosine", "0.9"]
    assert run("sweep", *few, *pairs, "--out", str(tmp_path / "b")) == 0
    assert pp.load(tmp_path / "b" / "record.nc").attrs["cosine"] == "0.9"


@pytest.mark.parametrize(
    "odd", [["--depth", "1", "--batch", "1"], ["--seeds", "1", "--width", "1"]]
)
def test_the_smallest_sizes_run_with_pictures(tmp_path, capfd, odd):
    args = [
        *SMALL,
        "--init",
        "zeros",
        "he_normal",
        "torch",
        "--activation",
        "relu",
        "--measures",
        "max",
    ]
    assert run("sweep", *args, *odd, "--out", str(tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert "log10_backward_q" in pp.load(tmp_path / "record.nc")


def test_every_name_is_listed(capfd):
    assert run("list") == 0
    printed = capfd.readouterr().out
    for name in [*pp.INITIALIZERS, *pp.ACTIVATIONS]:
        assert name in printed


def bad_rows(tmp_path) -> str:
    np.save(tmp_path / "bad.npy", np.full((3, 2), np.nan))
    return str(tmp_path / "bad.npy")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--depth", "0"], 2, "depth must be a whole number of at least 1, got 0"),
        (["--width", "-3"], 2, "width must be a whole number of at least 1, got -3"),
        (["--seeds", "0"], 2, "seeds must be"),
        (["--init", "he_norml"], 2, "did you mean 'he_normal'"),
        (["--activation", "rellu"], 2, "did you mean 'relu'"),
        (["--measures", "median"], 2, "measures must be some of"),
        (["--input", "nowhere.npy"], 2, "there is no file 'nowhere.npy'"),
        (["--input", "BAD"], 2, "6 of 6 values are NaN or infinite, the first at (0, 0)"),
        (["--loss", "mse"], 2, "needs inputs"),
        (["--dtype", "int8"], 2, "dtype must be a floating-point type"),
        (["--cosine", "2", "--input", "pairs"], 2, "cosine must lie in [0, 1], got 2"),
        (["--seed", "9" * 20], 2, "seed must fit in 64 bits"),
        (["--cosine", "0.5"], 2, "--cosine has no effect without --input pairs: leave it out"),
        (["--init"], 2, "--init needs one value or more behind it, or leave it out"),
        (["--activation"], 2, "--activation needs one value or more behind it"),
        (["--measures"], 2, "--measures needs one value or more behind it"),
        (["--depth", "1" + "0" * 30], 2, "depth must be at most 5000000, got 1"),
        (["--seeds", "1" + "0" * 12], 3, "the record of 4 pairings, 1e+12 seeds"),
        (["--device", "tpu"], 3, "--device tpu is not available here (there is: cpu)"),
        (["--width", "2000000", "--depth", "2"], 3, "GB"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, capfd, args, code, message):
    args = [bad_rows(tmp_path) if a == "BAD" else a for a in args]
    assert run("sweep", *SMALL, *GRID, *args, "--out", str(tmp_path / "out")) == code
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("propagate: error: ") and err.count("\n") == 1
    assert message in err
    assert not list((tmp_path / "out").glob("*"))


def test_labels_must_come_with_the_data(tmp_path, capfd):
    np.save(tmp_path / "rows.npy", np.ones((3, 2)))
    args = ["--input", str(tmp_path / "rows.npy"), "--loss", "cross_entropy"]
    assert run("sweep", *SMALL, *args, "--out", str(tmp_path / "out")) == 2
    assert "loss 'cross_entropy' needs labels" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(
        "propagate.cli.verbs.sweep.sweep", lambda *a, **k: pytest.fail("work was spent")
    )
    (tmp_path / "file").write_text("")
    assert run("sweep", *SMALL, *GRID, "--out", str(tmp_path / "file")) == 3
    assert "choose another folder" in capfd.readouterr().err


def test_what_the_parser_refuses_is_bad_usage(capfd):
    assert run("sweep", "--depth", "many") == 2
    assert run("swoop") == 2


def test_an_interrupted_sweep_saves_what_it_has(tmp_path, capfd, monkeypatch):
    def stopped(*args, **options):
        partial = pp.measure(pp.Network(2, 4), options["key"], seeds=1, batch=2, measures="q")
        raise Interrupted(partial, 1, 9)

    monkeypatch.setattr("propagate.cli.verbs.sweep.sweep", stopped)
    assert run("sweep", *SMALL, *GRID, "--out", str(tmp_path)) == 130
    assert "stopped after 1 of 9 blocks" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["record.partial.nc"]
    assert pp.load(tmp_path / "record.partial.nc").sizes["layer"] == 3


def test_no_progress_bar_without_a_terminal(swept):
    _, done = swept
    assert all(line.startswith("propagate: wrote") for line in done.stderr.splitlines())


def test_predict_prints_theory_beside_a_measurement(tmp_path, capsys):
    size = ["--depth", "5", "--width", "64", "--batch", "16", "--seeds", "4"]
    out = tmp_path / "deeper" / "out"
    assert run("predict", "--activation", "tanh", "--out", str(out), *size) == 0
    shown = capsys.readouterr().out
    assert "gain of tanh: 1.59254" in shown
    assert "sigma_w² = 1.7609546" in shown
    assert {path.name for path in out.iterdir()} == {"theory.nc", "record.nc", "overlay.png"}
    assert pp.load(out / "theory.nc").log10_forward_q_sd.shape == (6,)


def test_predict_in_json_and_without_a_critical_point(capsys):
    assert (
        run("predict", "--activation", "softplus", "--depth", "3", "--width", "16", "--json") == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert summary["critical"] == []
    assert "no q gives that" in summary["reason"]
    assert len(summary["theory"]["log10_backward_q"]) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["model.py:build", "--depth", "3"], "--depth has no effect on TARGET, which is your own"),
        (["model.py:build", "--sigma-b2", "0.1"], "--sigma-b2 has no effect on TARGET"),
        (["model.py:build", "--family", "rnn"], "--family has no effect on TARGET"),
        (["--vmap"], "--vmap has no effect without TARGET: leave it out"),
        (["--kwargs", '{"train": true}'], "--kwargs has no effect without TARGET"),
        (["--mode", "inference"], "--mode has no effect without TARGET"),
        (["--seed", "3"], "--seed has no effect without --seeds"),
        (["--seeds", "-1"], "--seeds must be a whole number of at least 0, got -1"),
    ],
)
def test_an_option_of_predict_that_has_no_effect_is_refused(tmp_path, capsys, args, message):
    assert run("predict", *args, "--out", str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_option_of_predict_is_of_a_stack_of_a_model_or_of_both():
    names = {field.name for field in dataclasses.fields(predict.Predict)}
    both = names - set(predict.OF_A_STACK) - set(predict.OF_A_MODEL)
    assert both == {"target", "seed", "out", "json"}
    assert {*predict.OF_A_STACK, *predict.OF_A_MODEL} <= names


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--points", "1", "1"], "each number of --points must be a whole number of at least 2"),
        (["--points", "100000", "100000"], "takes about 1.28e+03 GB, more than 4 GB: take fewer"),
        (["--measured", "-1"], "--measured must be a whole number of at least 0, got -1"),
        (["--measured", "100000"], "--measured, of which the square is the number of networks,"),
        (["--depth", "9"], "--depth has no effect without --measured: leave it out"),
    ],
)
def test_a_phase_diagram_that_cannot_be_drawn_leaves_nothing(tmp_path, capsys, args, message):
    assert run("phase", *args, "--out", str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_name_of_an_initialiser_is_run_once_and_said(tmp_path, capfd):
    names = ["--init", "he_normal", "kaiming_normal", "he_normal", "--activation", "relu"]
    out = ["--measures", "q", "--no-pictures", "--out", str(tmp_path)]
    assert run("sweep", *SMALL, *names, *out) == 0
    told = capfd.readouterr().err
    assert "kaiming_normal is another name of he_normal, which is run once" in told
    assert pp.load(tmp_path / "record.nc")["init"].values.tolist() == ["he_normal"]
    with pytest.raises(pp.UnusableInput, match="such as he_normal and kaiming_normal"):
        pp.sweep(pp.Network(2, 4), key=jax.random.key(0), init=["he_normal", "kaiming_normal"])


def test_labels_without_a_loss_are_told(tmp_path, capfd):
    np.savez(tmp_path / "rows.npz", x=np.ones((5, 3)), y=np.arange(5))
    few = [*SMALL, "--init", "torch", "--activation", "gelu", "--no-pictures", "--measures", "q"]
    own = ["--input", str(tmp_path / "rows.npz"), "--out", str(tmp_path)]
    assert run("sweep", *few, *own) == 0
    assert "rows.npz have no effect without --loss" in capfd.readouterr().err
    with pytest.raises(pp.UnusableInput, match="labels have no effect with loss 'gaussian'"):
        x, key = np.ones((5, 3)), jax.random.key(0)
        pp.measure(pp.Network(2, 3), key, inputs=x, labels=np.arange(5))


def test_what_theory_does_not_cover_is_a_usage_error(capsys):
    assert run("predict", "--init", "lsuv") == 2
    assert "not covered by theory" in capsys.readouterr().err


def test_a_command_keeps_what_it_compiles_in_the_users_cache_unless_told_not_to(tmp_path):
    """And a second one reads it: it adds no program."""

    def programs(*options: str) -> set[str]:
        shared = "JAX_COMPILATION_CACHE_DIR"  # the suite's own, which a command would use
        own = {name: value for name, value in os.environ.items() if name != shared}
        line = [sys.executable, "-m", "propagate", "sweep", "--init", "zeros", "--measures", "q"]
        line += ["--activation", "relu", "--depth", "1", "--width", "1", "--seeds", "1"]
        command = [*line, "--no-pictures", "--out", str(tmp_path / "out"), *options]
        own["XDG_CACHE_HOME"] = str(tmp_path)
        done = subprocess.run(command, capture_output=True, text=True, env=own)
        assert done.returncode == 0, done.stderr
        return {path.name for path in (tmp_path / "propagate").glob("*-cache")}

    assert not programs("--no-cache")
    first = programs()
    assert first and programs() == first
