"""`propagate report`, and `--report` of the verbs that measure: the page of a run."""

import re
import shlex
from typing import Any, cast

import pytest

import propagate as pp
from propagate.cli import command
from propagate.models.diagnose import Diagnosis
from propagate.record.provenance import of_command, provenance

MODEL = """
import jax
import jax.numpy as jnp

def model(params, x):
    for w in params["layers"]:
        x = jnp.tanh(x @ w)
    return x

def build():
    return model, {"layers": [0.01 * jnp.eye(4)] * 9}, jnp.ones((8, 4))
"""


def run(*args) -> int:
    with pytest.raises(SystemExit) as left:
        command.main([*map(str, args)])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory):
    """The folder of a diagnosis with a report, and the command that made it."""
    folder = tmp_path_factory.mktemp("diagnosed")
    (folder / "net.py").write_text(MODEL)
    files = ["--out", str(folder / "net.nc"), "--report", str(folder / "net.html")]
    args = ["diagnose", f"{folder / 'net.py'}:build", *files]
    assert run(*args) == 0
    return folder, shlex.join(["propagate", *args])


def test_a_diagnosis_leaves_a_report(diagnosed):
    folder, made_by = diagnosed
    text = (folder / "net.html").read_text("utf-8")
    assert "faults at 18 sites</h1>" in text and "vanishing" in text
    assert "x = jnp.tanh(x @ w)" in text  # the user's own line
    assert "∇/w the rms of the gradient" in text and "branch/skip the ratio" not in text
    assert re.search('id="verdict".*vanishing</strong>.*decades.*id="recipe"', text, re.DOTALL)
    assert re.search("vanishing</strong> at <code>[^:]*: [^:]*It needs a larger scale", text)
    assert "What would help most</h2>" in text and "predicted: " in text
    assert f"<pre><code>{made_by}</code></pre>" in text
    assert pp.load(folder / "net.nc").attrs["command"] == made_by


def test_a_saved_record_has_the_same_page(diagnosed, tmp_path):
    folder, _ = diagnosed
    assert run("report", folder / "net.nc", "-o", tmp_path / "again.html") == 0
    again = (tmp_path / "again.html").read_text("utf-8")
    assert again == (folder / "net.html").read_text("utf-8")
    assert run("report", folder / "net.nc") == 0
    assert (folder / "net.html").read_text("utf-8") == again


def test_a_sweep_leaves_a_report(tmp_path):
    small = ["--depth", "6", "--width", "16", "--batch", "8", "--seeds", "2", "--no-pictures"]
    grid = ["--init", "he_normal", "critical", "--activation", "relu", "tanh", "--measures", "mean"]
    out = ["--out", tmp_path, "--report", tmp_path / "sweep.html"]
    assert run("sweep", *small, *grid, *out) == 0
    text = (tmp_path / "sweep.html").read_text("utf-8")
    assert "pairings keep signals and gradients in range</h1>" in text
    assert "variance_scaling(" in text  # the recipe
    assert "propagate sweep --depth 6" in text and "2 seeds" in text
    assert {path.name for path in tmp_path.iterdir()} == {"record.nc", "summary.json", "sweep.html"}


def test_a_record_from_python_names_no_command():
    assert "command" not in provenance()
    with of_command(["sweep", "--init", "0.5*he_normal"]):
        assert provenance()["command"] == "propagate sweep --init '0.5*he_normal'"
    assert "command" not in provenance()


def test_a_diagnosis_in_python_writes_the_same_page_and_marks_its_findings(diagnosed):
    folder, _ = diagnosed
    record = pp.load(folder / "net.nc")
    found: Any = Diagnosis(record, pp.judge(record).worst_first(), (), None, cast(Any, None))
    plain = found.report(folder / "plain.html").read_text("utf-8")
    assert "What would help most" not in plain
    more = pp.advise(found).part()
    text = found.report(folder / "python.html", more).read_text("utf-8")
    assert text == (folder / "net.html").read_text("utf-8")
    marks = {text.get_text() for text in found.plot().texts}
    assert marks == {"layers.8: vanishing", "layers.0: vanishing"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.nc", "does not exist"), ("net.py", "is not a valid NetCDF 3 file\n")],
)
def test_what_is_no_record_is_told(diagnosed, name, message, capfd):
    assert run("report", diagnosed[0] / name) == 2
    assert message in capfd.readouterr().err


def test_a_page_that_cannot_be_written_is_told(diagnosed, capfd):
    folder, _ = diagnosed
    assert run("report", folder / "net.nc", "-o", folder / "net.py" / "page.html") == 3
    assert "cannot write" in capfd.readouterr().err
