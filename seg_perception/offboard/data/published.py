"""What a node published for each frame, or the truth in the same form, read from a bag.

Instance map and detections of one frame have the same stamp; pixels of the map and `id` of the detections are the same
numbers. The street world writes its truth like this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.core.errors import SourceError

from .bags.reader import Bag
from .bags.types import message_store

_NANOSECONDS = 1_000_000_000
_HIGHEST = 0xFFFF
# Messages that wait for the other one of their frame; what comes no more, because it was lost, must not pile up.
_MOST_WAITING = 40


@dataclass(frozen=True, slots=True)
class PublishedFrame:
    """One frame's instance map and detections.

    Attributes:
        stamp_ns: of both messages, and of the image they were made from.
        pixels: uint16 `[H, W]`, instance numbers, 0 for none.
        numbers: int64 `[N]`, the ids of the detections.
        groups: int32 `[N]`, index into `ROAD_GROUPS`, or `NO_GROUP`.
        scores: float32 `[N]`.
        boxes_camera: float32 `[N, 4]`, x1 y1 x2 y2 in pixels of the map, as in those of the camera_info next to it.

    Raises:
        ValueError: the arrays of the detections are not of one length.
    """

    stamp_ns: int
    pixels: NDArray[np.uint16]
    numbers: NDArray[np.int64]
    groups: NDArray[np.int32]
    scores: NDArray[np.float32]
    boxes_camera: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.numbers)
        shapes = (self.groups.shape, self.scores.shape, self.boxes_camera.shape)
        if shapes != ((count,), (count,), (count, 4)):
            raise ValueError(f"groups, scores, boxes: expected shapes for {count} numbers, got {shapes}")


def read_published(
    path: Path, instance_map: str, detections: str, faults: list[str] | None = None
) -> Iterator[PublishedFrame]:
    """Frames of which a bag has both messages, in the order in which they were complete.

    Args:
        path: of the bag.
        instance_map: topic of the instance maps.
        detections: topic of the detections.
        faults: takes what of the bag was lost, human-readable, after the last frame.

    Raises:
        SourceError: the bag cannot be read, lacks one of the topics, or has messages that are no such thing.
        BackendUnavailable: rosbags is not installed.
    """
    maps: dict[int, Any] = {}
    others: dict[int, Any] = {}
    with Bag(path) as bag:
        if not {instance_map, detections} <= set(bag.topics):
            raise SourceError(
                f"{path}: expected the topics {instance_map} and {detections}, got "
                f"{', '.join(sorted(bag.topics)) or 'none'}"
            )
        for topic, kind, _, data in bag.messages((instance_map, detections)):
            message = _read(path, topic, kind, data)
            stamp = message.header.stamp.sec * _NANOSECONDS + message.header.stamp.nanosec
            own, partners = (maps, others) if topic == instance_map else (others, maps)
            partner = partners.pop(stamp, None)
            if partner is None:
                own[stamp] = message
                if len(own) > _MOST_WAITING:
                    del own[next(iter(own))]
            elif topic == instance_map:
                yield _frame(path, stamp, message, partner.detections)
            else:
                yield _frame(path, stamp, partner, message.detections)
        if faults is not None:
            faults += bag.faults


def _read(path: Path, topic: str, kind: str, data: bytes) -> Any:
    try:
        return message_store().deserialize_cdr(data, kind)
    # Whatever rosbags raises for bytes that are no such message.
    except Exception as error:
        raise SourceError(f"{path}: {topic}: a message is no {kind} ({error})") from error


def _frame(path: Path, stamp: int, image: Any, found: Sequence[Any]) -> PublishedFrame:
    if image.encoding != "mono16" or image.step < 2 * image.width or len(image.data) < image.step * image.height:
        raise SourceError(
            f"{path}: instance map at {stamp} ns: expected mono16 of {image.width} x {image.height} pixels, "
            f"got {image.encoding} with step {image.step} and {len(image.data)} bytes"
        )
    rows = np.frombuffer(image.data, np.uint8, image.step * image.height).reshape(image.height, image.step)
    pixels = rows[:, : 2 * image.width].copy().view(">u2" if image.is_bigendian else "<u2").astype(np.uint16)
    if not all(each.id.isdecimal() and 0 < int(each.id) <= _HIGHEST and each.results for each in found):
        raise SourceError(f"{path}: detections at {stamp} ns: expected results, and ids from 1 to {_HIGHEST}")
    numbers = [int(each.id) for each in found]
    hypotheses = [each.results[0].hypothesis for each in found]
    groups = [ROAD_GROUPS.index(each.class_id) if each.class_id in ROAD_GROUPS else NO_GROUP for each in hypotheses]
    centres = np.array([(each.bbox.center.position.x, each.bbox.center.position.y) for each in found]).reshape(-1, 2)
    halves = np.array([(each.bbox.size_x, each.bbox.size_y) for each in found]).reshape(-1, 2) / 2
    return PublishedFrame(
        stamp,
        pixels,
        np.array(numbers, np.int64),
        np.array(groups, np.int32),
        np.array([each.score for each in hypotheses], np.float32),
        np.hstack([centres - halves, centres + halves]).astype(np.float32),
    )
