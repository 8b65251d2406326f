"""How alike expected and detected boxes are, and how the camera moved between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.boxes import box_iou

from .motion import Motion, box_sizes

# A side that is off by this share of the box's size counts half.
_HALF_AT = 0.2
# Fewer pairs say nothing of the camera: one car that brakes would be taken for it.
_FEWEST_PAIRS = 4


def similarity(
    expected: Motion,
    boxes: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    lowest: float,
    margin: float = 0.0,
) -> NDArray[np.float64]:
    """Gains of pairing expected boxes with detected ones.

    The overlap alone takes one of two people side by side for the other. When one hides a part of the other, most sides
    of a box are still where they are expected to be; so the nearness of the sides counts as much.

    Args:
        expected: T of them; boxes whose place is less certain reach further.
        boxes: float64 `[N, 4]`, detected, in camera pixels.
        allowed: bool `[T, N]`, pairs that may be.
        lowest: IoU from which a pair is possible.
        margin: by which share of their sides both boxes are enlarged on each side before, 0 for not at all.

    Returns:
        float64 `[T, N]`, 0 for what is no pair, else up to 2.
    """
    overlap = box_iou(_enlarged(expected.widened(), margin), _enlarged(boxes, margin))
    rows, columns = np.nonzero((overlap > lowest) & allowed)
    off = (boxes[columns] - expected.boxes[rows]) / (_HALF_AT * box_sizes(expected.boxes)[rows])[:, None]
    gains = np.zeros_like(overlap)
    gains[rows, columns] = overlap[rows, columns] + (1 / (1 + off**2)).mean(axis=1)
    return gains


def camera_shift(expected: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much more than expected most of what was seen has moved: the camera nods and sways.

    Args:
        expected: float64 `[P, 4]`, in camera pixels.
        boxes: float64 `[P, 4]`, where they were detected.

    Returns:
        float64 `[2]`, in x and y; 0 if there are too few to say.
    """
    if len(boxes) < _FEWEST_PAIRS:
        return np.zeros(2)
    off = boxes - expected
    shift: NDArray[np.float64] = np.median((off[:, :2] + off[:, 2:]) / 2, axis=0)
    return shift


def _enlarged(boxes: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    if not margin:
        return boxes
    sides = (boxes[:, 2:] - boxes[:, :2]) * margin
    return np.concatenate([boxes[:, :2] - sides, boxes[:, 2:] + sides], axis=1)
