"""Which rows are held out: one share of them, or each in turn in k folds."""

from dataclasses import dataclass

import numpy as np

from propagate.batches import Batch
from propagate.checks import check_at_most, check_count, check_number
from propagate.types import UnusableInput

HELD_OUT = 0.2  # of the rows, by default


@dataclass(frozen=True)
class Split:
    """How rows are divided into those to train on and those to judge by.

    Attributes:
        folds: k of k-fold cross-validation; None for one split.
        held_out: the share of rows of one split.

    Raises:
        UnusableInput: fewer than two folds, a share outside (0, 1), or both.
    """

    folds: int | None = None
    held_out: float | None = None

    def __post_init__(self) -> None:
        if self.folds is not None:
            check_count("folds", self.folds, least=2)
            if self.held_out is not None:
                raise UnusableInput(
                    f"{self.folds} folds hold out 1/{self.folds} of the rows each: leave "
                    "held_out away, or the folds"
                )
        if self.held_out is not None:
            check_number("held_out", self.held_out)
            if not 0 < self.held_out < 1:
                raise UnusableInput(f"held_out must be a share in (0, 1), got {self.held_out:g}")

    def masks(self, data: Batch, generator: np.random.Generator) -> np.ndarray:
        """Return which rows each fold holds out, (folds, rows); every class in like shares.

        Rows are shuffled and laid out class by class; folds take them in turn. So a class of a fold
        differs by at most one row from its share.

        Args:
            data: with labels; those of a regression have no classes.
            generator: of the shuffle.

        Raises:
            UnusableInput: more folds than rows, or nothing left to train or to judge by.

        Example:
            >>> data = Batch(np.zeros((6, 1)), labels=np.arange(6) % 2)
            >>> Split(folds=3).masks(data, np.random.default_rng(0)).sum(axis=1).tolist()
            [2, 2, 2]
        """
        rows, labels = len(data.inputs), data.labels
        order = generator.permutation(rows)
        if labels.ndim == 1 and labels.dtype.kind in "iu":
            order = order[np.argsort(labels[order], kind="stable")]
        turn, place = np.arange(rows), np.empty(rows, int)
        place[order] = turn
        if self.folds is not None:
            check_at_most("folds", self.folds, rows)
            return place % self.folds == np.arange(self.folds)[:, None]
        share = HELD_OUT if self.held_out is None else self.held_out
        ends = np.floor(share * np.arange(rows + 1) + 0.5)
        chosen = np.diff(ends)[place] > 0
        if chosen.all() or not chosen.any():
            raise UnusableInput(
                f"held_out must leave rows on both sides, but {share:g} of {rows} rows are "
                f"{chosen.sum()}"
            )
        return chosen[None]
