"""`vision_msgs/Detection2DArray`, `Detection3DArray` and `LabelInfo`.

Written by hand because a frame may hold fifty objects of two hypotheses each, whose covariances alone are 29 kB of
zeros: rclpy needs more than a millisecond for what here is copied in one piece.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..classes import group_name
from ..errors import FrameError
from ..instances import MAX_SEMANTIC_CLASSES, Segmentation
from ..text import printable
from .cdr import CdrReader, CdrWriter

DETECTIONS, LABEL_INFO = "vision_msgs/msg/Detection2DArray", "vision_msgs/msg/LabelInfo"
DETECTIONS_3D = "vision_msgs/msg/Detection3DArray"
BACKGROUND = "background"
# Score, then a pose at the origin that is turned by nothing, and a covariance of zeros.
_SCORED = struct.Struct("<44d")
_POSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, *(0.0 for _ in range(36)))
_BOX = struct.Struct("<5d")
# Of a hypothesis without its name: score, pose, covariance.
_SCORED_DOUBLES = 1 + 7 + 36
_MOST_DETECTIONS, _MOST_HYPOTHESES = 65535, 64


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What an object is taken for: the name of a road group or of a class, and the score."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class DetectionRow:
    """What fusion needs of a detection.

    Attributes:
        number: the pixel value in the instance map.
        hypotheses: the road group first, then the model's own class.
    """

    number: int
    hypotheses: tuple[Hypothesis, ...]

    @property
    def group(self) -> str:
        """The name of the road group; empty where nothing is said."""
        return self.hypotheses[0].name if self.hypotheses else ""


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """An object in three dimensions.

    Attributes:
        identity: the instance number as text, after the camera's name and a slash where there are several cameras.
        hypotheses: as in two dimensions.
        centre: float64 `[3]`, of its box, in metres.
        size: float64 `[3]`, along the axes of the box.
        quaternion: float64 `[4]`, x y z w, from the axes of the box to those of the frame.
        covariance: float64 `[3, 3]`, of the points.
    """

    identity: str
    hypotheses: tuple[Hypothesis, ...]
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    quaternion: NDArray[np.float64]
    covariance: NDArray[np.float64]


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


def read_detections(serialized: bytes) -> tuple[int, str, list[DetectionRow]]:
    """Read a serialized `Detection2DArray`: stamp in nanoseconds, frame_id, and its detections.

    Raises:
        FrameError: kind `message`, the bytes are not such a message, or an `id` is no instance number.
    """
    reader = CdrReader(serialized, "detections message")
    stamp_ns, frame_id = reader.header()
    count = reader.uint32("detections")
    if count > _MOST_DETECTIONS:
        raise FrameError("message", f"detections: expected at most {_MOST_DETECTIONS}, got {count}")
    rows = []
    for _ in range(count):
        reader.header()
        hypotheses = []
        for _ in range(min(reader.uint32("results"), _MOST_HYPOTHESES + 1)):
            name = reader.text("class_id")
            hypotheses.append(Hypothesis(name, float(reader.float64s("score", _SCORED_DOUBLES)[0])))
        if len(hypotheses) > _MOST_HYPOTHESES:
            raise FrameError("message", f"detections: expected at most {_MOST_HYPOTHESES} results of one, got more")
        reader.float64s("bbox", 5)
        identity = reader.text("id")
        if not (identity.isascii() and identity.isdecimal() and 0 < int(identity[:6]) < 65536 and len(identity) < 6):
            raise FrameError(
                "message",
                "detections: expected ids that are pixel values of the instance map, as `segmenter` publishes them, "
                f"got {printable(identity)}; name the topics of a segmenter",
            )
        rows.append(DetectionRow(int(identity), tuple(hypotheses)))
    return stamp_ns, frame_id, rows


def write_detections_3d(stamp_ns: int, frame_id: str, objects: Sequence[PlacedObject]) -> bytes:
    """Serialize objects as a `Detection3DArray`.

    Args:
        stamp_ns, frame_id: of its header, and of each detection.
        objects: in coordinates of `frame_id`.
    """
    writer = CdrWriter()
    writer.header(stamp_ns, frame_id)
    writer.uint32s(len(objects))
    for each in objects:
        writer.header(stamp_ns, frame_id)
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = each.covariance
        pose = [*each.centre, *each.quaternion]
        writer.uint32s(len(each.hypotheses))
        for hypothesis in each.hypotheses:
            writer.text(hypothesis.name)
            writer.float64s([hypothesis.score, *pose, *covariance.reshape(-1)])
        writer.float64s([*pose, *each.size])
        writer.text(each.identity)
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
