"""The class of every pixel: the model's class map, and the instances over it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import NO_CLASS
from seg_perception.core.instances import MAX_SEMANTIC_CLASSES

# The value of each class of a class map.
_VALUES = np.arange(1, 257).astype(np.uint8)
_VALUES[NO_CLASS] = 0


def semantic_map(
    class_map: NDArray[np.uint8] | None, ids: NDArray[np.uint16], labels: NDArray[np.int32], pixels: NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Return class index + 1 per pixel; 0 is background.

    Args:
        class_map: uint8 `[height, width]`, as `Job.class_map` returns it.
        ids: uint16 `[K]`, pixel value of each row of the detections; 0 for those that were not painted.
        labels: int32 `[K]`, class of each row.
        pixels: uint16 `[height, width]`, the instance map.

    Returns:
        uint8 `[height, width]`.
    """
    values = np.zeros(int(ids.max(initial=0)) + 1, np.uint8)
    values[ids] = np.where(labels < MAX_SEMANTIC_CLASSES, labels + 1, 0)
    values[0] = 0
    things: NDArray[np.uint8] = values[pixels]
    if class_map is None:
        return things
    return np.where(things > 0, things, np.take(_VALUES, class_map))
