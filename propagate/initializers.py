r"""Initialisers of weights and biases: a base distribution times a scale.

Every initialiser here is $W = g\,n^{-1/2}\,Z$ with $Z$ drawn from a *base* (normal,
truncated normal, uniform, orthogonal, …) that does not depend on the scale $g\,n^{-1/2}$.
Initialisers that share a base therefore share their random draws: they differ in one number,
and a sweep over them compares like with like.

`INITIALIZERS` is the table: add a line to it to add an initialiser.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp

from propagate import checks, registry
from propagate.distributions import (
    DELTA,
    EYE,
    NORMAL,
    ONES,
    ORTHOGONAL,
    TRUNCATED,
    TRUNCATED_STD,
    UNIFORM,
    Base,
    Mode,
    Scale,
    Untuned,
    sparse_base,
    unknown_moments,
)
from propagate.types import OWN, Array, Sampler, UnusableInput, at_least_float32

AS_DRAWN, ABSENT = Scale(), Scale(0.0)


@dataclass(frozen=True)
class Initializer:
    """How a layer's weights and biases are drawn.

    Attributes:
        name: its spelling in tables, plots and records.
        base: the distribution of the weights before scaling.
        scale: the factor on a draw of `base`.
        law: its formula, for people.
        source: where it was published.
        bias: the factor on the biases' draws; they are normal, or uniform where the weights are.
        data_scaled: whether each layer is rescaled so that its output has variance `gain**2`
            on the batch at hand (LSUV).

    Example:
        >>> round(initializer("he_normal").scale(50, 100), 3)
        0.2
    """

    name: str
    base: Base
    scale: Scale = AS_DRAWN
    law: str = ""
    source: str = ""
    bias: Scale = ABSENT
    data_scaled: bool = False

    @property
    def tuned(self) -> bool:
        """Whether its scales follow from the activation: see `theory.criticality.tuned`."""
        return isinstance(self.scale, Untuned)

    def __rmul__(self, factor: float) -> "Initializer":
        """Return the same initialiser with weights `factor` times as large."""
        scale = dataclasses.replace(self.scale, gain=factor * self.scale.gain)
        before, star, stem = self.name.rpartition("*")
        times = registry.number(factor * float(before) if star else factor)
        name, law = f"{times}*{stem}", f"{registry.number(factor)} × {self.law}"
        return dataclasses.replace(self, name=name, law=law, scale=scale)

    def moments(self, fan_in: int, fan_out: int) -> tuple[float, float]:
        """Return the mean and the variance of one weight of a (fan_in, fan_out) matrix.

        Args:
            fan_in: inputs of the matrix.
            fan_out: its outputs.
        """
        mean, variance = self.base.moments(fan_in, fan_out)
        factor = self.scale(fan_in, fan_out)
        return factor * mean, factor**2 * variance

    def __call__(self, key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
        """Draw a weight matrix, as the functions of `jax.nn.initializers` do.

        Args:
            key: a JAX random key.
            shape: (fan_in, fan_out).
            dtype: of the result; drawn in float32 if that is wider.

        Raises:
            UnusableInput: the initialiser depends on data (LSUV), which a draw does not have.
        """
        if self.data_scaled:
            raise UnusableInput(f"{self.name} needs a batch; it is only defined within a network")
        wide = at_least_float32(dtype)
        return jnp.asarray(self.base.sample(key, shape, wide) * self.scale(*shape), dtype)


def _by_fan(name: str, base: Base, gain: float, mode: Mode, law: str, source: str) -> Initializer:
    """W = gain Z/sqrt(fan)."""
    return Initializer(name, base, Scale(gain, mode), law, source)


def zeros() -> Initializer:
    """W = 0."""
    return Initializer("zeros", NORMAL, Scale(0.0), "0")


def constant(value: float = 0.01) -> Initializer:
    """W_ij = value."""
    name = registry.spell("constant", {}, {"value": value})
    return Initializer(name, ONES, Scale(value), f"{value:g}")


def normal(std: float = 0.01) -> Initializer:
    """W_ij ~ N(0, std^2)."""
    name = registry.spell("normal", {}, {"std": std})
    return Initializer(name, NORMAL, Scale(std), f"N(0, {std:g}²)", "Krizhevsky et al. (2012)")


def truncated_normal(std: float = 0.02) -> Initializer:
    """W_ij ~ N(0, s^2) cut at 2 s, with s such that the standard deviation is `std`."""
    name = registry.spell("truncated_normal", {}, {"std": std})
    return Initializer(name, TRUNCATED, Scale(std), f"N(0, {std:g}²) cut at ±2σ, corrected")


def uniform(limit: float = 0.05) -> Initializer:
    """W_ij ~ U(-limit, limit), of variance limit^2/3."""
    name = registry.spell("uniform", {}, {"limit": limit})
    return Initializer(name, UNIFORM, Scale(limit / math.sqrt(3.0)), f"U(-{limit:g}, {limit:g})")


def _lecun(base: Base, name: str) -> Initializer:
    return _by_fan(name, base, 1.0, "fan_in", "variance 1/fan_in", "LeCun et al. (1998)")


def _glorot(base: Base, name: str) -> Initializer:
    source = "Glorot & Bengio (2010), Eq. (12)"
    return _by_fan(name, base, 1.0, "fan_avg", "variance 2/(fan_in + fan_out)", source)


def _he(base: Base, stem: str, mode: Mode, slope: float) -> Initializer:
    name = registry.spell(stem, {"slope": 0.0, "mode": "fan_in"}, {"slope": slope, "mode": mode})
    gain = math.sqrt(2.0 / (1.0 + slope**2))
    law = f"variance {'2' if slope == 0 else f'{gain**2:.4g}'}/{mode}"
    return _by_fan(name, base, gain, mode, law, "He et al. (2015), arXiv:1502.01852")


def he_normal(slope: float = 0.0, mode: Mode = "fan_in") -> Initializer:
    """W_ij ~ N(0, 2/((1 + slope^2) fan)), for a leaky ReLU of that slope."""
    return _he(NORMAL, "he_normal", mode, slope)


def he_uniform(slope: float = 0.0, mode: Mode = "fan_in") -> Initializer:
    """W_ij uniform with variance 2/((1 + slope^2) fan)."""
    return _he(UNIFORM, "he_uniform", mode, slope)


def orthogonal(gain: float = 1.0) -> Initializer:
    """W = gain Q with Q (semi-)orthogonal, Haar distributed."""
    name = registry.spell("orthogonal", {"gain": 1.0}, {"gain": gain})
    law = f"{gain:g} × orthogonal" if gain != 1 else "orthogonal"
    return Initializer(name, ORTHOGONAL, Scale(gain), law, "Saxe et al. (2014), arXiv:1312.6120")


def delta_orthogonal(gain: float = 1.0) -> Initializer:
    """Gain Q at the middle tap of a kernel, 0 elsewhere; Q (semi-)orthogonal."""
    name = registry.spell("delta_orthogonal", {"gain": 1.0}, {"gain": gain})
    law = f"{gain:g} × orthogonal at the middle tap"
    return Initializer(name, DELTA, Scale(gain), law, "Xiao et al. (2018), arXiv:1806.05393")


def identity(gain: float = 1.0) -> Initializer:
    """W = gain I."""
    name = registry.spell("identity", {"gain": 1.0}, {"gain": gain})
    return Initializer(name, EYE, Scale(gain), f"{gain:g} × I", "Le et al. (2015)")


def sparse(sparsity: float = 0.9, std: float = 0.01) -> Initializer:
    """W_ij ~ N(0, std^2), with ceil(sparsity fan_in) zeros for each output unit."""
    if not 0.0 <= sparsity < 1.0:
        raise UnusableInput(f"sparsity must lie in [0, 1), got {sparsity:g}")
    values = {"sparsity": sparsity, "std": std}
    name = registry.spell("sparse", {"sparsity": 0.9, "std": 0.01}, values)
    law = f"N(0, {std:g}²), {sparsity:.0%} zeros"
    return Initializer(name, sparse_base(sparsity), Scale(std), law, "Martens (2010)")


def sigma(sigma_w: float = 1.0, sigma_b: float = 0.0) -> Initializer:
    """W_ij ~ N(0, sigma_w^2/fan_in), b_i ~ N(0, sigma_b^2): a point of the mean-field plane."""
    checks.check_number("sigma_w", sigma_w)
    checks.check_number("sigma_b", sigma_b)
    name = f"sigma({registry.number(sigma_w)},{registry.number(sigma_b)})"
    law = f"N(0, {sigma_w:g}²/fan_in), bias N(0, {sigma_b:g}²)"
    source = "Poole et al. (2016), arXiv:1606.05340"
    return Initializer(name, NORMAL, Scale(sigma_w, "fan_in"), law, source, Scale(sigma_b))


def _critical(base: Base, name: str) -> Initializer:
    """W and b at the edge of chaos of the activation, for inputs of unit second moment."""
    mode: Mode = "constant" if base is ORTHOGONAL else "fan_in"
    law = "sigma_w and sigma_b that keep q and the gradient, by theory of the activation"
    source = "Poole et al. (2016), arXiv:1606.05340"
    return Initializer(name, base, Untuned(1.0, mode), law, source, Untuned(1.0))


def lsuv(gain: float = 1.0) -> Initializer:
    """Orthogonal, then each layer divided by its output's standard deviation on the batch."""
    name = registry.spell("lsuv", {"gain": 1.0}, {"gain": gain})
    law = f"orthogonal, rescaled on the batch to std {gain:g}"
    source = "Mishkin & Matas (2016), arXiv:1511.06422"
    return Initializer(name, ORTHOGONAL, Scale(gain), law, source, data_scaled=True)


