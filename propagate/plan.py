"""From a network and a grid of pairings to programs and blocks: scales, memory, chunks.

Numbers go in, static descriptions and small arrays come out; nothing runs on a device.
"""

import collections
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from propagate.activations import Activation, activation
from propagate.blocks.block import Size
from propagate.engine import Program, Run
from propagate.initializers import Base, Initializer
from propagate.meanfield import gain
from propagate.measures import Selection
from propagate.network import Network
from propagate.types import LossKind

KEPT_BYTES = 2**28  # of one block's signals; beyond it, chunks are computed again on the way back
WEIGHT_BYTES = 3 * 2**28  # of one seed's base weights; beyond it, they are drawn within the scan
BLOCK_SIZES = (1, 2)  # configurations of 128 x 256 that stay within a core's cache of 512 kB
ITEMSIZE = 4
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


def grid(
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
    return len(net.block.signal(net.width)) > 1


def _factors(net: Network, law: Initializer) -> tuple:
    """Return what tells a law from the others of its base in this network."""
    different = dict.fromkeys(net.sizes(1))
    return tuple(p.scale(law) for size in different for p in net.block.init(size).values())


def block_size(groups: Sequence[int]) -> int:
    """Return the block size that leaves the least work undone in vain for groups of these sizes."""

    def cost(size: int) -> float:
        return sum(math.ceil(n / size) * (size + CALL_COST) for n in groups)

    return min(BLOCK_SIZES, key=cost)


def program(
    net: Network,
    phis: Sequence[Activation],
    pairings: Pairings,
    selection: Selection,
    loss: LossKind,
    batch: int,
) -> Program:
    """Return what is compiled for a block."""
    alike = collections.Counter(net.sizes(batch))
    numbers = sum(count * _elements(net, n, shared=False) for n, count in alike.items())
    stored = numbers * ITEMSIZE <= WEIGHT_BYTES
    arrays = net.block.arrays + bool(dict(selection).get("weight_gradient"))
    row = arrays * pairings.size * batch * ITEMSIZE
    runs = [
        part
        for shape, group in itertools.groupby(net.shapes)
        for part in cut(shape, len(list(group)), row * math.prod(net.block.signal(shape[0])))
    ]
    every = (*phis, activation("identity"))
    return Program(
        family=net.block,
        activations=every,
        gains=tuple(gain(phi).variance for phi in every) if net.block.wants_gain else (),
        runs=tuple(runs),
        selection=selection,
        loss=loss,
        base=None if stored else pairings.base,
        data_scaled=pairings.data_scaled,
        batch=batch,
        dtype=str(net.dtype),
        precision=net.precision,
    )


def cut(shape: tuple[int, int], layers: int, bytes_per_layer: int) -> list[Run]:
    """Cut equal layers into runs, in about √layers chunks if keeping all would cost too much."""
    if layers * bytes_per_layer <= KEPT_BYTES:
        return [Run(shape, 1, layers)]
    length = math.isqrt(layers)
    chunks, rest = divmod(layers, length)
    return [Run(shape, chunks, length)] + ([Run(shape, 1, rest)] if rest else [])


def bytes_needed(net: Network, made: Program, rows: int, at_once: int) -> int:
    """Return about how much memory a sweep takes, with `at_once` blocks in flight."""
    alike = collections.Counter(net.sizes(made.batch))
    own, shared = ({n: _elements(net, n, shared=s) for n in alike} for s in (False, True))
    every = sum(count * own[n] for n, count in alike.items()) + max(shared.values())
    again = 3 * at_once * (max(own.values()) + max(shared.values()))
    weights = 2 * every if made.base is None else again
    units = max(math.prod(net.block.signal(n)) for shape in net.shapes for n in shape)
    kept = 2 * sum(part.chunks + part.length for part in made.runs if part.chunks > 1)
    kept += 2 * sum(part.length for part in made.runs if part.chunks == 1)
    return 4 * (weights + at_once * rows * units * net.block.arrays * (kept + 8))


def _elements(net: Network, size: Size, *, shared: bool) -> int:
    """Return how many parameters a layer has of its own, or shares with all others."""
    found = net.block.init(size).values()
    return sum(math.prod(p.shape) for p in found if p.shared == shared)


def scales(net: Network, laws: Sequence[Initializer], batch: int) -> dict[str, np.ndarray]:
    """Return the factors on the draws of each parameter, (L, C)."""
    each = net.sizes(batch)
    of_size = {
        size: {n: [p.scale(law) for law in laws] for n, p in net.block.init(size).items()}
        for size in dict.fromkeys(each)
    }
    names = of_size[each[0]]
    return {n: np.asarray([of_size[size][n] for size in each], np.float32) for n in names}


def homogeneous(net: Network, phi: Activation, laws: Sequence[Initializer]) -> np.ndarray:
    """Return whether scaling the input scales every signal alike, per configuration."""
    alike = phi.homogeneous and net.block.homogeneous
    return np.asarray([alike and law.bias.gain == 0 and not law.data_scaled for law in laws])
