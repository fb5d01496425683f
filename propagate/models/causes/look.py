"""What a second look at a model needs: its program, arguments, names, and where gradients start."""

import bisect
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import xarray as xr

from propagate.models.causes.tape import Pulled, Step, Tape, all_finite, any_nonzero, pulled
from propagate.tracing import source_labels
from propagate.tracing.instrument import Probe
from propagate.tracing.trace import SiteNames, site_key
from propagate.tracing.trees import arguments
from propagate.types import Array, Tree

Head = Callable[[Any], tuple[Array, Any]]


@dataclass(frozen=True)
class Look:
    """A model that was traced and run, to be looked at again.

    Attributes:
        tapped: its program.
        names: of its sites.
        params: its parameters.
        data: its inputs and labels.
        head: from its results to the scalar that gradients start at, and anything else.
        record: of the first look.
    """

    tapped: Probe
    names: SiteNames
    params: Tree
    data: Tree
    head: Head
    record: xr.Dataset

    @functools.cached_property
    def tape(self) -> Tape:
        """The program, evaluated equation by equation."""
        table = self.names.parameters
        flat = arguments(self.params, self.data)
        return Tape.of(self.tapped.jaxpr, flat, table.rows(), table.stacked)

    @property
    def has_finite_results(self) -> bool:
        """Whether all that the program returns is finite."""
        return all(all_finite(self.tape.values[k]) for k in self.tape.outputs)

    @functools.cached_property
    def seeds(self) -> dict[int, Array]:
        """Cotangents of the program's results."""
        tape = self.tape
        results = [tape.values[k] for k in tape.outputs]
        moves = [k for k, number in enumerate(tape.outputs) if tape.is_float(number)]

        def scalar(*moving: Any) -> Array:
            full = dict(enumerate(results)) | dict(zip(moves, moving, strict=True))
            return self.head(self.tapped.structure.unflatten(full.values()))[0]

        value, pull = jax.vjp(scalar, *(jnp.asarray(results[k]) for k in moves))
        seeds: dict[int, Array] = {}
        for k, g in zip(moves, pull(jnp.ones_like(value)), strict=True):
            number = tape.outputs[k]
            seeds[number] = seeds[number] + g if number in seeds else g
        return seeds

    @functools.cached_property
    def back(self) -> Pulled:
        """The gradient, pulled back as far as it is not zero."""
        return pulled(self.tape, self.seeds)

    def reached(self, below: int, value: int) -> int:
        """Return a bit for each parameter's row that a gradient at a value reaches.

        Args:
            below: how many of the tape's first steps make it.
            value: its number.
        """
        if (below, value) not in self._reached:
            seeds = {value: self.random_gradient(value)}
            through, bits = pulled(self.tape, seeds, below=below).cotangents, 0
            for number, own in through.items():
                source = self.tape.source[number]
                whole = source is None or len(source.index) < self.tape.stacked[source.number]
                if not whole and any_nonzero(own):
                    bits |= self.tape.depends[number]
            self._reached[below, value] = bits
        return self._reached[below, value]

    def random_gradient(self, value: int) -> Array:
        """Return a Gaussian of a value's shape and dtype."""
        x = jnp.asarray(self.tape.values[value])
        return jax.random.normal(jax.random.key(0), x.shape, jnp.float32).astype(x.dtype)

    @functools.cached_property
    def _reached(self) -> dict[tuple[int, int], int]:
        return {}

    @functools.cached_property
    def _keys(self) -> list[tuple[int, ...]]:
        return [site_key(row) for row in self.names.rows()]

    def site(self, step: Step) -> int:
        """Return the number of the last site up to a step; -1 if there is none."""
        return bisect.bisect_right(self._keys, step.key) - 1

    def steps_of(self, rows: Sequence[int]) -> list[Step | None]:
        """Return the step that makes the value of each site."""
        wanted = {self._keys[row]: row for row in rows}
        made = {wanted[s.key]: s for s in self.tape.steps if s.key in wanted}
        return [made.get(row) for row in rows]

    def is_site(self, step: Step) -> bool:
        """Return whether a step makes the value of a site."""
        k = self.site(step)
        return k >= 0 and self._keys[k] == step.key

    def operation(self, step: Step) -> str:
        """Return what a step does and where it is written: `sqrt at model.py:12`."""
        frames = map(source_labels.user_frame, (step.eqn, *step.calls[::-1]))
        frame = next((frame for frame in frames if frame), None)
        where = f" at {frame.file.rpartition('/')[2]}:{frame.line}" if frame else ""
        label = source_labels.label(step.eqn)
        if label == "select_n":  # a `where`, which may be that of a hard_tanh
            named = (str(call.params.get("name")) for call in step.calls)
            label = next((name for name in named if name in source_labels.NAMED), label)
        return label + where

    def place(self, step: Step) -> str:
        """Return the name of the last layer or operation that is a site, up to a step."""
        k = self.site(step)
        return "" if k < 0 else str(self.record["name"].values[k])

    def layer(self, step: Step) -> str:
        """Return the parameter of the last layer up to a step; "" without one."""
        k = self.site(step)
        if k < 0:
            return ""
        return str(self.record["parameter"].values[k] or self.record["after"].values[k])
