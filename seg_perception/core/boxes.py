"""Overlap of boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def box_iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of every box of one list with every box of another.

    Args:
        first: float `[N, 4]`, x1 y1 x2 y2 in any one coordinate frame.
        second: float `[M, 4]`, in the same frame.

    Returns:
        float64 `[N, M]`, 0-1; 0 where both boxes are empty.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    shared = _overlap(a, b, 0) * _overlap(a, b, 1)
    union = _areas(a)[:, None] + _areas(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Shared length along one axis, float64 `[N, M]`."""
    low = np.maximum(a[:, None, axis], b[:, axis])
    high = np.minimum(a[:, None, axis + 2], b[:, axis + 2])
    length: NDArray[np.float64] = np.maximum(high - low, 0.0)
    return length


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    area: NDArray[np.float64] = size[:, 0] * size[:, 1]
    return area


def most_covered(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest share of each box that one other box covers, float64 `[N]` of float64 `[N, 4]`."""
    if not len(boxes):
        return np.zeros(0)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    iou = box_iou(boxes, boxes)
    np.fill_diagonal(iou, 0)
    # The shared area follows from the IoU.
    shared = iou / (1 + iou) * (areas[:, None] + areas)
    covered: NDArray[np.float64] = np.minimum(shared.max(axis=1) / np.maximum(areas, 1e-9), 1.0)
    return covered
