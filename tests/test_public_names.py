"""The public face: every name that a user may import, wherever the code behind it is."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import propagate as pp

ROOT = Path(__file__).parent.parent
FUNCTIONS = (
    *("advise", "batch_norm_rate", "coordinate_check", "critical", "departures", "diagnose"),
    *("fixed_points", "gain", "half_stable", "judge", "load", "measure", "phase", "predict"),
    *("repair", "saddle_nodes", "save", "sweep", "tag", "train", "value_and_grad"),
)
TYPES = (
    *(
        "Activation",
        "Advice",
        "Batch",
        "Change",
        "CoordinateCheck",
        "CriticalPoint",
        "Diagnosis",
        "Finding",
        "Findings",
    ),
    *("FixedPoint", "Gain", "Initializer", "Interrupted", "Network", "Outcome", "PropagateError"),
    *("Repair", "Trace", "Trained", "UnusableInput", "Verdict"),
)
TABLES = ("ACTIVATIONS", "INITIALIZERS")
MODULES = {
    "blocks": (
        *("FAMILIES", "family", "Family", "Mlp", "Conv1d", "Conv2d", "Residual"),
        *("Rnn", "Lstm", "Gru", "Transformer"),
    ),
    "operations": (
        *("Signal", "Linear", "Nonlinearity", "LayerNorm", "RMSNorm", "Dropout", "Softmax"),
        "Attention",
    ),
    "plot": (
        *("variance", "curves", "heatmap", "histograms", "phase", "spectrum"),
        *("before_after", "coordinate_check", "learning_curves", "mark_findings"),
        *("signal_propagation", "training_film"),
    ),
    "jacobian": (
        *("singular_values", "of_network", "partial_norms", "expected_norms", "spectrum"),
        *("density", "Spectrum", "layers_of"),
    ),
    "passage": ("layer", "residual", "chain", "gradients", "normalise", "Passage", "Weights"),
}


@pytest.mark.parametrize("name", (*FUNCTIONS, *TYPES, *TABLES))
def test_a_public_name_is_there(name):
    assert getattr(pp, name) is not None


@pytest.mark.parametrize("module", MODULES)
def test_a_public_module_has_its_names(module):
    assert not [name for name in MODULES[module] if not hasattr(getattr(pp, module), name)]


def test_a_public_module_comes_when_it_is_first_asked_for():
    """Where nothing else has imported it, which is how `pp.jacobian` once failed."""
    code = """
import sys
for name in sys.argv[1:]:
    for loaded in [key for key in sys.modules if key.split(".")[0] == "propagate"]:
        del sys.modules[loaded]
    import propagate
    print(getattr(propagate, name).__name__)
"""
    command = [sys.executable, "-c", code, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_and_the_plugin_are_where_they_were():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"propagate": "propagate.cli:main"}
    assert project["entry-points"]["pytest11"] == {"propagate": "pytest_propagate"}
    assert callable(importlib.import_module("propagate.cli").main)
    assert callable(importlib.import_module("pytest_propagate").assert_healthy)
