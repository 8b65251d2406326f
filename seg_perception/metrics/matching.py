"""Pairs of things that overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def match_greedily(iou: NDArray[np.floating], threshold: float = 0.5) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair the rows and columns of an overlap matrix, the largest overlap first, each at most once.

    Args:
        iou: float `[N, M]`.
        threshold: pairs that overlap less are left alone; pairs without overlap always are.

    Returns:
        The rows and the columns of the pairs, `[P]` each, by descending overlap; of equal overlaps the lower row and
        then the lower column first.
    """
    rows, columns = np.nonzero((iou >= threshold) & (iou > 0))
    free_rows, free_columns = np.ones(iou.shape[0], bool), np.ones(iou.shape[1], bool)
    pairs = []
    for candidate in np.argsort(-iou[rows, columns], kind="stable"):
        row, column = rows[candidate], columns[candidate]
        if free_rows[row] and free_columns[column]:
            free_rows[row] = free_columns[column] = False
            pairs.append((row, column))
    matched = np.array(pairs, np.intp).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]
