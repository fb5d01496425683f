"""What the README says can be run is run, and CI runs the same lines."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from propagate import activations, initializers
from propagate.cli import command, diagnose, figures, listing, phase, predict, sweep
from propagate.record.measures import MEASURES
from propagate.verdicts.findings import Verdict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = ("pip install . && propagate sweep", "pip install '.[test]' && pytest")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for named, text in fenced if named == language]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_two_commands_are_what_ci_runs(command):
    assert f"{command}\n" in blocks("sh")
    assert f"\n        {command}\n" in (ROOT / ".ci" / "run").read_text()


def numbers_hidden(text: str) -> str:
    return re.sub(r"[-+]?\d+\.\d+", "N", text)


def test_the_python_examples_print_what_the_readme_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for example in blocks("python"):
        exec(compile(example, "README.md", "exec"), {})
        assert numbers_hidden(capsys.readouterr().out) in map(numbers_hidden, blocks(""))
    assert {path.name for path in tmp_path.iterdir()} == {
        "heatmap.png",
        "overlay.png",
        "variance.png",
        "record.nc",
    }


def lines() -> list[str]:
    text = "".join(blocks("sh")).replace("\\\n", "")
    return [line.partition("  #")[0] for line in text.splitlines() if line.startswith("propagate ")]


@pytest.mark.parametrize("line", lines())
def test_every_command_is_understood(line, monkeypatch):
    """The parser takes it and names resolve; the work is left out."""
    ran = []
    for verb in (
        sweep.Sweep,
        diagnose.Diagnose,
        predict.Predict,
        phase.Phase,
        listing.List,
        figures.Figures,
    ):
        monkeypatch.setattr(verb, "__call__", lambda self: ran.append(self) or 0)
    with pytest.raises(SystemExit) as left:
        command.main(shlex.split(line)[1:])
    assert left.value.code == 0
    (verb,) = ran
    for name in np.atleast_1d(getattr(verb, "init", ())):
        initializers.initializer(str(name))
    for name in np.atleast_1d(getattr(verb, "activation", ())):
        activations.activation(str(name))


def test_every_variable_and_verdict_is_explained():
    for measure in MEASURES:
        for place in measure.places:
            assert f"`{measure.variable(place)}`" in README
    for verdict in Verdict:
        assert re.search(rf"^\|.*\b{verdict.value}\b.*\|", README, re.MULTILINE)


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_figure_is_shown():
    for script in (ROOT / "figures").glob("*.py"):
        assert f"figures/{script.stem}.png" in README
