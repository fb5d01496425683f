"""Imports follow one order, `import propagate` stays light, and public names are documented."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import propagate as pp

PACKAGE = Path(pp.__file__).parent
ORDER = (
    "types",
    "registry",
    "activations",
    "initializers",
    "measures",
    "blocks.block",
    "blocks.mlp",
    "blocks.conv",
    "blocks.residual",
    "blocks.recurrent",
    "blocks.transformer",
    "blocks",
    "network",
    "record",
    "gauss",
    "softmax",
    "attention",
    "meanfield",
    "batch_norm",
    "passage",
    "family_theory",
    "operations",
    "spectra",
    "finite_width",
    "predict",
    "overlay",
    "correlations",
    "phase",
    "batches",
    "_jax_compat",
    "primitives",
    "reductions",
    "labels",
    "sites",
    "trails",
    "walk",
    "instrument",
    "adapters",
    "models",
    "laws",
    "trace",
    "probing",
    "waves",
    "wave_rules",
    "chain",
    "optimizers",
    "first_updates",
    "engine",
    "plan",
    "sweep",
    "jacobian",
    "thresholds",
    "findings",
    "site_verdict",
    "verdict",
    "plot_rates",
    "plot_phase",
    "plot_spectrum",
    "width_verdict",
    "plot_coordinate",
    "plot",
    "tree",
    "diagnosis",
    "coordinate_check",
    "report",
    "files",
    "figures",
    "baseline",
    "target",
    "measured_phase",
    "terminal",
    "cli_diagnose",
    "cli_chain",
    "cli_predict",
    "cli",
    "__main__",
)


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in PACKAGE.rglob("*.py")}


def imported(source: str) -> set[str]:
    """Modules of the package that the source imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if _exists(name) else node.module for name in names}
    return {name.removeprefix("propagate.") for name in found if name.startswith("propagate.")}


def _exists(name: str) -> bool:
    return name.removeprefix("propagate.") in MODULES


def misplaced(name: str, source: str) -> set[str]:
    return {other for other in imported(source) if ORDER.index(other) >= ORDER.index(name)}


def test_every_module_has_its_place():
    assert set(ORDER) == set(MODULES) - {"__init__"}


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_what_stands_before_it(name):
    assert not misplaced(name, MODULES[name].read_text())


@pytest.mark.parametrize(
    "source",
    [
        "from propagate import sweep",
        "import propagate.cli",
        "def f():\n  from propagate.plot import x",
    ],
)
def test_an_import_from_later_on_would_be_found(source):
    assert misplaced("engine", source)


def test_the_code_page_names_every_file():
    page = (PACKAGE / "README.md").read_text()
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert not {name for name in files if f"`{name}`" not in page}


def test_importing_the_package_leaves_slow_libraries_alone():
    code = """
import sys
import propagate
print(*(name for name in ("matplotlib", "scipy.special", "rich", "tyro") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


@pytest.mark.parametrize("name", sorted(n for n in vars(pp) if not n.startswith("_")))
def test_public_names_are_documented(name):
    value = getattr(pp, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)
