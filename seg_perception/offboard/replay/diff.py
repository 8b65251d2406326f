"""What a replay publishes, held against what was published for the same frames before."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.errors import SourceError
from seg_perception.core.instances import Segmentation
from seg_perception.core.messages.detections import DETECTIONS
from seg_perception.offboard.data.bags.reader import Bag
from seg_perception.offboard.data.published import PublishedFrame, read_published
from seg_perception.offboard.evaluation.published import instances_of
from seg_perception.offboard.metrics.agreement import Agreement, AgreementRule, FrameAgreement, compare
from seg_perception.offboard.metrics.compact import FrameInstances

_DETECTIONS = "/detections"
# Frames of an earlier run that are kept while one is looked for: stamps may repeat, or go back.
_KEPT = 8


@dataclass(frozen=True, slots=True)
class FrameDiff:
    """One frame now and before; labels are road groups.

    Attributes:
        before, now: published instances.
        agreement: of the two; before is the reference.
    """

    before: FrameInstances
    now: FrameInstances
    agreement: FrameAgreement


class Baseline:
    """What an earlier run published, read along with a replay of the same frames.

    Attributes:
        unmatched: frames by camera for which nothing had been published.
        faults: why it could not be read to its end, human-readable.
    """

    def __init__(self, path: Path, rule: AgreementRule | None, cameras: Collection[str], namespace: str) -> None:
        """Look what the bag has.

        Args:
            path: of a bag with instance maps and detections, by `replay` or recorded of a node.
            rule: which instances count.
            cameras: whose frames will be compared.
            namespace: of the node that published, where there were several.

        Raises:
            SourceError: it cannot be read, or has no such topics.
            BackendUnavailable: rosbags is not installed.
        """
        self.unmatched: Counter[str] = Counter()
        self.faults: list[str] = []
        self._path = path
        self._rule = rule or AgreementRule()
        self._frames: list[FrameAgreement] = []
        with Bag(path) as bag:
            spaces = [
                topic.removesuffix(_DETECTIONS)
                for topic, kind in bag.topics.items()
                if kind == DETECTIONS and topic.endswith(_DETECTIONS)
                and f"{topic.removesuffix(_DETECTIONS)}/instance_map" in bag.topics
            ]  # fmt: skip
            if not spaces:
                raise SourceError(
                    f"{path}: expected what a segmenter published, topics such as /segmenter/instance_map and "
                    f"/segmenter/detections; got {', '.join(bag.topics) or 'an empty bag'}"
                )
        self._readers = {
            camera: _Reader(self._published(_space(path, spaces, camera, len(cameras), namespace)))
            for camera in cameras
        }

    def compare(self, segmentation: Segmentation) -> FrameDiff | None:
        """Compare a frame; None when nothing was published for it before. Frames come in their recorded order."""
        frame = segmentation.frame
        before = self._readers[frame.camera].of(frame.stamp_ns)
        pixels = segmentation.instance_map.pixels
        if before is None or before.pixels.shape != pixels.shape:
            self.unmatched[frame.camera] += 1
            return None
        instances = segmentation.instances
        found = PublishedFrame(
            frame.stamp_ns, pixels, instances.ids.astype(np.int64), instances.groups, instances.scores,
            segmentation.boxes_map,
        )  # fmt: skip
        ours, now = instances_of(before), instances_of(found)
        agreement = compare(ours, now, self._rule)
        self._frames.append(agreement)
        return FrameDiff(ours, now, agreement)

    def total(self) -> Agreement:
        """Over all frames that were compared."""
        return Agreement.of(self._frames)

    @property
    def differing(self) -> int:
        """The number of frames with false negatives, false positives or class confusions."""
        return sum(frame.faults > 0 for frame in self._frames)

    def _published(self, space: str) -> Iterator[PublishedFrame]:
        try:
            yield from read_published(self._path, f"{space}/instance_map", f"{space}{_DETECTIONS}", self.faults)
        except SourceError as error:
            # The replay itself goes on; its remaining frames are unmatched.
            self.faults.append(str(error))


@dataclass
class _Reader:
    """Published frames, found in the order in which they were recorded; some may be missing on either side."""

    frames: Iterator[PublishedFrame]
    _kept: deque[PublishedFrame] = field(default_factory=deque, init=False)

    def of(self, stamp_ns: int) -> PublishedFrame | None:
        while True:
            self._kept.extend(islice(self.frames, _KEPT - len(self._kept)))
            for place, frame in enumerate(self._kept):
                if frame.stamp_ns == stamp_ns:
                    for _ in range(place + 1):
                        self._kept.popleft()
                    return frame
            if not self._kept or any(frame.stamp_ns > stamp_ns for frame in self._kept):
                return None
            self._kept.clear()


def _space(path: Path, spaces: Sequence[str], camera: str, cameras: int, namespace: str) -> str:
    """Below which name a camera's results are: its own, or the node's where there is but one camera."""
    for space in (f"{namespace}/{camera}", *([namespace] if cameras == 1 else [])):
        if space in spaces:
            return space
    named = [space for space in spaces if space.rpartition("/")[2] == camera]
    if len(named) == 1:
        return named[0]
    if len(spaces) > 1 or cameras > 1:
        raise SourceError(
            f"{path}: expected results of camera {camera}, got those of {', '.join(spaces)}; name the node's with "
            "--namespace"
        )
    return spaces[0]


def describe(change: FrameDiff) -> str:
    """Return what is different now, in words."""
    agreement = change.agreement
    parts = [
        *(f"gone: {_named(change.before, row)}" for row in agreement.missed.tolist()),
        *(f"new: {_named(change.now, row)}" for row in agreement.extra.tolist()),
        *(
            f"{_named(change.before, row)} became {_named(change.now, column)}"
            for row, column in agreement.switched.tolist()
        ),
    ]
    if len(agreement.iou):
        parts.append(f"{len(agreement.iou)} the same with a mask IoU of {agreement.iou.mean():.3f} on average")
    return "; ".join(parts) or "nothing before or now"


def _named(found: FrameInstances, row: int) -> str:
    label = int(found.labels[row])
    return f"{ROAD_GROUPS[label] if label >= 0 else 'other'} ({found.scores[row]:.2f})"
