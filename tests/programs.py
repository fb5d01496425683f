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

SET = {  # what all programs meet: how to read it, how to change it
    "jax": (lambda: jax.config.values, jax.config.update),
    "matplotlib": (lambda: mpl.rcParams, mpl.rcParams.__setitem__),
    "environment": (lambda: os.environ, os.environ.__setitem__),
}


def run(program: Path) -> dict[str, object]:
    folder, error = program.with_suffix(""), ""
    before = {place: dict(held()) for place, (held, _) in SET.items()}
    folder.mkdir()
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            runpy.run_path(str(program), run_name="__main__")
        except (Exception, SystemExit):
            error = traceback.format_exc()
    for place, (held, change) in SET.items():
        for name, value in before[place].items():
            if held().get(name) != value:
                error += f"{name} of {place} was changed for all programs\n"
                change(name, value)
    return {"printed": printed.getvalue(), "written": os.listdir(folder), "error": error}


if __name__ == "__main__":
    programs = sorted(Path(sys.argv[1]).resolve().glob("*.py"))
    print(json.dumps({program.stem: run(program) for program in programs}))
