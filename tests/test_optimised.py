"""The engine and the instrument compiled by XLA's optimiser, as users' programs are.

The rest of the suite leaves the optimiser out, which halves its time (see `conftest.py`).
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
CHOSEN = {
    "run/test_engine.py": (
        "test_equals_gradients_of_zero_perturbations",
        "test_low_precision_runs_and_names_its_dtype[bfloat16]",
    ),
    "tracing/test_instrument.py": (
        "test_statistics_are_those_of_zero_perturbations",
        "test_with_products_tapped_results_are_bitwise_the_users_own",
        "test_with_every_site_tapped_results_are_within_rounding",
    ),
}


def test_holds_with_the_optimiser_on():
    env = os.environ | {"XLA_FLAGS": "", "PYTEST_ADDOPTS": ""}
    names = [f"{TESTS / file}::{name}" for file, chosen in CHOSEN.items() for name in chosen]
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-n", "0", "--dist", "no", *names]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout
