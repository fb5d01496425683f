r"""Whether signals become parallel: the share of their directions that is not common to all.

With r the effective rank, the participation ratio of the directions' Gram matrix, the share is

$$1 - 1/r,$$

1 less the mean squared cosine of two of them: nearly 1 where they are orthogonal, 0 where they are
parallel. A direction that all have in common makes their mean cosine large; only the share tells
whether anything is left beside it.
"""

import numpy as np

from propagate.verdicts import thresholds


def apart(rank: np.ndarray) -> np.ndarray:
    """Return log10 of the share, not below float32's rounding; NaN where the rank is.

    Example:
        >>> apart(np.array([10.0, 1.001, 1.0])).round(2).tolist()
        [-0.05, -3.0, -6.92]
    """
    return np.log10(np.maximum(1 - 1 / np.maximum(rank, 1), np.finfo(np.float32).eps))


def parallel_from(share: np.ndarray) -> int | None:
    """Return from which place on a share, log10, stays below `PARALLEL_DECADES`.

    None if it does so at the first place already, or not at the last.

    Example:
        >>> parallel_from(np.array([-0.1, -4.0, -2.0, -5.0, -6.0])), parallel_from(np.array([-5.0]))
        (3, None)
    """
    far = np.flatnonzero(share >= -thresholds.PARALLEL_DECADES)
    start = int(far[-1]) + 1 if len(far) else 0
    return start if 0 < start < len(share) and share[0] >= -thresholds.PARALLEL_DECADES else None


def places_apart(share: np.ndarray) -> int:
    """Return at how many places from the first on the share is within what is fine."""
    near = np.flatnonzero(share < -thresholds.FINE_DECADES)
    return int(near[0]) if len(near) else len(share)
