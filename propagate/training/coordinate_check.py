r"""`coordinate_check`: signals, gradients and the first updates of a model against its width.

Every rms is fitted as $\text{width}^p$: of a signal at initialisation, and of its change
$x(\theta_t) - x(\theta_0)$ on the same batch after t updates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np
import xarray as xr

from propagate.checks import check_choice, check_count, check_number, random_key
from propagate.record import provenance
from propagate.training import optimizers
from propagate.training.first_updates import Loss, Model, follow, stacked, traced
from propagate.types import Array, Tree, UnusableInput
from propagate.verdicts.growth import counted
from propagate.verdicts.width_rules import Exponents, Parametrisation, exponents

Scale = Callable[[str, tuple[int, ...], int], float]


@dataclass(frozen=True)
class CoordinateCheck:
    """What `coordinate_check` found; prints as a verdict with the exponents that are off.

    Attributes:
        record: dims (width, seed, step, site) and (width, seed, step, weight), log10 of second
            moments: the signal `log10_forward_q`, its gradient `log10_backward_q`, its change
            `log10_change_q`; of parameters `log10_weight_q`, `log10_gradient_q`, and
            `log10_update_q` of the update that this gradient leads to. `step` counts updates;
            `wide` tells the sites that have more coordinates at more width.
        exponents: powers of width of all of these, with intervals over seeds.
    """

    record: xr.Dataset
    exponents: Exponents

    @property
    def passed(self) -> bool | None:
        """Whether they are the parametrisation's; None where that is not settled or not asked."""
        return self.exponents.passed

    def plot(self) -> Any:
        """Draw sizes and changes against width, a panel for each step; return the figure."""
        from propagate import plot

        return plot.coordinate_check(self.record)

    def __str__(self) -> str:
        """Return the verdict, and the exponents that are off, worst first."""
        about, widths = self.record.attrs, ", ".join(map(str, self.record["width"].values))
        asked = about.get("parametrisation", "no parametrisation")
        seeds = counted(self.record.sizes["seed"], "seed")
        return f"{asked}, {about['optimizer']}, widths {widths}, {seeds}: {self.exponents}"


def coordinate_check(
    build: Callable[[int, Array], tuple[Loss, Tree, Tree]],
    *,
    key: Array,
    widths: Sequence[int] = (64, 128, 256, 512),
    steps: int = 3,
    seeds: int = 8,
    optimizer: Any = "adam",
    learning_rate: float = 0.001,
    parametrisation: Parametrisation | None = "mup",
    scale: Scale | None = None,
    only: str | None = None,
) -> CoordinateCheck:
    r"""Follow a model's signals, gradients and first updates against its width.

    A parameter's learning rate is `learning_rate` times `scale`; by default that is 1, and under
    `"mup"` a power of m = width/widths[0]: of input weights, biases and gains m for SGD, 1 for
    Adam; of hidden weights 1 and 1/m; of output weights 1/m and 1/m. Initial values and
    multipliers are the model's own: to these rates belong variances of 1/fan_in, and 1/fan_in² in
    the output weights.

    To pass, no signal may grow with width, at initialisation or by its change after any update.
    Signals must not shrink either: under `"standard"` at initialisation, under `"mup"` those of
    as many coordinates as the width at initialisation, and every layer's in its change.

    Args:
        build: `build(width, key) -> (loss, params, batch)`, where `loss(params, batch)` is a
            scalar that depends on nothing else: one width's is used for all of its seeds.
        key: a JAX random key; each seed's is the same for all widths.
        widths: two or more, in increasing order.
        steps: how many updates to follow.
        seeds: number of independent draws.
        optimizer: `"sgd"`, `"adam"`, or a pair (init, update) such as Optax's, at rate 1.
        learning_rate: at the first width; small, for the first order in it is what is predicted.
        parametrisation: what to judge by; None fits the exponents and judges nothing.
        scale: `scale(path, shape, width)`, the multiple of the learning rate of one parameter.
        only: a pattern for the names of sites, such as `"layers.*"`.

    Raises:
        UnusableInput: not such a `build`, or not one model at several widths; not an optimiser,
            or one whose rates under µP are not known and no `scale`.

    Example:
        >>> import jax.numpy as jnp
        >>> def build(width, key):
        ...     k = jax.random.split(key, 4)
        ...     params = {"in": jax.random.normal(k[0], (16, width)) / 4,
        ...               "out": jax.random.normal(k[1], (width, 1)) / width}
        ...     batch = jax.random.normal(k[2], (8, 16)), jax.random.normal(k[3], (8, 1))
        ...     loss = lambda p, xy: jnp.mean((jnp.tanh(xy[0] @ p["in"]) @ p["out"] - xy[1]) ** 2)
        ...     return loss, params, batch
        >>> coordinate_check(build, key=jax.random.key(0), widths=(64, 256), steps=1).passed
        True

    Reference:
        Yang and Hu (2021), arXiv:2011.14522; Yang et al. (2022), arXiv:2203.03466, Table 3 and
        Appendix D.1.
    """
    _check(widths, {"steps": steps, "seeds": seeds}, learning_rate, parametrisation)
    pair, root = optimizers.pair(optimizer), random_key(key)
    keys = [jax.random.fold_in(root, seed) for seed in range(seeds)]
    models = [traced(*_built(build, width, keys[0]), width, only) for width in widths]
    _check_architecture(models)
    scale = scale or _scale(models, optimizer, parametrisation)
    found = []
    for model in models:
        table = model.names.parameters
        named = zip(table.paths, table.shapes, strict=True)
        rates = [learning_rate * float(scale(*one, model.width)) for one in named]
        step, seeded = model.step(pair, rates), (_built(build, model.width, k)[1:] for k in keys)
        found.append(stacked([follow(step, pair, steps, *one) for one in seeded], "seed"))
    asked = {"parametrisation": parametrisation, "learning_rate": learning_rate}
    name = optimizer if isinstance(optimizer, str) else type(optimizer).__name__
    made = stacked(found, "width").assign_coords(width=list(widths))
    made = made.assign_coords(wide=("site", _grows(models)))
    made = made.assign_attrs(provenance.provenance(**asked, optimizer=name))
    return CoordinateCheck(made, exponents(made, parametrisation))


