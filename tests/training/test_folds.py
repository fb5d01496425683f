"""Held-out rows: in like shares of every class, each once, as scikit-learn's folds are."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from propagate.batches import Batch
from propagate.training.folds import Split

LABELS = np.repeat([0, 1, 2], [23, 11, 7])
DATA = Batch(np.zeros((41, 1)), labels=LABELS)


def masks(split: Split, data: Batch = DATA) -> np.ndarray:
    return split.masks(data, np.random.default_rng(0))


@pytest.mark.parametrize("folds", [2, 3, 5, 41])
def test_every_row_is_held_out_once(folds):
    found = masks(Split(folds))
    assert found.shape == (folds, 41) and (found.sum(axis=0) == 1).all()
    assert np.ptp(found.sum(axis=1)) <= 1


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_classes_have_the_counts_of_scikit_learns_stratified_folds(folds):
    """Up to one row, which either may give to any fold."""
    ours = [np.bincount(LABELS[mask], minlength=3) for mask in masks(Split(folds))]
    theirs = [
        np.bincount(LABELS[rows], minlength=3)
        for _, rows in StratifiedKFold(folds).split(LABELS, LABELS)
    ]
    assert np.abs(np.array(ours) - np.array(theirs)).max() <= 1


def test_one_split_takes_its_share_of_every_class():
    (found,) = masks(Split(held_out=0.3))
    shares = np.bincount(LABELS[found], minlength=3)
    assert np.abs(shares - 0.3 * np.bincount(LABELS)).max() <= 1
    assert masks(Split())[0].sum() == 8  # a fifth


def test_rows_are_shuffled_and_targets_are_no_classes():
    targets = Batch(np.zeros((40, 1)), labels=np.arange(40.0))
    (one,) = masks(Split(held_out=0.5), targets)
    assert one.sum() == 20 and np.abs(np.diff(one.astype(int))).sum() < 39
    other = Split(held_out=0.5).masks(targets, np.random.default_rng(1))[0]
    assert (one != other).any()
