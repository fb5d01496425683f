"""A stack's record as the rules read it: pairing by pairing, with what is known of parameters."""

import functools
import json
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from propagate.record.dataset import measured_directions, second_moment, second_moment_name
from propagate.record.provenance import about_parameters
from propagate.types import Direction

KNOWN = ("shared", "bypassed", "zero_scaled", "normed_end")
"""What a record says of all of its pairings."""


@dataclass(frozen=True)
class Pairing:
    """What was measured of one initialiser with one activation.

    Attributes:
        init: the initialiser's name.
        activation: the activation's name.
        record: its variables, with dims (seed, layer).
        dtype: of its weights and signals.
        biased: whether it has biases that are not zero; None if that is not known.
        fixed: whether its weights are the same for every key.
        alike: whether all units within a branch have the same weights into them.
        shared: whether all layers have the same weights.
        bypassed: whether a signal can go past the weights of a layer.
        zero_scaled: the place of what a learned scalar, zero at the start, multiplies; "" if none.
        normed_end: whether the last layer's output is normalised, and that of others is not.
    """

    init: str
    activation: str
    record: xr.Dataset
    dtype: str
    biased: bool | None = None
    fixed: bool = False
    alike: bool = False
    shared: bool = False
    bypassed: bool = False
    zero_scaled: str = ""
    normed_end: bool = False

    @property
    def range(self) -> Any:
        """The limits of the dtype, as `finfo` has them."""
        return jnp.finfo(self.dtype)

    def values(self, name: str) -> np.ndarray | None:
        """Return a variable as an array (seed, layer), or None if it was not measured."""
        variable = self.record.variables.get(name)  # without coordinates, which take longer
        return None if variable is None else variable.transpose("seed", "layer").values

    def measured(self, direction: Direction) -> bool:
        """Whether there is any number of the signal in a direction."""
        values = self.values(second_moment_name(direction))
        return values is not None and not np.isnan(values).all()


def pairings_of(record: xr.Dataset) -> Iterator[Pairing]:
    """Yield each pairing of a record, without what an interrupted sweep did not measure."""
    spec = json.loads(record.attrs.get("network", "{}"))
    dtype = record.attrs.get("dtype", "float32")
    known = about_parameters(record)
    about = {name: known[name] for name in KNOWN if name in known}
    for dim in ("init", "activation"):
        if dim not in record.coords:
            record = record.assign_coords({dim: spec.get(dim, "")})
        if dim not in record.dims:
            record = record.expand_dims(dim)
    moments = [second_moment(record, direction) for direction in measured_directions(record)]
    for init in map(str, record["init"].values):
        biased = init in known["biased"] if "biased" in known else None
        of_init = {name: init in known.get(name, ()) for name in ("fixed", "alike")}
        for phi in map(str, record["activation"].values):
            chosen = {"init": init, "activation": phi}
            seen = [q.sel(chosen).notnull().any("layer") for q in moments]
            measured = functools.reduce(operator.or_, seen)
            if measured.any():
                own = record.sel(chosen)
                own = own.isel(seed=measured.values) if "seed" in own.dims else own
                own = own if "seed" in own.dims else own.expand_dims("seed")
                yield Pairing(init, phi, own, dtype, biased, **of_init, **about)