def _uniform_by_fan_in(name: str, source: str) -> Initializer:
    """W_ij and b_i uniform on ±1/sqrt(fan_in), of variance 1/(3 fan_in)."""
    scale = Scale(math.sqrt(1.0 / 3.0), "fan_in")
    law = "U(±1/√fan_in), bias likewise"
    return Initializer(name, UNIFORM, scale, law, source, bias=scale)


_HAIKU_LAW = "N(0, 1/fan_in) cut at ±2σ, uncorrected: variance 0.774/fan_in"
INITIALIZERS: Mapping[str, Callable[..., Initializer]] = MappingProxyType(
    {
        "zeros": zeros,
        "constant": constant,
        "normal": normal,
        "truncated_normal": truncated_normal,
        "uniform": uniform,
        "lecun_normal": functools.partial(_lecun, NORMAL, "lecun_normal"),
        "lecun_uniform": functools.partial(_lecun, UNIFORM, "lecun_uniform"),
        "glorot_normal": functools.partial(_glorot, NORMAL, "glorot_normal"),
        "glorot_uniform": functools.partial(_glorot, UNIFORM, "glorot_uniform"),
        "xavier_normal": functools.partial(_glorot, NORMAL, "xavier_normal"),
        "xavier_uniform": functools.partial(_glorot, UNIFORM, "xavier_uniform"),
        "he_normal": he_normal,
        "he_uniform": he_uniform,
        "kaiming_normal": he_normal,
        "kaiming_uniform": he_uniform,
        "orthogonal": orthogonal,
        "delta_orthogonal": delta_orthogonal,
        "identity": identity,
        "sparse": sparse,
        "sigma": sigma,
        "critical": functools.partial(_critical, NORMAL, "critical"),
        "critical_orthogonal": functools.partial(_critical, ORTHOGONAL, "critical_orthogonal"),
        "lsuv": lsuv,
        "torch": functools.partial(
            _uniform_by_fan_in, "torch", "torch.nn.Linear: kaiming_uniform(a=√5)"
        ),
        "equinox": functools.partial(_uniform_by_fan_in, "equinox", "equinox.nn.Linear"),
        "keras": functools.partial(
            _by_fan, "keras", UNIFORM, 1.0, "fan_avg", "glorot_uniform", "keras Dense"
        ),
        "flax": functools.partial(
            _by_fan, "flax", TRUNCATED, 1.0, "fan_in", "lecun_normal, truncated", "flax Dense"
        ),
        "haiku": functools.partial(
            _by_fan, "haiku", TRUNCATED, TRUNCATED_STD, "fan_in", _HAIKU_LAW, "haiku.Linear"
        ),
    }
)


