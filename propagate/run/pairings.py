"""From initialisers × activations to blocks of configurations that are multiplied together.

    >>> inits = [Network(init=name).init for name in ("xavier_normal", "lecun_normal", "torch")]
    >>> blocks = blocks_of(Network(depth=2, width=8), inits, 2, Grouping())
    >>> [(b.base.name, b.inits, b.activations) for b in blocks[:2]]
    [('normal', ((0, 1),), (0,)), ('normal', ((0, 1),), (1,))]
    >>> len(blocks), len(turns(blocks, seeds=3, slots=1)), len(turns(blocks, seeds=3, slots=4))
    (4, 12, 4)

Xavier's and LeCun's are one law at equal widths, so they are one configuration of two names; each
of two activations has a block of it, and a block of the uniform law. With four devices, the six
jobs of a base (two blocks of three seeds) take two turns.

On a CPU a block is one or two initialisers of one activation, so that a layer's signals stay in a
core's cache. An accelerator wants few large kernels instead: there a block has all initialisers of
a base and all activations, and the blocks of all bases and seeds run side by side.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from propagate.distributions import Base
from propagate.initializers import Initializer
from propagate.network import Network, distinct, layer_table

CACHED = (1, 2)  # configurations of 128 x 256 that stay within a core's cache of 512 kB
CALL_COST = 0.25  # of one more block, in configurations


class Grouping(NamedTuple):
    """How much of a grid goes through a layer together.

    Attributes:
        inits: initialisers of a block; None for as many as leave the least work undone.
        activations: whether a block has all activations, or one; blocks with all of them also
            run side by side, those of all bases and seeds that fit in memory as one batch.
    """

    inits: int | None = None
    activations: bool = False


def grouping(platform: str, block: int | None) -> Grouping:
    """Return how much goes together on a kind of device, or the block that a user asks for."""
    return Grouping(block, activations=platform != "cpu" and block is None)


@dataclass(frozen=True)
class Pairings:
    """Configurations that share a base, and so go through a layer together: a block.

    Attributes:
        base: the distribution of the weights.
        data_scaled: whether they are scaled to unit variance of what they make.
        activations: indices of the activations.
        inits: indices of the initialisers of each activation's configurations; several at once
            if they are the same law in this network, as Xavier's and LeCun's are where all
            widths are equal.
        size: configurations of each activation; the last one is repeated to fill it.
        alone: whether one activation is picked by an index that the program is fed, so that one
            program serves the blocks of all; else it is compiled for the block's activations.
    """

    base: Base
    data_scaled: bool
    activations: tuple[int, ...]
    inits: tuple[tuple[int, ...], ...]
    size: int
    alone: bool = True

    @property
    def configs(self) -> int:
        """The number of configurations, activation by activation."""
        return len(self.activations) * self.size

    @property
    def columns(self) -> tuple[int, ...]:
        """The activation of each configuration."""
        return tuple(a for a in self.activations for _ in range(self.size))

    def filled(self, inits: Sequence[Initializer]) -> list[Initializer]:
        """Return the initialiser of each configuration."""
        repeated = self.inits[-1:] * (self.size - len(self.inits))
        return [inits[same[0]] for same in self.inits + repeated] * len(self.activations)


def blocks_of(
    net: Network, inits: Sequence[Initializer], activations: int, grouping: Grouping
) -> list[Pairings]:
    """Return the blocks of a grid of initialisers × activations, those of one base together."""
    alike: dict[tuple[Base, bool], dict[tuple, list[int]]] = {}
    for i, init in enumerate(inits):
        own = alike.setdefault((init.base, init.data_scaled), {})
        own.setdefault(_scales(net, init), []).append(i)
    members = {kind: [tuple(same) for same in group.values()] for kind, group in alike.items()}
    size = grouping.inits or _block_size(net, [*map(len, members.values())], grouping)
    every = range(activations)
    chosen = [tuple(every)] if grouping.activations else [(a,) for a in every]
    return [
        Pairings(*kind, some, tuple(group[k : k + size]), size, not grouping.activations)
        for kind, group in members.items()
        for some in chosen
        for k in range(0, len(group), size)
    ]


def _scales(net: Network, init: Initializer) -> tuple:
    """Return what tells an initialiser from the others of its base in this network."""
    if init.tuned:  # it has a law for each activation
        return init.name, init.scale
    return tuple(spec.scales(init) for spec in distinct(layer_table(net)))


def _block_size(net: Network, groups: Sequence[int], grouping: Grouping) -> int:
    if grouping.activations:
        return block_size(groups, range(1, max(groups) + 1))
    fills_a_cache = len(net.family.signal(net.width)) > 1  # it has positions beside units
    return 1 if fills_a_cache else block_size(groups, CACHED)


def block_size(groups: Sequence[int], sizes: Iterable[int]) -> int:
    """Return the block size that leaves the least work undone in vain for groups of these sizes."""

    def cost(size: int) -> float:
        return sum(math.ceil(n / size) * (size + CALL_COST) for n in groups)

    return min(sizes, key=cost)


Job = tuple[int, Pairings]  # a seed and a block


class Turn(NamedTuple):
    """What runs at once: of each device, the jobs that run side by side.

    The blocks of all devices have the same bases in the same order, since one program serves all.
    """

    slots: tuple[tuple[Job, ...], ...]

    @property
    def bases(self) -> tuple[Base, ...]:
        """The base of each job of a device."""
        return tuple(block.base for _, block in self.slots[0])

    @property
    def seeds(self) -> tuple[tuple[int, ...], ...]:
        """The seeds of each device's jobs."""
        return tuple(tuple(seed for seed, _ in jobs) for jobs in self.slots)


