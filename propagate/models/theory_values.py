r"""Values of a wide network's program, known by their distribution over units and draws.

A value is one of

* a `Level`: a number that all units share, as the mean of many is in the limit;
* a `Wave`: a function of one Gaussian $h$, by its values at the nodes of a quadrature;
* a `Blend`: of which only mean and second moment are known, NaN where they are not;
* an array that does not depend on the data.

Waves and blends know where gradients go: `energy` is by how much the squared gradient, summed over
all elements, is multiplied from the value back to each node upstream: $E\phi'^2$ for $\phi(h)$.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from propagate.theory import gauss

BENDS = (0.0, -1.0, 1.0, -3.0, 3.0, 6.0)  # where named activations have kinks
ORDER = 8  # points of a panel: 1e-5 for a kink within one
Energy = dict[int, float]  # by the number of a node upstream


@dataclass(frozen=True)
class Level:
    """A number that all units share."""

    value: float


@dataclass(frozen=True, eq=False)
class Wave:
    """A function f of one Gaussian.

    Attributes:
        tie: of waves with the same one, values at a node of the quadrature are of one h.
        weight: of the nodes.
        at: f there.
        slopes: its derivative there by each node of the program upstream.
        kin: what this is a part of, if that is along positions: parts are not independent.
    """

    tie: object
    weight: np.ndarray
    at: np.ndarray
    slopes: dict[int, np.ndarray]
    kin: object = None

    @property
    def mean(self) -> float:
        """E f."""
        return float(self.weight @ self.at)

    @property
    def second(self) -> float:
        """E f^2."""
        return float(self.weight @ np.square(self.at))

    @property
    def energy(self) -> Energy:
        """E f'^2, by each node."""
        return {k: float(self.weight @ np.square(v)) for k, v in self.slopes.items()}

    @property
    def normal(self) -> bool:
        """Whether it is Gaussian: f is a line."""
        slope = next(iter(self.slopes.values()), np.zeros(1))
        return bool(np.ptp(slope) <= 1e-9 * np.max(np.abs(slope)) and slope.any())


@dataclass(frozen=True, eq=False)
class Blend:
    """A value of which two moments are known; `normal`: a Gaussian that is no node yet."""

    mean: float
    second: float
    energy: Energy = field(default_factory=dict)
    normal: bool = False


Random = Wave | Blend
Value = Any  # a level, a wave, a blend or an array


def gaussian(mean: float, second: float, node: int) -> Wave:
    """Return the Gaussian that a node of the program is."""
    root = math.sqrt(max(second - mean**2, 0.0))
    z, weight = gauss.nodes(np.array([[root]]), np.array([BENDS]) - mean, ORDER)
    return Wave(object(), weight[0], mean + root * z[0], {node: np.ones(z.size)})


def energy(value: Value) -> Energy:
    """Return where gradients go."""
    return value.energy if isinstance(value, Random) else {}


def unknown(*values: Value) -> Blend:
    """Return what is known of a result when nothing is: gradients go to where its operands are."""
    return Blend(math.nan, math.nan, {k: math.nan for v in values for k in energy(v)})


def is_data(value: Value) -> bool:
    """Return whether a value depends on the data."""
    return isinstance(value, (Level, Wave, Blend))


def number(value: Value) -> Any:
    """Return the number that all elements are; None if they differ."""
    if isinstance(value, Level):
        return value.value
    if isinstance(value, Random) or jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return None
    flat = np.ravel(np.asarray(value))
    return flat[0] if flat.size and (flat == flat[0]).all() else None


def blend(value: Value) -> Blend:
    """Return the two moments of any value."""
    if isinstance(value, Level):
        return Blend(value.value, value.value**2)
    if isinstance(value, Random):
        return Blend(value.mean, value.second, value.energy)
    wide = np.asarray(value, np.float64)
    return Blend(float(wide.mean()), float(np.square(wide).mean()))


def scaled(value: Blend, factor: float, share: float = 1.0) -> Blend:
    """Return `factor` times a share of a value's elements, and zeros in place of the others."""
    both = share * factor**2
    through = {k: v * both for k, v in value.energy.items()}
    return Blend(share * factor * value.mean, both * value.second, through)


def mixed(parts: Iterable[Blend]) -> Blend:
    """Return the sum of values of which each element is zero in all but one."""
    mean = second = 0.0
    through: Energy = {}
    for part in parts:
        mean, second = mean + part.mean, second + part.second
        through = _joined(through, part.energy)
    return Blend(mean, second, through)


def total(a: Value, b: Value, sign: float = 1.0) -> Blend:
    """Return the sum of two independent values, or their difference."""
    one, two = blend(a), scaled(blend(b), sign)
    both = mixed((one, two))
    return replace(both, second=both.second + 2 * one.mean * two.mean)


def product(a: Value, b: Value) -> Blend:
    """Return the product of two independent values."""
    one, two = blend(a), blend(b)
    through = _joined(_times(one.energy, two.second), _times(two.energy, one.second))
    return Blend(one.mean * two.mean, one.second * two.second, through)


def part(value: Value, *, positions: bool) -> Value:
    """Return some of the units of a value, or some of its positions."""
    if isinstance(value, Level):
        return value
    if isinstance(value, Wave):
        kin = (value.kin or value.tie) if positions else value.kin
        return replace(value, tie=object(), kin=kin)
    return unknown(value) if positions else replace(value, normal=False)


def independent(a: Value, b: Value) -> bool:
    """Return whether two values are, as far as can be told."""
    kin = [v.kin or v.tie for v in (a, b) if isinstance(v, Wave)]
    return len(kin) < 2 or kin[0] is not kin[1]


def _times(through: Energy, factor: float) -> Energy:
    return {k: v * factor for k, v in through.items()}


def _joined(a: Energy, b: Energy) -> Energy:
    return {k: a.get(k, 0.0) + b.get(k, 0.0) for k in a | b}