def initializer(spec: "str | tuple[float, float] | Initializer | Sampler") -> Initializer:
    """Return the initialiser that `spec` means.

    Args:
        spec: a spelling (`"he_normal"`, `"normal_0.02"`, `"0.01*he_normal"`), a pair
            `(sigma_w, sigma_b)`, an `Initializer`, or any `(key, shape, dtype) -> array`, which
            is taken as it is, with zero biases.

    Raises:
        UnusableInput: an unknown name (the nearest is suggested), or none of these.

    Example:
        >>> initializer("0.5*he_normal").moments(256, 256)
        (0.0, 0.001953125...)
    """
    if isinstance(spec, Initializer):
        return spec
    if isinstance(spec, str):
        factor, star, name = spec.rpartition("*")
        init = registry.build("initialiser", INITIALIZERS, name)
        return _factor(factor, spec) * init if star else init
    if isinstance(spec, tuple) and len(spec) == 2:
        return sigma(*spec)
    if not callable(spec):
        raise UnusableInput(
            "an initialiser must be a name, a pair (sigma_w, sigma_b), an Initializer or a "
            f"function (key, shape, dtype) -> array, got {spec!r}"
        )
    name = _own_name(spec)
    return Initializer(name, Base(name, spec, unknown_moments), law=OWN, source=OWN)


def _own_name(spec: Callable) -> str:
    """Return the name of a function; of an `init` that another made, that one's with its values.

    All of JAX's are called `init`: `he_uniform()` is `variance_scaling(2,fan_in,uniform)`.
    """
    name = str(getattr(spec, "__name__", type(spec).__name__))
    maker, _, _ = getattr(spec, "__qualname__", name).rpartition(".<locals>")
    if name != "init" or not maker:
        return name
    made_with = [cell.cell_contents for cell in getattr(spec, "__closure__", None) or ()]
    numbers = [f"{value:g}" for value in made_with if isinstance(value, float)]
    words = sorted(value for value in made_with if isinstance(value, str))
    return f"{maker.rpartition('.')[2]}({','.join(numbers + words)})"


def _factor(text: str, spec: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UnusableInput(f"the multiplier in {spec!r} must be a number, got {text!r}") from None
