"""A user's model from the name of the function that builds it: `my_model.py:build`."""

import contextlib
import difflib
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from propagate.cli.terminal import key
from propagate.cure.repair import Repair, repair
from propagate.models.diagnose import Diagnosis, diagnose
from propagate.models.own_errors import notes_of
from propagate.tracing.source_labels import is_library
from propagate.types import PropagateError, UnusableInput

ModeName = Literal["training", "inference"]


@contextlib.contextmanager
def built(target: str) -> Iterator[tuple[Any, ...]]:
    """Call the function that a target names; within the context its neighbours can be imported.

    Args:
        target: `FILE.py:FUNCTION`, or `package.module:FUNCTION` seen from the current directory.

    Returns:
        A context of what the function returned: the model and its inputs.

    Raises:
        UnusableInput: no such file, module or function; or it raised, or returned no tuple.
    """
    where, _, name = target.rpartition(":")
    is_file = where.endswith(".py")
    if not name.isidentifier() or not (is_file or all(map(str.isidentifier, where.split(".")))):
        raise UnusableInput(
            f"TARGET must be FILE.py:FUNCTION or package.module:FUNCTION, got {target!r}"
        )
    path = Path(where).resolve()
    with _importable(path.parent if is_file else Path.cwd()):
        module = _from_file(path, where) if is_file else _from_name(where)
        build = _function(module, where, name)
        try:
            made = build()
        except (Exception, SystemExit) as error:
            raise UnusableInput(f"{name}() raised {told(error)}") from error
        if type(made) is not tuple or len(made) < 2:  # a Haiku Transformed is a tuple, but a model
            kind = type(made).__name__
            own = f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
            what = own if type(made) is not tuple else f"{len(made)} of them"
            raise UnusableInput(
                f"{name}() must return a tuple (model, *inputs) with one input or more, got {what}"
            )
        yield made


def told(error: BaseException) -> str:
    """Return the kind of an exception, the last line of the user's own code, and its message."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        (f.filename, f.lineno)
        for f in frames
        if not f.filename.startswith("<") and not is_library(f.filename)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        own.append((error.filename, error.lineno))
    at = f" at {Path(own[-1][0]).name}:{own[-1][1]}" if own else ""
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    lines = (message, *notes_of(error))
    return f"{type(error).__name__}{at}" + "".join(
        f": {line.rstrip('.')}" for line in lines if line
    )


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have removed it
            sys.path.remove(str(folder))


def _from_file(path: Path, where: str) -> ModuleType:
    if not path.is_file():
        raise UnusableInput(f"there is no file {where!r}")
    # under a name of its own: a file types.py must not become everyone's `types`
    spec = importlib.util.spec_from_file_location("propagate_target", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        relative = isinstance(error, ImportError) and "relative import" in str(error)
        remedy = "; name it as package.module:FUNCTION" if relative else ""
        raise UnusableInput(f"importing {where} raised {told(error)}{remedy}") from error
    return module


def _from_name(where: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{where}.".startswith(f"{missing}."):
            raise UnusableInput(
                f"there is no module {where!r} in the current directory or among what is installed"
            ) from None
        raise UnusableInput(f"importing {where} raised {told(error)}") from error


def _function(module: ModuleType, where: str, name: str) -> Callable[[], Any]:
    found = getattr(module, name, None)
    if callable(found):
        return found
    own = {k: v for k, v in vars(module).items() if callable(v) and not k.startswith("_")}
    names = [k for k, v in own.items() if getattr(v, "__module__", "") == module.__name__]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UnusableInput(
        f"{where} has no function {name!r}: {hint}It has {', '.join(names) or 'none'}."
    )


def diagnosed(
    target: str, seed: int, *, kwargs: str, mode: ModeName | None, **options: Any
) -> Diagnosis:
    """Return the diagnosis of the model that a target builds, with options of the command.

    Raises:
        UnusableInput: a mode that has no effect on this model.
        PropagateError: the model raised an error.
    """
    found = _ran(diagnose, target, seed, kwargs=kwargs, mode=mode, **options)
    _check_mode(found, mode)
    return found


def repaired(
    target: str, seed: int, *, kwargs: str, mode: ModeName | None, **options: Any
) -> Repair:
    """Return the repair of the model that a target builds; it raises what `diagnosed` raises."""
    fixed = _ran(repair, target, seed, kwargs=kwargs, mode=mode, **options)
    _check_mode(fixed.before, mode)
    return fixed


def _ran(
    look: Callable[..., Any],
    target: str,
    seed: int,
    *,
    kwargs: str,
    mode: ModeName | None,
    **options: Any,
) -> Any:
    training = None if mode is None else mode == "training"
    options |= {"key": key(seed), "kwargs": _keywords(kwargs), "training": training}
    # what the user's code prints is no result
    with contextlib.redirect_stdout(sys.stderr), built(target) as (model, *inputs):
        try:
            return look(model, *inputs, **options)
        except PropagateError:
            raise
        except Exception as error:
            raise PropagateError(f"running the model raised {told(error)}") from error


def _check_mode(found: Diagnosis, mode: ModeName | None) -> None:
    ran = found.record.attrs.get("mode")
    if mode not in (None, ran):
        reason = f"its own switch says {ran}" if ran else "it has no switch that is known here"
        raise UnusableInput(f"--mode has no effect on this model, {reason}: leave it out")


def _keywords(text: str) -> dict[str, Any]:
    try:
        keywords = json.loads(text)
    except ValueError as error:
        raise UnusableInput(f"--kwargs must be JSON, got {text!r}: {error}") from None
    if not isinstance(keywords, dict):
        raise UnusableInput(f"--kwargs must be a JSON object such as {{}}, got {text!r}")
    return keywords
