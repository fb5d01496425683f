"""Imports follow one rule, `import propagate` stays light, and the tree explains itself."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import propagate as pp

PACKAGE = Path(pp.__file__).parent
GROUND = ("types", "checks", "registry")
SPECIFIED = ("activations", "distributions", "initializers", "network", "batches")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "types": (),
    "checks": ("types",),
    "registry": ("types", "checks"),
    "_jax_compat": ("types",),
    "_interrupts": (),
    "record": ("types",),
    "distributions": GROUND,
    "formulas": GROUND,
    "activations": (*GROUND, "formulas"),
    "initializers": (*GROUND, "distributions"),
    "blocks": (*GROUND, "record", "activations", "distributions", "initializers"),
    "network": (*GROUND, "activations", "initializers", "blocks"),
    "batches": GROUND,
    "theory": (*GROUND, "record", "activations", "initializers", "blocks", "network"),
    "verdicts": (*GROUND, "record"),
    "plot": ("types", "record", "verdicts", "theory"),
    "report": ("types", "record", "verdicts", "theory", "plot"),
    "run": (*GROUND, "record", *SPECIFIED, "blocks", "theory", "verdicts"),
    "tracing": (*GROUND, "_jax_compat", "record", "distributions", "verdicts", "report"),
    "models": (*GROUND, "_jax_compat", "record", "theory", "tracing", "verdicts", "plot", "report"),
    "training": (
        *(*GROUND, "_jax_compat", "record", *SPECIFIED, "blocks", "theory", "verdicts", "plot"),
        *("report", "run", "tracing"),
    ),
    "cure": (
        *(*GROUND, "_jax_compat", "record", *SPECIFIED, "blocks", "theory", "verdicts", "plot"),
        *("report", "run", "tracing", "models"),
    ),
    "lab": (),  # the public API alone, as a user's own page would
}
"""What each place may import, in the order of the data flow; `cli` may import all."""

ONLY = {
    ("run", "verdicts"): {"verdicts.growth"},  # for the measured plane
    ("models", "theory"): {"theory.gauss"},
}
LATE = {
    ("report", "plot"),
    ("models", "plot"),
    ("models", "report"),
    ("training", "plot"),
    ("training", "report"),
    ("cure", "plot"),
    ("cure", "report"),
    ("tracing", "report"),
    ("tracing", "verdicts"),
}  # within methods
PUBLIC_ROOMS = ("blocks", "plot", "theory.operations", "cli")  # modules with names of their own
LONGEST_FILE, MOST_FILES = 330, 12


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in PACKAGE.rglob("*.py")}
PLACES = [*MAY_IMPORT, "cli", "__main__", "__init__"]


def place(name: str) -> str:
    return name.split(".")[0]


def imported(source: str) -> set[tuple[str, bool]]:
    """Modules of the package that the source imports, and whether at its top."""
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    top |= {id(n) for node in tree.body if isinstance(node, ast.If) for n in node.body}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            names = {n if n.removeprefix("propagate.") in MODULES else node.module for n in names}
        else:
            continue
        found |= {(name, id(node) in top) for name in names if name.startswith("propagate.")}
    return {(name.removeprefix("propagate."), early) for name, early in found}


def misplaced(name: str, source: str) -> set[str]:
    own = place(name)
    if own not in MAY_IMPORT:
        return set()
    wrong = set()
    for other, early in imported(source):
        edge = own, place(other)
        allowed = edge[0] == edge[1] or edge[1] in MAY_IMPORT[own]
        late = early and edge in LATE
        if not allowed or late or other not in ONLY.get(edge, {other}):
            wrong.add(other)
    return wrong


def test_every_place_has_its_row():
    assert {place(name) for name in MODULES} == set(PLACES)


def test_rows_point_one_way():
    for own, others in MAY_IMPORT.items():
        assert all(PLACES.index(other) < PLACES.index(own) for other in others), own


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__"}))
def test_a_module_imports_only_what_its_place_may(name):
    assert not misplaced(name, MODULES[name].read_text())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("run.engine", "from propagate.cli import main"),
        ("verdicts.growth", "import propagate.run.sweep"),
        ("plot.style", "def f():\n  from propagate.tracing.trace import Trace"),
        ("models.diagnose", "from propagate import plot"),
        ("record.dataset", "from propagate.checks import check_count"),
        ("run.plan", "from propagate.verdicts import findings"),
    ],
)
def test_an_import_against_the_rule_would_be_found(name, source):
    assert misplaced(name, source)


def test_no_circle_within_a_room():
    """Files of a room stand in an order, too."""
    inside = {
        name: {o for o, _ in imported(path.read_text()) if place(o) == place(name) and o != name}
        for name, path in MODULES.items()
        if not path.name.startswith("__")
    }
    while inside:
        free = {name for name, others in inside.items() if not others & set(inside)}
        assert free, f"a circle among {sorted(inside)}"
        inside = {name: others for name, others in inside.items() if name not in free}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__", "__main__"}))
def test_no_module_is_hidden_by_a_function(name):
    """`import propagate.run.sweep as s` gives a module, whatever is public under its name."""
    module, found = importlib.import_module(f"propagate.{name}"), pp
    for part in name.split("."):
        found = getattr(found, part)
    assert found is module


def test_no_room_and_no_root_file_bears_the_name_of_a_public_function():
    public = {name for name in vars(pp) if not name.startswith("_")}
    functions = {name for name in public if callable(getattr(pp, name))}
    assert not functions & {place(name) for name in MODULES}


def test_an_empty_room_says_what_it_is():
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name not in ("__init__", *PUBLIC_ROOMS):
            (only,) = ast.parse(path.read_text()).body
            assert isinstance(only, ast.Expr), f"{name} has more than a docstring"


def test_rooms_and_files_are_small():
    for folder in {path.parent for path in MODULES.values()}:
        files = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
        assert len(files) <= MOST_FILES, folder.name
    long = {
        n: k for n, p in MODULES.items() if (k := len(p.read_text().splitlines())) > LONGEST_FILE
    }
    assert not long


def test_the_code_page_names_every_file():
    page = (PACKAGE / "README.md").read_text()
    for name, path in MODULES.items():
        if not path.name.startswith("__"):
            assert re.search(rf"`(\w+/)*{path.name.removesuffix('.py')}(\.py)?`", page), name


def test_importing_the_package_leaves_slow_libraries_alone():
    code = """
import sys
import propagate
print(*(name for name in ("matplotlib", "scipy.special", "rich", "tyro") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()
