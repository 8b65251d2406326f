"""The class of every pixel: the model's class map, and the instances over it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import NO_CLASS
from seg_perception.core.instances import MAX_SEMANTIC_CLASSES, InstanceMap, Instances

# The value of each class of a class map.
_VALUES = np.arange(1, 257).astype(np.uint8)
_VALUES[NO_CLASS] = 0


def semantic_map(class_map: NDArray[np.uint8] | None, instances: Instances, painted: InstanceMap) -> NDArray[np.uint8]:
    """Class index + 1 per pixel; 0 is background.

    Args:
        class_map: uint8 `[height, width]`, as `Backend.class_map` returns it.
        instances: those that were painted.
        painted: the instance map, of the same size.

    Returns:
        uint8 `[height, width]`.
    """
    values = np.zeros(int(instances.numbers.max(initial=0)) + 1, np.uint8)
    labels = instances.labels
    values[instances.numbers] = np.where(labels < MAX_SEMANTIC_CLASSES, labels + 1, 0)
    things: NDArray[np.uint8] = values[painted.pixels]
    if class_map is None:
        return things
    return np.where(things > 0, things, np.take(_VALUES, class_map))
