"""What the README says can be run is run, and CI runs the same lines."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from propagate import activations, initializers
from propagate.cli import command
from propagate.cli.verbs import (
    diagnose,
    figures,
    lab,
    listing,
    phase,
    plot,
    predict,
    report,
    sweep,
    train,
)
from propagate.record.measures import MEASURES
from propagate.verdicts.findings import Verdict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RULE = re.MULTILINE | re.DOTALL
COMMANDS = ("pip install . && propagate sweep", "pip install '.[test]' && pytest")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, RULE)
    return [text for named, text in fenced if named == language]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_two_commands_are_what_ci_runs(command):
    assert f"{command}\n" in blocks("sh")
    assert f"\n        {command}\n" in (ROOT / ".ci" / "run").read_text()


NUMBER = re.compile(r"[-+]?\d+\.\d*(?:e[-+]?\d+)?")


def differences(shown: str, printed: str) -> list[str]:
    """What differs: words and whole numbers at all, decimals in their first two digits.

    A decimal may be off by one in its last place, too: that is all that `-0.00` says.
    """
    words = [" ".join(NUMBER.sub(" N ", text).split()) for text in (shown, printed)]
    if words[0] != words[1]:
        return [f"{words[0]!r} is shown, {words[1]!r} is printed"]
    wrong = []
    for one, other in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        places = len(one.partition(".")[2].partition("e")[0])
        last = 10.0**-places if "e" not in one else 0.0
        if abs(float(one) - float(other)) > max(0.05 * abs(float(one)), 1.01 * last):
            wrong.append(f"{one} is shown, {other} is printed")
    return wrong


@pytest.mark.parametrize(
    ("printed", "right"),
    [
        ("a stack of 8: stable (+0.51 ± 0.02)\n", True),
        ("a stack of 8: stable (+0.57 ± 0.02)\n", False),
        ("a stack of 8: stable (-0.51 ± 0.02)\n", False),
        ("a stack of 9: stable (+0.51 ± 0.02)\n", False),
        ("a stack of 8: vanishing (+0.51 ± 0.02)\n", False),
    ],
)
def test_a_wrong_number_or_word_would_be_found(printed, right):
    assert (not differences("a stack of 8: stable (+0.51 ± 0.02)\n", printed)) == right


EXAMPLES = re.findall(r"^```python\n(.*?)^```\n\nprints\n\n```\n(.*?)^```$", README, RULE)


def test_every_python_example_shows_what_it_prints():
    assert [example for example, _ in EXAMPLES] == blocks("python")


@pytest.mark.parametrize(("example", "output"), EXAMPLES)
def test_the_python_examples_print_what_the_readme_shows(example, output, tmp_path):
    """As a user runs them: a program of its own, compiled with XLA's optimiser. Seeds are fixed."""
    own = ("XLA_FLAGS", "JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION")  # of the suite
    env = {name: value for name, value in os.environ.items() if name not in own}
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not differences(output, done.stdout)
    written = set(re.findall(r'"([\w.-]+\.(?:png|pdf|nc|html))"', example))
    assert {path.name for path in tmp_path.iterdir()} == written


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
        train.Train,
        phase.Phase,
        plot.Plot,
        report.Report,
        lab.Lab,
        listing.List,
        figures.Figures,
    ):
        monkeypatch.setattr(verb, "__call__", lambda self: ran.append(self) or 0)
    with pytest.raises(SystemExit) as left:
        command.main(shlex.split(line)[1:])
    assert left.value.code == 0
    (verb,) = ran
    for name in np.atleast_1d(getattr(verb, "init", None) or ()):
        initializers.initializer(str(name))
    for name in np.atleast_1d(getattr(verb, "activation", None) or ()):
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
