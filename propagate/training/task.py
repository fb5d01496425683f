"""The work of `train`: runs in groups that are compiled as one, a few groups in flight."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from propagate.batches import Batch
from propagate.run.dispatch import lapack_on_one_thread
from propagate.run.feed import Feed
from propagate.training import descent, stack
from propagate.training.descent import Data, Recipe, Run, State
from propagate.training.optimizers import Optimizer
from propagate.training.training_record import Grid, Place
from propagate.types import Array, PropagateError, Tree

SIDE_BY_SIDE = 2  # runs of a group on a CPU: their weights and signals stay in a core's cache
ITEMSIZE = 4


class Reached(NamedTuple):
    """What a group of runs reached.

    Attributes:
        places: of the runs.
        epoch: after which; 0 is the start.
        stepped: what the steps of the epoch saw; None at the start.
        looked: what the look after them saw.
    """

    places: list[Place]
    epoch: int
    stepped: Tree
    looked: Tree


@dataclass(frozen=True)
class Task:
    """Everything that training needs, checked.

    Attributes:
        grid: what is trained.
        key: from which everything random follows.
        rows: the data, with labels.
        held_out: which rows are, of each fold.
        optimizer: its two functions, at rate 1.
        decoupled: whether weights decay by themselves.
        decay: of the weights.
        batch: rows of an update.
    """

    grid: Grid
    key: Array
    rows: Batch
    held_out: np.ndarray
    optimizer: Optimizer
    decoupled: bool
    decay: float
    batch: int

    @cached_property
    def feed(self) -> Feed:
        """The random streams of a sweep with this key, on this data."""
        grid = self.grid
        return Feed(grid.net, self.key, self.rows, "gaussian", self.batch, 0.0, grid.loss)

    @cached_property
    def recipe(self) -> Recipe:
        """What is compiled."""
        grid = self.grid
        options = grid.activations, grid.selection, grid.loss, self.batch, self.feed.raw
        plain = replace(grid.net, family=replace(grid.net.family, dropout=0.0))
        stacks = stack.stack_of(grid.net, *options), stack.stack_of(plain, *options)
        return Recipe(*stacks, self.optimizer, self.decoupled, grid.steps, self.batch)

    @cached_property
    def data(self) -> Data:
        """The rows, on the device; the last are those whose statistics are followed."""
        probe = jax.random.permutation(jax.random.fold_in(self.key, 2**31), self.feed.size)
        return Data(self.feed.inputs(0), self.feed.target(0), probe[: self.batch])

    @cached_property
    def together(self) -> int:
        """How many runs are one group: few on a CPU, all of an activation elsewhere."""
        every = len(self.grid.places(0))
        return min(every, SIDE_BY_SIDE) if jax.default_backend() == "cpu" else every

    @property
    def groups(self) -> int:
        """The number of groups, of all activations."""
        return len(self.grid.activations) * -(-len(self.grid.places(0)) // self.together)

    def check_memory(self) -> None:
        """Raise `PropagateError` unless the weights of an activation's runs fit in memory."""
        one = ITEMSIZE * stack.elements(self.recipe.training)
        shapes = jax.eval_shape(self.optimizer.init, {"w": jnp.zeros(1)})
        kept = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        runs = len(self.grid.places(0))
        needed = one * runs * (2 + kept)
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > free:
            raise PropagateError(
                f"{runs} runs side by side take about {needed / 1e9:.3g} GB and the machine has "
                f"{free / 1e9:.0f} GB: use fewer seeds, folds, rates or initialisers, or less width"
            )

    def run(self) -> Iterator[Reached]:
        """Train; yield what every group reached, epoch by epoch, activation by activation."""
        with ThreadPoolExecutor(os.cpu_count() if self.together == SIDE_BY_SIDE else 1) as pool:
            for phi in range(len(self.grid.activations)):
                places = self.grid.places(phi)
                size = self.together
                parts = [places[k : k + size] for k in range(0, len(places), size)]
                with lapack_on_one_thread():
                    groups = [_Group(self, part) for part in parts]
                for epoch in range(self.grid.epochs + 1):
                    yield from pool.map(lambda group, k=epoch: group.go_on(k), groups)


class _Group:
    """Runs of one activation that are one program, and where they are."""

    def __init__(self, task: Task, places: list[Place]) -> None:
        self.task, self.places = task, places
        self.phi = jnp.asarray(places[0].activation)
        filled = places + places[-1:] * (task.together - len(places))
        runs = [_run(task, place) for place in filled]
        self.run = jax.tree.map(lambda *each: jnp.stack(each), *runs)
        drawn = [_drawn(task, place) for place in filled]
        params = jax.tree.map(lambda *each: jnp.stack(each), *drawn)
        self.state: State = descent.start(task.recipe, params)

    def go_on(self, epoch: int) -> Reached:
        """Train for an epoch, if it is not the start; return what was reached."""
        recipe, data, stepped = self.task.recipe, self.task.data, None
        if epoch:
            turn = jnp.asarray(epoch)
            self.state, stepped = descent.advance(
                recipe, data, self.run, self.state, turn, self.phi
            )
        looked = descent.look(recipe, data, self.run, self.state, self.phi)
        own = len(self.places)
        return Reached(self.places, epoch, *_of_the_first(own, (stepped, looked)))


def _of_the_first(count: int, tree: Any) -> Any:
    """Return what belongs to the first runs of a group, on the host."""
    return jax.tree.map(lambda a: np.asarray(a)[:count], tree)


def _run(task: Task, place: Place) -> Run:
    mask = task.held_out[place.fold]
    (tested,) = np.nonzero(mask)
    longest = int(task.held_out.sum(axis=1).max())
    counted = np.arange(longest) < len(tested)
    seed = task.feed.seed_key(place.seed)
    return Run(
        jax.random.fold_in(jax.random.fold_in(seed, 4), place.fold),  # 0 to 3 are a sweep's
        jnp.asarray(task.grid.rates[place.rate], jnp.float32),
        jnp.asarray(task.decay, jnp.float32),
        jnp.asarray(mask, jnp.float32),
        jnp.asarray(np.resize(tested, longest), jnp.int32),
        jnp.asarray(counted, jnp.float32),
    )


def _drawn(task: Task, place: Place) -> stack.Params:
    init, phi = task.grid.inits[place.init], task.grid.activations[place.activation]
    return stack.initial(task.recipe.training, init, phi, task.feed.seed_key(place.seed))
