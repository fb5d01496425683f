"""Run the programs of a folder in one process: what jax and XLA need for the first, all have.

`python programs.py FOLDER` runs each `NAME.py`, in order, with a namespace and the folder `NAME` of
its own, and prints as JSON what it printed, what it wrote, and its error. To change what others
meet (a setting of JAX or of matplotlib, the environment) is an error, and is undone.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import jax
import matplotlib as mpl


def shared() -> dict[str, object]:
    """Return the settings that the programs share."""
    places = {"jax": jax.config.values, "matplotlib": mpl.rcParams, "environment": os.environ}
    return {f"{place} {name}": held[name] for place, held in places.items() for name in held}


def run(program: Path) -> dict[str, object]:
    folder, before, error = program.with_suffix(""), shared(), ""
    folder.mkdir()
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            runpy.run_path(str(program), run_name="__main__")
        except (Exception, SystemExit):
            error = traceback.format_exc()
    after = shared()
    changed = [name for name in before if before[name] != after.get(name)]
    for name in changed:
        place, _, setting = name.partition(" ")
        {"jax": jax.config.update, "matplotlib": mpl.rcParams.__setitem__}.get(
            place, os.environ.__setitem__
        )(setting, before[name])
    error += "".join(f"{name} was changed for all programs\n" for name in changed)
    return {"printed": printed.getvalue(), "written": os.listdir(folder), "error": error}


if __name__ == "__main__":
    programs = sorted(Path(sys.argv[1]).resolve().glob("*.py"))
    print(json.dumps({program.stem: run(program) for program in programs}))
