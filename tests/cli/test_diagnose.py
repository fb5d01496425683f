"""`propagate diagnose` as a user meets it: a file of one's own, verdicts, exit codes, mistakes."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from propagate.cli import command, user_model
from propagate.models.diagnose import diagnose
from propagate.record import storage
from propagate.types import UnusableInput
from propagate.verdicts import findings
from propagate.verdicts.findings import Verdict

MODEL = """
import jax, jax.numpy as jnp
from helper import stack

def net(weights, x, *, slope=0.0):
    for w in weights[:-1]:
        x = jax.nn.leaky_relu(x @ w, slope)
    return x @ weights[-1]

def build():
    print("noise of my own")
    return net, stack(2.0), jax.ShapeDtypeStruct((32, 16), jnp.float32)

def noise(weights, x, train=False):
    return net(weights, x * jax.random.uniform(jax.random.key(0), x.shape) if train else x)

def noisy():
    return noise, stack(2.0), jax.ShapeDtypeStruct((32, 16), jnp.float32)

def shrinking():
    return net, stack(0.2), jax.ShapeDtypeStruct((32, 16), jnp.float32)

def nothing():
    return net, stack(0.0), jax.ShapeDtypeStruct((32, 16), jnp.float32)

def single():
    return (lambda ws, x: net(ws, x[None])[0]), stack(2.0), jnp.ones((32, 16))

def misfit():
    return net, stack(2.0), jnp.ones((4, 3))

def late():
    import beside
    return beside.model, stack(2.0), jnp.ones((4, 16))

def raises():
    return stack({}["scale"])

def leaves():
    raise SystemExit(0)

def alone():
    return net

def needs(x):
    return x

def loops():
    turn = lambda w: lambda state: (state[0] + 1, jnp.tanh(state[1] @ w))
    run = lambda w, x: jax.lax.while_loop(lambda state: state[0] < 3, turn(w), (0, x @ w))[1]
    return run, stack(1.0)[0], jnp.ones((8, 16))

def blind():
    run, w, x = loops()
    return (lambda w, x: jax.lax.while_loop(lambda x: x.sum() < 0, lambda x: x @ w, x)), w, x

def empty():
    return net, stack(2.0), jnp.ones((0, 16))

NUMBER = 3
"""
HELPER = """
import jax

def stack(scale, depth=8, width=16):
    keys = jax.random.split(jax.random.key(0), depth)
    return [jax.random.normal(key, (width, width)) * (scale / width) ** 0.5 for key in keys]
