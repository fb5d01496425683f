"""The pytest plugin of propagate: `assert_healthy`, a fixture and a function to import.

    def test_my_model_is_healthy(assert_healthy):
        assert_healthy(MyModel(), jax.ShapeDtypeStruct((8, 32), "float32"), forward=0.05)

It stays light until it is used: every pytest run of whoever has propagate installed imports it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from propagate.models.diagnose import Diagnosis
    from propagate.types import Direction

OPTION = "--propagate-update"
_update: list[bool] = []  # the option, of the pytest runs under way: the innermost last


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that renews baselines."""
    group = parser.getgroup("propagate", "health of JAX models")
    words = "write the baselines of assert_healthy anew instead of comparing with them"
    group.addoption(OPTION, action="store_true", help=words)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the option where the plain function finds it."""
    _update.append(bool(config.getoption(OPTION)))


def pytest_unconfigure() -> None:
    """Forget it, unless another plugin failed before it was kept."""
    del _update[-1:]


@pytest.fixture(name="assert_healthy", scope="session")
def _assert_healthy() -> Any:
    """Assert that signals and gradients travel well through a model; see the function."""
    return assert_healthy


def assert_healthy(
    model: Any,
    *inputs: Any,
    key: Any = None,
    forward: float | None = None,
    backward: float | None = None,
    allow: Any = (),
    baseline: Any = None,
    tolerance: float | None = None,
    **options: Any,
) -> "Diagnosis":
    """Diagnose a model and fail, with one sentence for each thing that is wrong with it.

    Args:
        model: of Flax, Equinox, Haiku or Keras, or a function, as for `propagate.diagnose`.
        inputs: of the model; for a function, its parameters come first.
        key: for all that is random, `jax.random.key(0)` by default, so that a test repeats.
        forward: by how many decades per layer the signal's second moment may grow or shrink,
            from the first layer to the last.
        backward: the same for the gradient.
        allow: verdicts to let pass, such as `("dead", "vanishing")`.
        baseline: a file with the growth at every layer, to compare with; written when absent, or
            when pytest runs with `--propagate-update`.
        tolerance: decades per layer by which growth may differ from the baseline, 0.1 by default.
        options: of `propagate.diagnose`, such as `loss`, `labels`, `kwargs` or `vmap`.

    Returns:
        The diagnosis.

    Raises:
        AssertionError: the model is not healthy; the message says in which respects.
        PropagateError: nothing can be said about it: an empty batch, or no value that depends on
            the inputs and can be recorded.

    Example:
        `assert_healthy(model, x, backward=0.05, allow="dead")` within a test.
    """
    __tracebackhide__ = True
    import jax

    from propagate import checks
    from propagate.models.diagnose import diagnose
    from propagate.record.provenance import how_it_ran
    from propagate.verdicts.findings import verdicts

    limits: dict[Direction, float | None] = {"forward": forward, "backward": backward}
    for name, limit in limits.items():
        if limit is not None:
            checks.check_tolerance(name, limit)
    allowed = verdicts([allow] if isinstance(allow, str) else allow)
    found = diagnose(model, *inputs, key=jax.random.key(0) if key is None else key, **options)
    wrong = [str(finding) for finding in found.findings.faults if finding.verdict not in allowed]
    wrong += _beyond(found.record, limits)
    if baseline is not None:
        wrong += _changed(found.record, Path(baseline), tolerance)
    if wrong:
        how = how_it_ran(found.record)
        head = f"the model is not healthy{f' ({how})' if how else ''}:"
        raise AssertionError("\n  ".join([head, *wrong]))
    return found


def _beyond(record: Any, limits: "dict[Direction, float | None]") -> Iterator[str]:
    """Say which growth from end to end is beyond its limit, and where most of it is made."""
    from propagate.verdicts.baseline import growth_rates, overall
    from propagate.verdicts.findings import SUBJECTS

    for direction, limit in limits.items():
        if limit is None:
            continue
        what, rate = SUBJECTS[direction], overall(record, direction)
        if rate is None:
            yield f"the growth of the {what} cannot be told: it is not finite, or has no two layers"
        elif abs(rate) > limit:
            known = {k: v[direction] for k, v in growth_rates(record).items()}
            steps = sorted(((abs(v), k) for k, v in known.items() if v is not None), reverse=True)
            most = ", ".join(f"{known[k]:+.2f} at {k}" for size, k in steps[:3] if size > limit)
            yield f"the {what} changes by {rate:+.3f} decades per layer, over ±{limit:g}: {most}"


def _changed(record: Any, path: Path, tolerance: float | None) -> list[str]:
    """Compare with a baseline, or write it."""
    from propagate.verdicts import baseline as baselines
    from propagate.verdicts.thresholds import GROWTH_CHANGE

    if not path.exists() or any(_update[-1:]):
        baselines.write(record, path)
        return []
    return baselines.compare(record, path, GROWTH_CHANGE if tolerance is None else tolerance)
