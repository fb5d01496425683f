"""From a network and a grid of pairings to programs and blocks: scales, memory, chunks.

Numbers go in, static descriptions and small arrays come out; nothing runs on a device.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from propagate.activations import Activation, activation
from propagate.engine import Program, Run
from propagate.initializers import Base, Initializer
from propagate.measures import Selection
from propagate.network import Network
from propagate.types import LossKind

KEPT_BYTES = 2**28  # of one block's signals; beyond it, chunks are computed again on the way back
WEIGHT_BYTES = 3 * 2**28  # of one seed's base weights; beyond it, they are drawn within the scan
BLOCK_SIZES = (1, 2)  # configurations of 128 x 256 that stay within a core's cache of 512 kB
CALL_COST = 0.25  # of one more block, in configurations


@dataclass(frozen=True)
class Pairings:
    """Configurations that share a base and an activation, and so go through a layer together.

    Attributes:
        base: the distribution of the weights.
        phi: index of the activation.
        inits: indices of the initialisers of each configuration; more than one if they are the
            same law in this network, as Xavier's and LeCun's are where all widths are equal.
        size: configurations in the block; the last one is repeated to fill it.
    """

    base: Base
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
    shared: dict[Base, dict[tuple, list[int]]] = {law.base: {} for law in laws}
    for i, law in enumerate(laws):
        shared[law.base].setdefault(_factors(net, law), []).append(i)
    members = {base: [tuple(same) for same in group.values()] for base, group in shared.items()}
    size = size or block_size([len(group) for group in members.values()])
    return [
        Pairings(base, phi, tuple(group[k : k + size]), size)
        for base, group in members.items()
        for phi in range(phis)
        for k in range(0, len(group), size)
    ]


def _factors(net: Network, law: Initializer) -> tuple:
    """Return what tells a law from the others of its base in this network."""
    shapes = dict.fromkeys(net.shapes)
    return law.data_scaled, *((law.scale(*shape), law.bias(*shape)) for shape in shapes)


def block_size(groups: Sequence[int]) -> int:
    """Return the block size that leaves the least work undone in vain for groups of these sizes."""

    def cost(size: int) -> float:
        return sum(math.ceil(n / size) * (size + CALL_COST) for n in groups)

    return min(BLOCK_SIZES, key=cost)


def program(
    net: Network,
    phis: Sequence[Activation],
    base: Base,
    selection: Selection,
    loss: LossKind,
    rows: int,
) -> Program:
    """Return what is to be compiled for blocks of `rows` = configurations × batch."""
    itemsize = np.dtype(np.float32).itemsize
    stored = sum(i * o for i, o in net.shapes) * itemsize <= WEIGHT_BYTES
    arrays = 2 if dict(selection)["weight_gradient"] else 1
    runs = [
        part
        for shape, group in itertools.groupby(net.shapes)
        for part in cut(shape, len(list(group)), arrays * rows * shape[0] * itemsize)
    ]
    return Program(
        family=net.family,
        activations=(*phis, activation("identity")),
        runs=tuple(runs),
        selection=selection,
        loss=loss,
        bases=None if stored else (base, base.biases),
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
    matrices = [i * o for i, o in net.shapes]
    weights = 2 * sum(matrices) if made.bases is None else 3 * at_once * max(matrices)
    width = max(max(shape) for shape in net.shapes)
    kept = 2 * sum(part.chunks + part.length for part in made.runs if part.chunks > 1)
    kept += 2 * sum(part.length for part in made.runs if part.chunks == 1)
    return 4 * (weights + at_once * rows * width * (kept + 8))


def scales(net: Network, laws: Sequence[Initializer]) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors on weights and biases, (L, C) each."""
    shapes = list(dict.fromkeys(net.shapes))
    of_shape = [[(law.scale(*shape), law.bias(*shape)) for law in laws] for shape in shapes]
    layers = [shapes.index(shape) for shape in net.shapes]
    scale, shift = np.moveaxis(np.asarray(of_shape, np.float32), 2, 0)
    return scale[layers], shift[layers]


def homogeneous(phi: Activation, laws: Sequence[Initializer]) -> np.ndarray:
    """Return whether scaling the input scales every signal alike, per configuration."""
    return np.asarray(
        [phi.homogeneous and law.bias.gain == 0 and not law.data_scaled for law in laws]
    )