"""
FORGOTTEN = ("helper", "beside", "my_model", "pack", "propagate_target")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a user's files, current; modules are forgotten afterwards."""
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "beside.py").write_text("from my_model import net as model\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "inner.py").write_text("from .other import *\n")
    (tmp_path / "pack" / "other.py").write_text("from my_model import *\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] in FORGOTTEN]:
        del sys.modules[name]


def run(*args: str, verb: str = "diagnose") -> int:
    with pytest.raises(SystemExit) as left:
        command.main([verb, *args])
    return left.value.code


def test_a_healthy_model_has_a_table_no_findings_and_exit_code_0(here, capfd):
    path = list(sys.path)
    assert run("my_model.py:build", "--fail-on", "vanishing,dead", "--out", "new/r.nc") == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1].startswith("healthy: no findings at ")
    assert "noise" not in out and "noise of my own" in err
    assert "wrote new/r.nc" in err and "site" in storage.load("new/r.nc").dims
    assert sys.path == path


def test_the_mode_is_chosen_and_said(here, capfd):
    for args, mode in (([], "training"), (["--mode", "inference"], "inference")):
        assert run("my_model.py:noisy", *args) == 0
        head = capfd.readouterr().out.splitlines()[0].rstrip()
        assert head == f"rms at each site of noise, {mode} mode"
        assert run("my_model.py:noisy", *args, "--json") == 0
        assert json.loads(capfd.readouterr().out)["provenance"]["mode"] == mode
        assert run("my_model.py:noisy", *args, verb="predict") == 0
        assert f"of noise, {mode} mode" in capfd.readouterr().out.splitlines()[0]
    own = ["--mode", "training", "--kwargs", '{"train": false}']
    assert run("my_model.py:noisy", *own) == 2
    assert "its own switch says inference: leave it out" in capfd.readouterr().err


def test_a_repair_is_a_table_a_sentence_and_lines_of_code(here, capfd):
    """Below what is said without it; a healthy model has nothing to repair."""
    assert run("my_model.py:shrinking", "--repair") == 0
    out = capfd.readouterr().out
    assert "forward: vanishing (" in out and "what was changed of net" in out
    assert "7 parameters changed: forward -0.878" in out
    assert out.splitlines()[-1].startswith("params[7] = ")
    assert run("my_model.py:shrinking", "--repair", "--json") == 0
    told = json.loads(capfd.readouterr().out)["repair"]
    assert sorted(told["multipliers"]) == [str(k) for k in range(1, 8)] and not told["reasons"]
    assert max(abs(rate) for rate in told["growth_after"].values()) < 0.1
    assert run("my_model.py:build", "--repair") == 0
    assert "nothing to repair" in capfd.readouterr().out
    assert run("my_model.py:build", "--repair", "--only", "x") == 2
    assert "--only has no effect beside --repair" in capfd.readouterr().err


def test_findings_are_sentences_below_the_table_and_fail_on_request(here, capfd):
    assert run("my_model.py:shrinking") == 0
    *_, first, second, change, other = capfd.readouterr().out.splitlines()
    assert "forward: vanishing (" in first + second and "backward: vanishing (" in first + second
    for line in (change, other):
        assert line.startswith("→ ") and "multiply the 8 weights from 0 to 7 by" in line
    assert run("my_model.py:shrinking", "--fail-on", "dead, exploding") == 0
    assert run("my_model.py:shrinking", "--fail-on", "dead", "--fail-on", "vanishing") == 1


def test_the_users_own_lines_come_after_the_findings(here, capfd):
    assert run("my_model.py:build", "--source") == 0
    table, _, lines = capfd.readouterr().out.partition("no findings")
    assert "leaky_relu(x @ w" in lines and "leaky_relu(x @ w" not in table


def test_json_alone_goes_to_stdout_and_says_what_the_record_says(here, capfd):
    assert run("my_model.py:nothing", "--json", "--fail-on", "dead", "--seed", "5") == 1
    found = json.loads(capfd.readouterr().out, parse_constant=pytest.fail)
    assert set(found) == {"provenance", "findings", "unopened", "changes", "sites", "advice"}
    assert found["changes"] is None and found["unopened"] == []
    assert found["provenance"]["jax"] == jax.__version__
    with user_model.built("my_model.py:nothing") as (model, *inputs):
        expected = diagnose(model, *inputs, key=jax.random.key(5)).record
    assert [site["name"] for site in found["sites"]] == list(expected["name"].values)
    for name in ("log10_forward_q", "log10_backward_q", "forward_mean"):
        numbers = np.array([site[name] for site in found["sites"]], float)
        finite = np.where(np.isfinite(expected[name].values), expected[name].values, np.nan)
        np.testing.assert_array_equal(numbers, finite)
    assert {"dead"} == {finding["verdict"] for finding in found["findings"]}


def test_what_was_not_opened_is_told_once(here, capfd):
    assert run("my_model.py:loops") == 0
    assert capfd.readouterr().out.count("was not opened, 1 matrix product inside") == 1
    assert run("my_model.py:loops", "--json") == 0
    first, *_ = json.loads(capfd.readouterr().out)["unopened"]
    assert " at my_model.py:50 was not opened, 1 matrix product inside" in first


def test_words_are_whole_where_there_is_no_terminal(here, capfd, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    assert run("my_model.py:shrinking") == 0
    assert "…" not in capfd.readouterr().out


def test_options_reach_the_diagnosis(here, monkeypatch, capfd):
    given = {}

    def instead(model, *inputs, **options):
        given.update(options)
        return diagnose(model, *inputs, key=options["key"])

    monkeypatch.setattr("propagate.cli.user_model.diagnose", instead)
    keywords = ["--kwargs", '{"slope": 0.5}', "--sites", "all", "--only", "*.kernel"]
    args = ["my_model.py:build", *keywords, "--vmap", "--seed", "7", "--json"]
    assert run(*args, "--measures", "mean", "variance") == 0
    assert jnp.array_equal(
        jax.random.key_data(given.pop("key")), jax.random.key_data(jax.random.key(7))
    )
    assert given == {
        "kwargs": {"slope": 0.5},
        "vmap": True,
        "training": None,
        "measures": ("mean", "variance"),
        "sites": "all",
        "only": "*.kernel",
    }


def test_a_model_of_one_input_is_mapped(here, capfd):
    assert run("my_model.py:single", "--vmap", "--json") == 0
    assert run("my_model.py:single", "--only", "nothing*") == 2
    assert "matches no site" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["my_model:build", "pack.inner:build", "./my_model.py:late"])
def test_a_target_is_a_file_or_a_module_from_here(here, name):
    path = list(sys.path)
    with user_model.built(name) as (model, _, inputs):
        assert callable(model) and inputs.shape[1] == 16
    assert sys.path == path


def test_a_baseline_is_written_then_compared_with(here, capfd):
    kept = ["--baseline", "kept.json"]
    assert run("my_model.py:build", "--json", *kept) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["changes"] is None and "wrote kept.json" in err
    before = (here / "kept.json").read_text()

    assert run("my_model.py:build", "--json", *kept, "--tolerance", "1e-3") == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["changes"] == [] and "kept.json" not in err

    assert run("my_model.py:shrinking", *kept) == 1
    told = capfd.readouterr().out.splitlines()[-14:]  # 7 steps, both ways
    assert all("slope at " in line and line.endswith(" decades per layer") for line in told)
    assert {line.split()[0] for line in told} == {"signal", "gradient"}
    assert run("my_model.py:shrinking", "--json", *kept, "--tolerance", "3") == 0
    assert (here / "kept.json").read_text() == before


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nowhere.py:build"], 2, "there is no file 'nowhere.py'"),
        (["nowhere:build"], 2, "there is no module 'nowhere' in the current directory"),
        (["pack.nowhere:build"], 2, "there is no module 'pack.nowhere'"),
        (["my_model.py"], 2, "TARGET must be FILE.py:FUNCTION or package.module:FUNCTION"),
        (["my_model.py:"], 2, "TARGET must be"),
        (["my-model:build"], 2, "TARGET must be"),
        (["my_model.py:biuld"], 2, "no function 'biuld': did you mean 'build'? It has net, build,"),
        (["my_model.py:NUMBER"], 2, "my_model.py has no function 'NUMBER'"),
        (["my_model.py:raises"], 2, "raises() raised KeyError at my_model.py:37: 'scale'"),
        (["my_model.py:leaves"], 2, "leaves() raised SystemExit at my_model.py:40: 0"),
        (["my_model.py:alone"], 2, "alone() must return a tuple (model, *inputs)"),
        (["my_model.py:needs"], 2, "needs() raised TypeError: needs() missing 1 required"),
        (["my_model.py:misfit"], 3, "running the model raised TypeError at my_model.py:7: "),
        (["pack/inner.py:build"], 2, "relative import with no known parent package; name it as"),
        (["my_model.py:blind"], 3, "while at my_model.py:55 was not opened, 1 matrix product"),
        (
            ["my_model.py:blind", "--json", "--fail-on", "dead"],
            3,
            "depends on the inputs, got none",
        ),
        (["my_model.py:empty"], 2, "the batch must hold at least one input along axis 0"),
        (["my_model.py:build", "--fail-on", "vanshing"], 2, "did you mean 'vanishing'"),
        (
            ["my_model.py:build", "--fail-on", "dead,,none"],
            2,
            "The names are overflowed, non-finite, symm",
        ),
        (["my_model.py:build", "--kwargs", "{train: true}"], 2, "--kwargs must be JSON, got"),
        (["my_model.py:build", "--kwargs", "[1]"], 2, "--kwargs must be a JSON object"),
        (
            ["my_model.py:build", "--tolerance", "-1", "--baseline", "none.json"],
            2,
            "--tolerance must be decades per layer",
        ),
        (["my_model.py:build", "--tolerance", "1"], 2, "--tolerance has no effect without --base"),
        (["my_model.py:build", "--fail-on", ""], 2, "--fail-on needs one verdict or more behind"),
        (["my_model.py:build", "--fail-on", " , "], 2, "--fail-on needs one verdict or more"),
        (["my_model.py:build", "--measures"], 2, "--measures needs one value or more behind it"),
        (["my_model.py:build", "--json", "--source"], 2, "--source has no effect beside --json"),
        (["my_model.py:build", "--mode", "inference"], 2, "it has no switch that is known here"),
        (["my_model.py:build", "--seed", "9" * 20], 2, "seed must fit in 64 bits"),
        (["my_model.py:build", "--measures", "median"], 2, "measures must be some of"),
        (["my_model.py:build", "--baseline", "my_model.py"], 2, "is not a baseline of propagate"),
        (["my_model.py:build", "--json", "--out", "my_model.py/r.nc"], 3, "choose another folder"),
    ],
)
def test_a_mistake_is_one_line(here, capfd, args, code, message):
    assert run(*args) == code
    *noise, told = capfd.readouterr().err.splitlines()
    assert told.startswith("propagate: error: ") and message in told
    assert set(noise) <= {"noise of my own"}


