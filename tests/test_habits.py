"""What a release needs: an entry in the changelog, every file in the wheel, one gate."""

import re
import tomllib
from pathlib import Path

import setuptools
import yaml

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_changelog_has_an_entry_for_the_version_and_begins_with_what_is_unreleased():
    titles = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert PYPROJECT["project"]["version"] in titles
    assert len(titles) == len(set(titles))


def test_the_wheel_has_every_room_and_file():
    """Packages and package data, as setuptools reads them, against the tree."""
    found = PYPROJECT["tool"]["setuptools"]["packages"]["find"]
    packages = setuptools.find_packages(str(ROOT), include=found["include"])
    folders = {path.parent for path in (ROOT / "propagate").rglob("*.py")}
    assert set(packages) == {".".join(path.relative_to(ROOT).parts) for path in folders}
    data = PYPROJECT["tool"]["setuptools"]["package-data"]["propagate"]
    room = ROOT / "propagate"
    others = {
        str(path.relative_to(room))
        for path in room.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    matched = {str(path.relative_to(room)) for one in data for path in room.glob(one)}
    assert others == matched >= {"py.typed", "README.md", "report/html/page.html"}
    assert PYPROJECT["tool"]["setuptools"]["py-modules"] == ["pytest_propagate"]
    assert (ROOT / "pytest_propagate.py").is_file()


def test_hosted_ci_runs_the_gate_on_both_pythons():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    *_, gate = jobs["gate"]["steps"]
    assert gate["run"] == "bash .ci/run"
    (pythons,) = (s["with"]["python-version"] for s in jobs["gate"]["steps"] if "with" in s)
    assert pythons.split() == ["3.11", "3.13"]
    assert jobs["nightly-jax"]["continue-on-error"] is True


def test_hooks_are_the_tools_of_the_environment():
    """So that their versions are those of the gate; and none strips the lesson's outputs."""
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = {hook["entry"]: hook["language"] for hook in repos[0]["hooks"]}
    assert hooks == dict.fromkeys(("ruff format", "ruff check", "pyright"), "system")


def test_the_gate_asks_for_95_percent_of_lines():
    assert "--cov --cov-fail-under=95" in (ROOT / ".ci/run").read_text()
