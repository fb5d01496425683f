"""`propagate lab`."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from propagate.types import PropagateError, UnusableInput

APP = Path(__file__).parents[2] / "lab" / "app.py"
HOST = "127.0.0.1"  # nobody but the user's own machine
CACHE = (
    *("jax_compilation_cache_dir", "jax_compilation_cache_max_size"),
    *("jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes"),
)  # what the command has set up, which the page's process is told of


@dataclass(frozen=True)
class Lab:
    """Open the live lab in the browser: sliders, and what becomes of signals and gradients.

    Depth, width, scale or initialiser, activation (a formula of your own, too), family, norm and
    dtype; curves with theory over them, verdict and recipe, the phase diagram, histograms. It needs
    the extra `lab`: pip install '.[lab]'. The page works offline, answers this machine alone, and
    asks for the token that is in the printed address. Ctrl-C ends it.
    """

    record: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[RECORD]")] = None
    """A record.nc of your own, shown below; the page can open others."""
    port: int | None = None
    """Port of the page; a free one by default."""
    no_token: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do not ask for a token."""
    headless: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the address without opening a browser."""

    def __call__(self) -> int:
        """Serve the page until it is interrupted; return the exit code."""
        if self.record is not None and not self.record.is_file():
            raise UnusableInput(f"there is no record {self.record}: propagate sweep writes one")
        if importlib.util.find_spec("marimo") is None:
            raise PropagateError("the lab needs marimo: pip install 'propagate-jax[lab]'")
        return subprocess.call(self.served, env=os.environ | _cache())

    @property
    def served(self) -> list[str]:
        """The command that serves the page."""
        options = ["--host", HOST, "--no-token" if self.no_token else "--token", "--no-sandbox"]
        if self.port is not None:
            options += ["--port", str(self.port)]
        if self.headless:
            options.append("--headless")
        shown = ["--", "--record", str(self.record.resolve())] if self.record else []
        return [sys.executable, "-m", "marimo", "--yes", "run", str(APP), *options, *shown]


def _cache() -> dict[str, str]:
    """Return where compiled programs are kept, as environment variables."""
    values = {name.upper(): getattr(jax.config, name) for name in CACHE}
    return {name: str(value) for name, value in values.items() if value is not None}