def turns(blocks: Sequence[Pairings], seeds: int, slots: int, side_by_side: int = 1) -> list[Turn]:
    """Deal the blocks of every seed to the devices, in an order that keeps weights for long.

    Args:
        blocks: of one program each, but for their numbers.
        seeds: how many draws of everything.
        slots: devices; fewer are used if there is not work for all.
        side_by_side: jobs of one device that run at once, at most.
    """
    if side_by_side > 1:
        kinds = dict.fromkeys(block.data_scaled for block in blocks)
        alike = [[block for block in blocks if block.data_scaled == kind] for kind in kinds]
        slots = min(slots, seeds)
        own = [_filled([*range(k, seeds, slots)], -(-seeds // slots), [0]) for k in range(slots)]
        dealt = [[[(s, b) for b in group for s in mine] for mine in own] for group in alike]
    else:
        bases = dict.fromkeys(block.base for block in blocks)
        alike = [[block for block in blocks if block.base == base] for base in bases]
        jobs = [[(seed, block) for seed in range(seeds) for block in group] for group in alike]
        slots = min(slots, max(map(len, jobs)))
        dealt = [_dealt(own, slots) for own in jobs]
    return [turn for jobs in dealt for turn in _cut(jobs, side_by_side)]


def _dealt(jobs: list[Job], slots: int) -> list[list[Job]]:
    """Give every device as many jobs; those that have too few do some again."""
    each = -(-len(jobs) // slots)
    return [_filled(jobs[k * each : (k + 1) * each], each, jobs) for k in range(slots)]


def _filled(own: list, size: int, others: list) -> list:
    return own + (own or others)[-1:] * (size - len(own))


def _cut(jobs: list[list[Job]], side_by_side: int) -> list[Turn]:
    """Cut the devices' jobs into turns of nearly equal size."""
    rounds = -(-len(jobs[0]) // side_by_side)
    each = -(-len(jobs[0]) // rounds)
    filled = [_filled(own, rounds * each, own) for own in jobs]
    return [
        Turn(tuple(tuple(own[r * each : (r + 1) * each]) for own in filled)) for r in range(rounds)
    ]
