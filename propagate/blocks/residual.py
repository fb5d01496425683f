r"""Residual stacks, $h_l = h_{l-1} + \alpha_l\,f(h_{l-1})$ with a pre-activation branch f."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from propagate import checks
from propagate.blocks.contract import Family
from propagate.blocks.layer import LayerContext
from propagate.blocks.parameters import Parameter, Size, bias
from propagate.checks import whole_number
from propagate.record.measures import Measure
from propagate.record.statistics import q, variance
from propagate.types import Array, Float

Branch = Literal["plain", "depth", "skipinit", "rezero", "fixup", "nf"]
UNSCALED = "unscaled_branch"
NF_ALPHA = 0.2  # Brock et al. (2021)
WS_EPS = 1e-4  # least fan_in · variance that scaled weight standardisation divides by


@dataclass(frozen=True, kw_only=True)
class Residual(Family):
    r"""A stack of residual blocks.

    Attributes:
        branch: `"plain"`; `"depth"`, scaled by $1/\sqrt L$; `"skipinit"` or `"rezero"`, scaled by
            0; `"fixup"`, whose biases and last weight are 0 and whose other weights are
            $L^{-1/(2m-2)}$ as large (Zhang et al., 2019); `"nf"`, $h + \alpha f(h/\beta_l)$ with
            $\beta_l^2 = 1 + (l-1)\alpha^2$ and scaled, standardised weights (Brock et al., 2021).
        alpha: another factor on the branch; 1, or 0.2 of `"nf"`, by default.
        maps: m, the weights of a branch.

    Example:
        >>> str(Residual(branch="nf", alpha=0.5))
        'residual(branch=nf,alpha=0.5)'
    """

    branch: Branch = "plain"
    alpha: float | None = None
    maps: int = 2

    name: ClassVar[str] = "residual"
    arrays: ClassVar[int] = 4
    bypassed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_choice("branch", self.branch, Branch)
        object.__setattr__(self, "maps", whole_number("maps", self.maps))
        if self.alpha is not None:
            checks.check_number("alpha", self.alpha)

    @property
    def inner_units(self) -> bool:
        """Whether a branch has units between two of its weights."""
        return self.maps > 1

    @property
    def wants_gain(self) -> bool:
        """Whether the branch needs the activation's gain."""
        return self.branch == "nf"

    @property
    def depth_scaled(self) -> bool:
        """Whether the branch is scaled by the depth."""
        return self.branch in ("depth", "fixup")

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The statistics of the branch; the stream is the signal itself.

        Of a branch that is scaled by zero also those of what is scaled, the gradient of the scale.
        """
        unscaled = (Measure("q", q, (self.zero_scaled,), power=2),) if self.zero_scaled else ()
        return (
            Measure("q", q, ("branch", "branch_gradient"), power=2),
            Measure("variance", variance, ("branch",), power=2),
            *unscaled,
        )

    @property
    def zero_scaled(self) -> str:
        """The place of what is scaled by zero, if anything is."""
        return UNSCALED if self.branch in ("skipinit", "rezero") else ""

    def init(self, size: Size) -> dict[str, Parameter]:
        """Return the weights, biases and masks of the branch."""
        n, found = size.fan_in, {}
        for k in range(1, self.maps + 1):
            factor = self._factor(k, size.depth)
            found[f"map{k}"] = Parameter((n, n), n, n, factor=factor)
            found[f"bias{k}"] = bias(size, factor=0.0 if self.branch == "fixup" else 1.0)
            found |= self.masks(size, f"mask{k}")
        return found

    def _factor(self, k: int, depth: int) -> float:
        if self.branch != "fixup":
            return 1.0
        return 0.0 if k == self.maps else depth ** (-1 / (2 * self.maps - 2))

    def apply(self, at: LayerContext, h: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
        """Return h + alpha f(h)."""
        entering = self.expected_variance(at.index.astype(jnp.float32))
        f = h / jnp.sqrt(entering) if self.branch == "nf" else h
        prepare = standardised if self.branch == "nf" else None
        for k in range(1, self.maps + 1):
            x = self.activated(at, f, f"mask{k}")
            x = at.gain * x.astype(jnp.float32) if self.branch == "nf" else x
            f = at.bias(f"bias{k}", at.product(f"map{k}", x, prepare=prepare))
        f = at.tap(self.zero_scaled, f) if self.zero_scaled else f
        return h + at.tap("branch", f * self.scale(at.size.depth))

    def expected_variance(self, index: Array | int) -> Array | float:
        r"""Return $\beta_l^2$, the variance of the stream that enters block l of `"nf"`."""
        return 1 + (index - 1) * self._alpha**2

    @property
    def _alpha(self) -> float:
        return self.alpha if self.alpha is not None else NF_ALPHA if self.branch == "nf" else 1.0

    def scale(self, depth: int) -> float:
        """Return what the branch is multiplied by."""
        if self.branch in ("skipinit", "rezero"):
            return 0.0
        return self._alpha / math.sqrt(depth) if self.branch == "depth" else self._alpha


def standardised(weight: Array) -> Array:
    r"""Return $(W - \mu)/(\sigma\sqrt{fan\_in})$, moments over the inputs of each output."""
    apart = weight - jnp.mean(weight, axis=0, keepdims=True)
    spread = weight.shape[0] * jnp.mean(jnp.square(apart), axis=0, keepdims=True)
    return apart * jax.lax.rsqrt(jnp.maximum(spread, WS_EPS))