def test_verdicts_are_named_by_words_or_members():
    assert findings.verdicts([]) == frozenset()
    every = findings.verdicts([",".join(v.value for v in Verdict)])
    assert every == set(Verdict) == findings.verdicts(Verdict)
    for word in ("vanishing_3", "vanishing(2)", "?"):
        with pytest.raises(UnusableInput, match="verdict"):
            findings.verdicts([word])


def test_theory_of_ones_own_model_stands_beside_its_measurement(here, capfd):
    assert run("my_model.py:build", "--out", "new", verb="predict") == 0
    out, err = capfd.readouterr()
    assert "noise" not in out and "noise of my own" in err
    assert "→ expected" in out and "← residual" in out
    assert "forward: theory covers 15 of 15 sites; measured less expected: median 0." in out
    assert {path.name for path in (here / "new").iterdir()} == {
        "theory.nc",
        "record.nc",
        "overlay.png",
    }
    kept, measured = storage.load("new/theory.nc"), storage.load("new/record.nc")
    off = measured.log10_forward_q.values - kept.log10_forward_q.values
    np.testing.assert_allclose(kept.log10_forward_residual, off, atol=1e-6)


def test_theory_of_ones_own_model_in_json_and_without_a_gradient(here, capfd):
    assert run("my_model.py:loops", "--json", verb="predict") == 0
    found = json.loads(capfd.readouterr().out, parse_constant=pytest.fail)
    assert found["backward"] == "backward: theory covers 0 of 1 sites"
    assert set(found) == {"theory", "forward", "backward", "sites"}
    assert run("my_model.py:blind", "--json", verb="predict") == 3
    assert "depends on the inputs, got none" in capfd.readouterr().err
    assert run("my_model.py:needless", verb="predict") == 2
    assert "needless" in capfd.readouterr().err