def _check(
    widths: Sequence[int], counts: dict[str, int], rate: float, parametrisation: Any
) -> None:
    for name, count in [*counts.items(), *(("a width", width) for width in widths)]:
        check_count(name, count)
    if len(widths) < 2 or list(widths) != sorted(set(widths)):
        raise UnusableInput(f"widths must be two or more in increasing order, got {widths}")
    check_number("learning_rate", rate)
    check_choice("parametrisation", parametrisation, (*get_args(Parametrisation), None))


def _built(build: Any, width: int, key: Array) -> tuple[Loss, Tree, Tree]:
    made = build(width, key)
    if not (isinstance(made, tuple) and len(made) == 3 and callable(made[0])):
        raise UnusableInput(
            "build(width, key) must return (loss, params, batch), the first a function, "
            f"got {made!r:.80}"
        )
    return made


def _check_architecture(models: list[Model]) -> None:
    """Raise unless the models differ, and in width alone."""
    first, *others = models
    for other in others:
        for what, ours, theirs in (
            ("sites", *(m.names.names(m.names.rows()) for m in (first, other))),
            ("parameters", *(m.names.parameters.paths for m in (first, other))),
        ):
            if list(ours) != list(theirs):
                odd = sorted(set(ours) ^ set(theirs)) or theirs
                raise UnusableInput(
                    f"build must make one architecture at every width, but the {what} at widths "
                    f"{first.width} and {other.width} differ: {', '.join(odd[:5])}"
                )
        if first.names.parameters.shapes == other.names.parameters.shapes:
            raise UnusableInput(
                f"build must widen the model, but at widths {first.width} and {other.width} its "
                "parameters have the same shapes"
            )


def _grows(models: list[Model]) -> np.ndarray:
    """Return which sites have more coordinates at more width."""
    return models[-1].sizes() > models[0].sizes()


def _scale(models: list[Model], optimizer: Any, parametrisation: Parametrisation | None) -> Scale:
    """Return the multiple of the learning rate that the parametrisation asks for."""
    if parametrisation != "mup":
        return lambda path, shape, width: 1.0
    if not isinstance(optimizer, str):
        raise UnusableInput(
            f"µP's rates are known for {' and '.join(optimizers.MUP)}; for another optimizer "
            "pass scale"
        )
    narrow, wide, powers = models[0], models[-1], optimizers.MUP[optimizer]
    rows = zip(wide.names.rows(), _grows(models), strict=True)
    made = {s.parameter.number: bool(more) for (s, _), more in rows if s.parameter}
    before, after = narrow.names.parameters, wide.names.parameters
    shapes = zip(after.paths, before.shapes, after.shapes, strict=True)
    roles = {
        path: optimizers.role(*pair, out_grows=made.get(k, True))
        for k, (path, *pair) in enumerate(shapes)
    }
    return lambda path, shape, width: (width / narrow.width) ** powers[roles[path]]
