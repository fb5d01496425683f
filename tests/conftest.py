import os

from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"
# most of the suite's time is XLA's own, which this halves; what is computed stays the same
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
