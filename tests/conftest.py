"""What holds for every test: strict settings of JAX, checked shapes, repeatable examples.

Settings are environment variables, so that the programs which tests start have them, too.
"""

import gc
import os
from importlib.metadata import version

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook
from shape_checks import CHECKED

os.environ["MPLBACKEND"] = "Agg"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Most of the suite's time is XLA's own, which the first halves; `tests/test_optimised.py` and the
# README's examples run without it, as users' programs do. The next two keep two workers on two
# cores out of each other's way. The last, which later XLA lacks, halves what is left of compiling.
FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_multi_thread_eigen=false",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if version("jaxlib").startswith(("0.10.", "0.11.")):
    FLAGS += ["--xla_cpu_use_fusion_emitters=false"]
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
# pytest's option of jaxtyping does not reach the processes of pytest-xdist
install_import_hook(CHECKED, "shape_checks.checked")


def pytest_configure(config):
    """Let all processes of the suite share what XLA has compiled; so does the next run."""
    config.addinivalue_line("markers", "lenient: code of others runs that promotes implicitly")
    if not hasattr(config, "cache"):  # with -p no:cacheprovider
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("xla"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_collection_finish():
    """What is imported stays; sweeps use one of the eight devices, unless they are given more."""
    import jax

    gc.freeze()  # the collector need not walk it again at every trace
    jax.config.update("jax_default_device", jax.devices()[0])


@pytest.fixture(autouse=True)
def _lenient(request):
    """Let frameworks, and models written with them, promote dtypes and ranks as they do."""
    if request.node.get_closest_marker("lenient") is None:
        yield
        return
    import jax

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
