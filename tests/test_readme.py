"""What the README and its further pages say can be run is run, and CI runs the same lines."""

import json
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
from propagate.plot.kinds import KINDS
from propagate.record.measures import MEASURES, SITE_MEASURES
from propagate.verdicts.findings import Verdict

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FURTHER = ("figures/README.md", "notebooks/README.md", "notebooks/coming_from_pytorch_hooks.md")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        ROOT / "README.md",
        *sorted((ROOT / "propagate").rglob("README.md")),
        *(ROOT / page for page in FURTHER),
    )
}
RULE = re.MULTILINE | re.DOTALL
MOST_LINES = 350
COMMANDS = ("pip install . && propagate sweep", "pip install '.[test]' && pytest")
SUITE = ("JAX_NUM", "XLA_FLAGS")  # the suite's settings, without which users' programs run
EVERY_PAGE = pytest.mark.parametrize("page", PAGES)


def blocks(page: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], RULE)
    return [text for named, text in fenced if named == language]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_two_commands_are_what_ci_runs(command):
    assert f"{command}\n" in blocks("README.md", "sh")
    assert f"\n        {command}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_is_a_front_page_that_leads_to_every_other():
    assert len(PAGES["README.md"].splitlines()) <= MOST_LINES
    assert set(PAGES) - {"README.md"} <= {target for target, _ in links("README.md")}


NUMBER = re.compile(r"[-+]?\d+\.\d*(?:e[-+]?\d+)?")


def differences(shown: str, printed: str) -> list[str]:
    """What differs: words and whole numbers at all, decimals in their first two digits.

    A decimal may be off by one in its last place, too: that is all that `-0.00` says. Long lines
    may be shown wrapped.
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


def examples(page: str) -> list[tuple[str, str]]:
    shown = r"^```python\n(.*?)^```\n\nprints\n\n```\n(.*?)^```$"
    return re.findall(shown, PAGES[page], RULE)


@EVERY_PAGE
def test_every_python_example_shows_what_it_prints(page):
    assert [example for example, _ in examples(page)] == blocks(page, "python")


EXAMPLES = {f"{page}-{k}": shown for page in PAGES for k, shown in enumerate(examples(page))}
UNFIT = {  # what an example must not be, and what is said to it
    "raises": ("1 / 0", "ZeroDivisionError"),
    "leaves": ("raise SystemExit", "SystemExit"),
    "sets": (
        "import jax\njax.config.update('jax_enable_x64', True)",
        "jax_enable_x64 of jax was changed",
    ),
    "met": ("import jax\nprint(jax.config.jax_enable_x64, 'example' in globals())", ""),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[str, dict]:
    """Return what each example did: as programs of users, compiled with XLA's optimiser."""
    folder = tmp_path_factory.mktemp("examples")
    programs = [example for example, _ in (*EXAMPLES.values(), *UNFIT.values())]
    for k, program in enumerate(programs):
        (folder / f"{k:03}.py").write_text(program)
    env = {name: value for name, value in os.environ.items() if not name.startswith(SUITE)}
    command = [sys.executable, TESTS / "programs.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return dict(zip((*EXAMPLES, *UNFIT), json.loads(done.stdout).values(), strict=True))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_python_examples_print_what_the_page_shows(name, ran):
    example, output = EXAMPLES[name]
    assert not ran[name]["error"], ran[name]["error"]
    assert not differences(output, ran[name]["printed"])
    written = re.findall(r'"([\w.-]+\.(?:png|pdf|nc|html))"', example)
    assert set(ran[name]["written"]) == set(written)


@pytest.mark.parametrize("name", UNFIT)
def test_an_example_that_fails_or_changes_what_others_meet_would_be_found(name, ran):
    assert UNFIT[name][1] in ran[name]["error"]
    assert bool(UNFIT[name][1]) == bool(ran[name]["error"])
    assert ran["met"]["printed"] == "False False\n"


def lines() -> list[str]:
    """Return the commands of all pages, each once."""
    text = "".join(block for page in PAGES for block in blocks(page, "sh")).replace("\\\n", "")
    said = (line.partition("  #")[0].strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in said if line.startswith("propagate ")))


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
    for measure in (*MEASURES, *SITE_MEASURES):
        for place in measure.places:
            assert f"`{measure.variable(place)}`" in PAGES["propagate/record/README.md"]
    for verdict in Verdict:
        row = rf"^\|.*\b{verdict.value}\b.*\|"
        assert re.search(row, PAGES["propagate/verdicts/README.md"], re.MULTILINE)


def test_every_kind_of_picture_and_every_verb_is_explained():
    for kind in KINDS:
        assert f"`{kind}`" in PAGES["propagate/plot/README.md"]
    for path in (ROOT / "propagate/cli/verbs").glob("[!_]*.py"):
        verb = "list" if path.stem == "listing" else path.stem
        assert f"`{verb}`" in PAGES["propagate/cli/README.md"]


def links(page: str) -> list[tuple[str, str]]:
    """Return the file, from the root, and the heading that each link of a page leads to."""
    found = []
    for target in re.findall(r"(?:\]\(|src=\")([^)#:\"]*(?:#[^)\"]*)?)[)\"]", PAGES[page]):
        file, _, heading = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        found.append((os.path.relpath(path.resolve(), ROOT), heading))
    return found


def headings(page: str) -> set[str]:
    """Return the addresses of a page's headings, as GitHub makes them of their words."""
    titles = re.findall(r"^#+ (.*)$", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@EVERY_PAGE
def test_links_lead_to_files_and_headings(page):
    for file, heading in links(page):
        assert (ROOT / file).exists(), file
        assert not heading or heading in headings(file), f"{file}#{heading}"


def test_every_figure_is_shown():
    shown = {file for file, _ in links("figures/README.md")}
    for script in (ROOT / "figures").glob("*.py"):
        assert {f"figures/{script.stem}.png", f"figures/{script.name}"} <= shown
