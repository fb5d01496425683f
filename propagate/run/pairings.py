"""From initialisers × activations to blocks of configurations that are multiplied together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from propagate.distributions import Base
from propagate.initializers import Initializer
from propagate.network import Network

BLOCK_SIZES = (1, 2)  # configurations of 128 x 256 that stay within a core's cache of 512 kB
CALL_COST = 0.25  # of one more block, in configurations


@dataclass(frozen=True)
class Pairings:
    """Configurations that share a base and an activation, and so go through a layer together.

    Attributes:
        base: the distribution of the weights.
        data_scaled: whether they are scaled to unit variance of what they make.
        phi: index of the activation.
        inits: indices of the initialisers of each configuration; more than one if they are the
            same law in this network, as Xavier's and LeCun's are where all widths are equal.
        size: configurations in the block; the last one is repeated to fill it.
    """

    base: Base
    data_scaled: bool
    phi: int
    inits: tuple[tuple[int, ...], ...]
    size: int

    def filled(self, laws: Sequence[Initializer]) -> list[Initializer]:
        """Return the law of each of the block's configurations."""
        repeated = self.inits[-1:] * (self.size - len(self.inits))
        return [laws[same[0]] for same in self.inits + repeated]


def blocks_of(
    net: Network, laws: Sequence[Initializer], phis: int, size: int | None = None
) -> list[Pairings]:
    """Return the blocks of a grid of initialisers × activations, those of one base together."""
    shared: dict[tuple[Base, bool], dict[tuple, list[int]]] = {}
    for i, law in enumerate(laws):
        own = shared.setdefault((law.base, law.data_scaled), {})
        own.setdefault(_factors(net, law), []).append(i)
    members = {kind: [tuple(same) for same in group.values()] for kind, group in shared.items()}
    size = size or (1 if _large(net) else block_size([len(group) for group in members.values()]))
    return [
        Pairings(*kind, phi, tuple(group[k : k + size]), size)
        for kind, group in members.items()
        for phi in range(phis)
        for k in range(0, len(group), size)
    ]


def _large(net: Network) -> bool:
    """Whether a signal has positions beside units, and fills a core's cache by itself."""
    return len(net.family.signal(net.width)) > 1


def _factors(net: Network, law: Initializer) -> tuple:
    """Return what tells a law from the others of its base in this network."""
    different = dict.fromkeys(net.sizes(1))
    return tuple(p.scale(law) for size in different for p in net.family.init(size).values())


def block_size(groups: Sequence[int]) -> int:
    """Return the block size that leaves the least work undone in vain for groups of these sizes."""

    def cost(size: int) -> float:
        return sum(math.ceil(n / size) * (size + CALL_COST) for n in groups)

    return min(BLOCK_SIZES, key=cost)
