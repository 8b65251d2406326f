"""`vision_msgs/Detection2DArray` and `LabelInfo`.

Written by hand because a frame may hold fifty objects of two hypotheses each, whose covariances alone are 29 kB of
zeros: rclpy needs more than a millisecond for what here is copied in one piece.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from ..classes import group_name
from ..instances import MAX_SEMANTIC_CLASSES, Segmentation
from .cdr import CdrWriter

DETECTIONS, LABEL_INFO = "vision_msgs/msg/Detection2DArray", "vision_msgs/msg/LabelInfo"
BACKGROUND = "background"
# Score, then a pose at the origin that is turned by nothing, and a covariance of zeros.
_SCORED = struct.Struct("<44d")
_POSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, *(0.0 for _ in range(36)))
_BOX = struct.Struct("<5d")


def write_detections(segmentation: Segmentation, class_names: Sequence[str]) -> bytes:
    """The instances of a frame as a serialized `Detection2DArray`, under the header of its image.

    `id` is the pixel value in the instance map; boxes are in pixels of that map.

    Args:
        segmentation: of the frame.
        class_names: of the model.
    """
    instances, frame = segmentation.instances, segmentation.frame
    rows = zip(
        instances.ids.tolist(),
        segmentation.boxes_map.tolist(),
        instances.scores.tolist(),
        instances.labels.tolist(),
        instances.groups.tolist(),
        strict=True,
    )
    writer = CdrWriter()
    writer.header(frame.stamp_ns, frame.frame_id)
    writer.uint32s(len(instances))
    for number, (x1, y1, x2, y2), score, label, group in rows:
        writer.header(frame.stamp_ns, frame.frame_id)
        scored = _scored(score)
        writer.uint32s(2)
        for name in (group_name(group), class_names[label]):
            writer.text(name)
            writer.raw(scored, 8)
        writer.raw(_BOX.pack((x1 + x2) / 2, (y1 + y2) / 2, 0.0, x2 - x1, y2 - y1), 8)
        writer.text(str(number))
    return writer.finish()


def write_label_info(stamp_ns: int, class_names: Sequence[str], threshold: float) -> bytes:
    """Names of the pixel values of `semantic_map`, a serialized `LabelInfo`.

    Args:
        stamp_ns: of its header.
        class_names: of the model.
        threshold: the lowest score that is published.
    """
    names = [BACKGROUND, *class_names[:MAX_SEMANTIC_CLASSES]]
    writer = CdrWriter()
    writer.header(stamp_ns, "")
    writer.uint32s(len(names))
    for number, name in enumerate(names):
        writer.packed("<H", 2, number)
        writer.text(name)
    writer.packed("<f", 4, threshold)
    return writer.finish()


@lru_cache(maxsize=256)
def _scored(score: float) -> bytes:
    return _SCORED.pack(score, *_POSE)
