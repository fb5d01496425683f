"""Run the gallery: each script of `figures/` draws one picture and asserts its numbers.

A script is `NAME.py` with a function `draw(small) -> Figure`; its picture is `NAME.png`.
"""

import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from propagate.record import whole
from propagate.types import PropagateError, UnusableInput


def scripts(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the scripts of the folder, those of the given names or all.

    Raises:
        UnusableInput: there is no such folder or no such script.
    """
    found = {path.stem.replace("_", "-"): path for path in sorted(Path(folder).glob("*.py"))}
    if not found:
        raise UnusableInput(f"no figure scripts in {folder}: run this where the gallery is")
    wanted = [name.replace("_", "-") for name in names] or list(found)
    for name in wanted:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UnusableInput(f"unknown figure {name!r}: {hint}There are {', '.join(found)}.")
    return [found[name] for name in wanted]


def run(script: Path, *, small: bool = False) -> Path | None:
    """Draw a script's figure; write its PNG beside it unless `small`.

    Raises:
        PropagateError: one of the figure's numbers does not hold.
    """
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        figure = module.draw(small)
    except AssertionError as error:
        raise PropagateError(f"{script.name}: a number does not hold: {error}") from error
    if small:
        return None
    path = script.with_suffix(".png")
    whole(path, lambda part: figure.savefig(part, dpi=130))
    return path
