import os

from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
