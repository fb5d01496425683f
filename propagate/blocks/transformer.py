r"""Transformer stacks: attention between the positions of an input, and an MLP at each.

Weights have no biases. The inputs are N(0, 1) embeddings.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from propagate import checks
from propagate.blocks.contract import Family, Norm, normalise
from propagate.blocks.layer import LayerContext
from propagate.blocks.parameters import Parameter, Size, gradient_of
from propagate.checks import whole_number
from propagate.record.measures import Measure
from propagate.record.statistics import as_it_is, q, token_correlation, token_effective_rank
from propagate.types import Array, Float, UnusableInput

Arrangement = Literal["pre", "post", "deepnorm", "skip", "attention"]
Scheme = Literal["standard", "gpt2", "mup"]
BRANCHES = ("attention_branch", "mlp_branch")


@dataclass(frozen=True, kw_only=True)
class Transformer(Family):
    r"""A transformer encoder.

    Attributes:
        arrangement: `"pre"`, $h + f(N(h))$ with a last N; `"post"`, $N(h + f(h))$; `"deepnorm"`,
            $N(\alpha h + f(h))$ with $\alpha = (2L)^{1/4}$ and value, output and MLP weights
            $\beta = (8L)^{-1/4}$ as large (Wang et al., 2022); `"skip"`, $h + f(h)$ of attention
            alone; `"attention"` without even that (Dong et al., 2021).
        scheme: `"gpt2"` scales what leads into the stream by $1/\sqrt{2L}$; `"mup"` divides
            scores by the size of a head rather than by its root.
        heads: of attention; they divide the width.
        tokens: positions of an input.
        ratio: hidden units of the MLP per unit.

    Example:
        >>> str(Transformer(arrangement="post"))
        'transformer(arrangement=post)'
    """

    norm: Norm = "layer"
    arrangement: Arrangement = "pre"
    scheme: Scheme = "standard"
    heads: int = 4
    tokens: int = 32
    ratio: int = 4

    name: ClassVar[str] = "transformer"
    homogeneous: ClassVar[bool] = False
    starts_with_phi: ClassVar[bool] = False
    arrays: ClassVar[int] = 24
    bypassed: ClassVar[bool] = True
    inner_units: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heads", "tokens", "ratio"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        checks.check_choice("arrangement", self.arrangement, Arrangement)
        checks.check_choice("scheme", self.scheme, Scheme)
        if self.norm_at == "after":
            raise UnusableInput("a transformer's norm stands where its arrangement says")

    @property
    def normed_end(self) -> bool:
        """Whether the stream is normalised behind the last layer alone."""
        return self.arrangement == "pre"

    @property
    def depth_scaled(self) -> bool:
        """Whether weights or skips are scaled by the depth, or the last layer is normalised."""
        return self.scheme == "gpt2" or self.arrangement == "deepnorm" or self.normed_end

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The statistics of positions, of attention and of the branches."""
        every = {"attention": (), "skip": BRANCHES[:1]}.get(self.arrangement, BRANCHES)
        return (
            Measure("token_correlation", token_correlation, ("forward",), shaped=True),
            Measure("token_effective_rank", token_effective_rank, ("forward",), shaped=True),
            Measure("entropy", as_it_is, ("attention",)),
            Measure("q", q, (*every, *map(gradient_of, every)), power=2),
        )

    def check(self, width: int, depth: int) -> None:
        """Raise `UnusableInput` unless the heads divide the width."""
        if width % self.heads:
            raise UnusableInput(f"heads must divide the width, got {self.heads} for {width}")

    def signal(self, units: int) -> tuple[int, ...]:
        """Return (tokens, units)."""
        return (self.tokens, units)

    def init(self, size: Size) -> dict[str, Parameter]:
        """Return the weights of attention and of the MLP, and masks of both branches."""
        n, wide = size.fan_in, self.ratio * size.fan_in
        into = 1 / math.sqrt(2 * size.depth) if self.scheme == "gpt2" else 1.0
        beta = (8 * size.depth) ** -0.25 if self.arrangement == "deepnorm" else 1.0
        found = {name: Parameter((n, n), n, n) for name in ("query", "key")}
        found["value"] = Parameter((n, n), n, n, factor=beta)
        found["output"] = Parameter((n, n), n, n, factor=into * beta)
        if self.has_mlp:
            found["up"] = Parameter((n, wide), n, wide, factor=beta)
            found["down"] = Parameter((wide, n), wide, n, factor=into * beta)
        for branch in BRANCHES:
            found |= self.masks(size, f"{branch}_mask")
        return found

    @property
    def has_mlp(self) -> bool:
        """Whether a layer has an MLP beside attention."""
        return self.arrangement not in ("skip", "attention")

    def apply(
        self, at: LayerContext, h: Float[Array, "batch tokens n"]
    ) -> Float[Array, "batch tokens n"]:
        """Return the stream after attention and the MLP."""
        if self.arrangement == "attention":
            return self.attention(at, h)
        h = self.join(at, h, self.attention, BRANCHES[0])
        if self.has_mlp:
            h = self.join(at, h, self.mlp, BRANCHES[1])
        if not self.normed_end:
            return h
        return jax.lax.cond(at.index == at.size.depth, self.normalised, lambda h: h, h)

    def join(self, at: LayerContext, h: Array, branch, name: str) -> Array:
        """Return the stream and a branch together, normalised where the arrangement says."""
        into = self.normalised(h) if self.arrangement == "pre" else h
        out = at.tap(name, self.dropped(at, branch(at, into), f"{name}_mask"))
        if self.arrangement in ("pre", "skip"):
            return h + out
        alpha = (2 * at.size.depth) ** 0.25 if self.arrangement == "deepnorm" else 1.0
        return self.normalised(alpha * h + out)

    def normalised(self, h: Array) -> Array:
        """Return N(h)."""
        return normalise(self.norm, h)

    def mlp(self, at: LayerContext, h: Array) -> Array:
        """Return phi(h W_up) W_down."""
        return at.product("down", at.phi(at.product("up", h)))

    def attention(self, at: LayerContext, h: Array) -> Array:
        """Return softmax(Q K^T / sqrt(n/heads)) V W_o, of all heads."""
        q, k, v = (self._split(at.product(name, h)) for name in ("query", "key", "value"))
        size = q.shape[-1]
        scale = size if self.scheme == "mup" else math.sqrt(size)
        share = jax.nn.softmax(at.multiply(q, jnp.swapaxes(k, -1, -2)) / scale)
        at.note("attention", "entropy", lambda: _entropy(share))
        mixed = jnp.swapaxes(at.multiply(share, v), 1, 2).reshape(h.shape)
        return at.product("output", mixed)

    def _split(self, x: Array) -> Array:
        """Return (batch, heads, tokens, n/heads)."""
        return jnp.swapaxes(x.reshape(*x.shape[:2], self.heads, -1), 1, 2)


def _entropy(share: Float[Array, "batch heads tokens tokens"]) -> Float[Array, ""]:
    """Return the mean entropy of attention, as a share of that of equal attention."""
    most = math.log(share.shape[-1]) or 1.0
    return jnp.mean(jnp.sum(jax.scipy.special.entr(share), axis=-1)) / most
