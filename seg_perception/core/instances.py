"""From rows of model output to instances with ids: the records that pass from stage to stage.

Parallel arrays of one record share their first axis and are validated together, so that an index means the
same thing in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from .frame import Frame
from .geometry import ResizeGeometry

# A semantic map has 8 bits and 0 is background; classes beyond are background, too.
MAX_SEMANTIC_CLASSES = 255


def _require_shape(name: str, array: NDArray[np.generic], expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")


@dataclass(frozen=True, slots=True)
class Detections:
    """What a model found in one frame.

    Attributes:
        boxes_network: float32 `[K, 4]`, x1 y1 x2 y2 in network pixels.
        scores: float32 `[K]`, descending; unused rows are 0.
        labels: int32 `[K]`, index into the model's class names.
        geometry: where the camera image lies in the network input.
        timings: seconds spent per stage.
    """

    boxes_network: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    geometry: ResizeGeometry
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.scores)
        _require_shape("boxes_network", self.boxes_network, (rows, 4))
        _require_shape("scores", self.scores, (rows,))
        _require_shape("labels", self.labels, (rows,))


@dataclass(frozen=True, slots=True)
class Instances:
    """The detections of one frame that were kept, best first, each with its id.

    Attributes:
        rows: int32 `[N]`, the row of each instance in the `Detections` it came from; -1 for one that was not found in
            this frame, but is expected there, and has no pixels.
        ids: uint16 `[N]`, unique and never 0: the pixel value in the instance map.
        boxes_camera: float32 `[N, 4]`, x1 y1 x2 y2 in camera pixels, clipped to the image.
        scores: float32 `[N]`.
        labels: int32 `[N]`, index into the model's class names.
        groups: int32 `[N]`, index into `classes.ROAD_GROUPS`, or -1 for a class of no group.
    """

    rows: NDArray[np.int32]
    ids: NDArray[np.uint16]
    boxes_camera: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    groups: NDArray[np.int32]

    def __post_init__(self) -> None:
        count = len(self.rows)
        _require_shape("boxes_camera", self.boxes_camera, (count, 4))
        for name in ("rows", "ids", "scores", "labels", "groups"):
            _require_shape(name, getattr(self, name), (count,))

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, keep: NDArray[np.bool_]) -> Instances:
        """The instances for which `keep` `[N]` is true, in the same order."""
        return Instances(*(getattr(self, each.name)[keep] for each in fields(self)))

    def joined(self, others: Instances) -> Instances:
        """These, then others."""
        return Instances(
            *(np.concatenate([getattr(self, each.name), getattr(others, each.name)]) for each in fields(self))
        )

    def with_ids(self, ids: NDArray[np.uint16]) -> Instances:
        """Return the same instances under other `ids` `[N]`."""
        return Instances(self.rows, ids, self.boxes_camera, self.scores, self.labels, self.groups)


@dataclass(frozen=True, slots=True)
class InstanceMap:
    """The instance of each pixel.

    Attributes:
        pixels: uint16 `[height, width]`, the id of the instance a pixel belongs to; 0 is background.
        areas: int64 `[K]`, visible pixels of each row of the `Detections` that was painted.
    """

    pixels: NDArray[np.uint16]
    areas: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segmentation:
    """One processed frame: everything that is published for it.

    Attributes:
        frame: the image it was made from.
        instances: what was kept; also when nothing was found (N = 0).
        instance_map: at the output size.
        areas: int64 `[N]`, visible pixels of each instance in the instance map.
        timings: seconds spent per stage.
        semantic_map: uint8 `[height, width]`, class index + 1 of each pixel and 0 for none; None when not asked for.
    """

    frame: Frame
    instances: Instances
    instance_map: InstanceMap
    areas: NDArray[np.int64]
    timings: Mapping[str, float]
    semantic_map: NDArray[np.uint8] | None = None

    @property
    def boxes_map(self) -> NDArray[np.float32]:
        """Boxes in the pixels of the instance map, float32 `[N, 4]`: everything that is published shares one space."""
        height, width = self.instance_map.pixels.shape
        if (height, width) == (self.frame.height, self.frame.width):
            return self.instances.boxes_camera
        scale = np.array([width / self.frame.width, height / self.frame.height] * 2, np.float32)
        boxes: NDArray[np.float32] = self.instances.boxes_camera * scale
        return boxes
