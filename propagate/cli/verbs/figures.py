"""`propagate figures`."""

import ast
import difflib
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import tyro

from propagate.cli.terminal import refuse_empty, say
from propagate.record.storage import write_whole
from propagate.types import PropagateError, UnusableInput

Format = Literal["png", "svg"]


@dataclass(frozen=True)
class Figures:
    """Draw the figures of the gallery and check their numbers.

    A script belongs to the gallery if it has a function draw(small); others are left out.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of figures; all by default."""
    folder: Path = Path("figures")
    """Folder of their scripts, which the pictures go to."""
    small: bool = False
    """Run at reduced size and write nothing."""
    format: tuple[Format, ...] = ("png",)
    """What to write: png, svg or both."""

    def __call__(self) -> int:
        """Run the scripts in turn."""
        refuse_empty(self, "format")
        if others := not_of_the_gallery(self.folder):
            names = ", ".join(path.name for path in others)
            say(f"left out, as they have no function draw(small): {names}")
        for script in scripts(self.folder, self.names):
            start = time.perf_counter()
            path = run(script, small=self.small, formats=self.format)
            say(f"{path or script.stem}: numbers hold ({time.perf_counter() - start:.1f} s)")
        return 0


def scripts(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the gallery's scripts in a folder, those of the given names or all.

    Raises:
        UnusableInput: there is no such folder or no such script.
    """
    scripts = (path for path in sorted(Path(folder).glob("*.py")) if _draws(path))
    found = {path.stem.replace("_", "-"): path for path in scripts}
    if not found:
        raise UnusableInput(f"no figure scripts in {folder}: run this where the gallery is")
    wanted = [name.replace("_", "-") for name in names] or list(found)
    for name in wanted:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UnusableInput(f"unknown figure {name!r}: {hint}There are {', '.join(found)}.")
    return [found[name] for name in wanted]


def not_of_the_gallery(folder: Path) -> list[Path]:
    """Return the other scripts of a folder, which are not run."""
    return [path for path in sorted(Path(folder).glob("*.py")) if not _draws(path)]


def _draws(script: Path) -> bool:
    """Whether a script has a function `draw(small)`; it is read and not run."""
    try:
        body = ast.parse(script.read_bytes()).body
    except (SyntaxError, ValueError, OSError):
        return False
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "draw"]
    return any([a.arg for a in node.args.args][:1] == ["small"] for node in functions)


def load(script: Path) -> ModuleType:
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script: Path, *, small: bool = False, formats: Sequence[Format] = ("png",)) -> Path | None:
    """Draw a script's figure; write it beside the script unless `small`; return the first file.

    Raises:
        PropagateError: one of the figure's numbers does not hold.
    """
    try:
        figure = load(script).draw(small)
    except AssertionError as error:
        raise PropagateError(f"{script.name}: a number does not hold: {error}") from error
    if small:
        return None
    paths = [script.with_suffix(f".{form}") for form in formats]
    for path, form in zip(paths, formats, strict=True):
        write_whole(path, lambda part, form=form: figure.savefig(part, format=form, dpi=130))
    return paths[0]
