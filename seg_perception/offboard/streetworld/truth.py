"""What is really in an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ROAD_GROUPS, ClassTable
from seg_perception.offboard.metrics.compact import CompactMask

from .boxes import TrueBox

# Named as in BDD100K, so that its class table fits.
CLASS_NAMES = ("pedestrian", "rider", "car", "truck", "bus", "motorcycle", "bicycle", "traffic light", "traffic sign")
_GROUPS = ("pedestrian", "pedestrian", "vehicle", "vehicle", "vehicle", "vehicle", "vehicle", "traffic_light",
           "traffic_sign")  # fmt: skip
CLASS_TABLE = ClassTable("streetworld", CLASS_NAMES, dict(zip(CLASS_NAMES, _GROUPS, strict=True)))


@dataclass(frozen=True, slots=True)
class TrueInstance:
    """One object in one frame.

    Attributes:
        number: its value in the instance map, which is its track's number.
        label: index into `CLASS_NAMES`.
        visible: mask of what can be seen of it.
        full: mask as if nothing stood before it, within the image.
        box: x1 y1 x2 y2 around what can be seen, in pixels.
        full_box: around all of it, also outside the image.
        distance: from the camera, in metres.
        occlusion: share of `full` that is hidden, 0 to 1.
        box_3d: in `base_link`, if the world was asked for `boxes_3d`.
    """

    number: int
    label: int
    visible: CompactMask
    full: CompactMask
    box: tuple[float, float, float, float]
    full_box: tuple[float, float, float, float]
    distance: float
    occlusion: float
    box_3d: TrueBox | None = None

    @property
    def class_name(self) -> str:
        """Its class."""
        return CLASS_NAMES[self.label]

    @property
    def group(self) -> str:
        """Its road group."""
        return _GROUPS[self.label]

    @property
    def truncation(self) -> float:
        """Share of the full box that is outside the image, 0 to 1."""
        x1, y1, x2, y2 = self.full_box
        height, width = self.full.size
        inside = max(0.0, min(x2, width) - max(x1, 0.0)) * max(0.0, min(y2, height) - max(y1, 0.0))
        area = (x2 - x1) * (y2 - y1)
        return 1 - inside / area if area > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything in one frame.

    Attributes:
        instance_map: uint16 `[height, width]`, number of the instance of each pixel, 0 for none.
        instances: in ascending order of their numbers.
    """

    instance_map: NDArray[np.uint16]
    instances: tuple[TrueInstance, ...]

    def groups(self) -> NDArray[np.int32]:
        """The road group of each instance, int32 `[N]`."""
        return np.array([ROAD_GROUPS.index(each.group) for each in self.instances], np.int32)
