"""From a network and a grid of pairings to programs and blocks: scales, memory, chunks.

Numbers go in, static descriptions and small arrays come out; nothing runs on a device.
"""

import collections
import itertools
import math
from collections.abc import Sequence

import numpy as np

from propagate.activations import Activation, activation
from propagate.initializers import Initializer
from propagate.network import Network
from propagate.record.measures import Selection
from propagate.run.memory import ITEMSIZE, KEPT_BYTES, WEIGHT_BYTES, elements
from propagate.run.pairings import Pairings
from propagate.run.program import StackProgram, Stretch
from propagate.theory.criticality import gain
from propagate.types import LossKind


def program(
    net: Network,
    phis: Sequence[Activation],
    pairings: Pairings,
    selection: Selection,
    loss: LossKind,
    batch: int,
) -> StackProgram:
    """Return what is compiled for a block."""
    alike = collections.Counter(net.sizes(batch))
    numbers = sum(count * elements(net, n, shared=False) for n, count in alike.items())
    stored = numbers * ITEMSIZE <= WEIGHT_BYTES
    arrays = net.family.arrays + bool(dict(selection).get("weight_gradient"))
    row = arrays * pairings.size * batch * ITEMSIZE
    runs = [
        part
        for shape, group in itertools.groupby(net.shapes)
        for part in cut(shape, len(list(group)), row * math.prod(net.family.signal(shape[0])))
    ]
    every = (*phis, activation("identity"))
    return StackProgram(
        family=net.family,
        activations=every,
        gains=tuple(gain(phi).variance for phi in every) if net.family.wants_gain else (),
        runs=tuple(runs),
        selection=selection,
        loss=loss,
        base=None if stored else pairings.base,
        data_scaled=pairings.data_scaled,
        batch=batch,
        dtype=str(net.dtype),
        precision=net.precision,
    )


def cut(shape: tuple[int, int], layers: int, bytes_per_layer: int) -> list[Stretch]:
    """Cut equal layers into runs, in about √layers chunks if keeping all would cost too much."""
    if layers * bytes_per_layer <= KEPT_BYTES:
        return [Stretch(shape, 1, layers)]
    length = math.isqrt(layers)
    chunks, rest = divmod(layers, length)
    return [Stretch(shape, chunks, length)] + ([Stretch(shape, 1, rest)] if rest else [])


def scales(net: Network, laws: Sequence[Initializer], batch: int) -> dict[str, np.ndarray]:
    """Return the factors on the draws of each parameter, (L, C)."""
    each = net.sizes(batch)
    of_size = {
        size: {n: [p.scale(law) for law in laws] for n, p in net.family.init(size).items()}
        for size in dict.fromkeys(each)
    }
    names = of_size[each[0]]
    return {n: np.asarray([of_size[size][n] for size in each], np.float32) for n in names}


def homogeneous(net: Network, phi: Activation, laws: Sequence[Initializer]) -> np.ndarray:
    """Return whether scaling the input scales every signal alike, per configuration."""
    alike = phi.homogeneous and net.family.homogeneous
    return np.asarray([alike and law.bias.gain == 0 and not law.data_scaled for law in laws])
