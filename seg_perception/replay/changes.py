"""What a replay publishes, held against what was published for the same frames before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..classes import ROAD_GROUPS
from ..errors import SourceError
from ..evaluation.published import instances_of
from ..instances import Segmentation
from ..messages.detections import DETECTIONS
from ..metrics.agreement import Agreement, AgreementRule, FrameAgreement, compare
from ..metrics.compact import FrameInstances
from ..sources.bag_reader import Bag
from ..sources.published import PublishedFrame, read_published

_DETECTIONS = "/detections"


@dataclass(frozen=True, slots=True)
class Change:
    """One frame now and before; labels are road groups.

    Attributes:
        before, now: published instances.
        agreement: of the two; before is the reference.
    """

    before: FrameInstances
    now: FrameInstances
    agreement: FrameAgreement


class Earlier:
    """What an earlier run published, read along with a replay of the same frames.

    Attributes:
        unmatched: frames by camera for which nothing had been published.
    """

    def __init__(self, path: Path, rule: AgreementRule | None = None) -> None:
        """Look what the bag has.

        Args:
            path: of a bag with instance maps and detections, by `replay` or recorded of a node.
            rule: which instances count.

        Raises:
            SourceError: it cannot be read, or has no such topics.
            BackendUnavailable: rosbags is not installed.
        """
        self.unmatched: Counter[str] = Counter()
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
        self._spaces = {space.rpartition("/")[2]: space for space in spaces}
        self._readers: dict[str, _Reader] = {}

    def compare(self, segmentation: Segmentation) -> Change | None:
        """Compare a frame; None when nothing was published for it before. Frames come in the order of stamps."""
        frame = segmentation.frame
        before = self._reader(frame.camera).of(frame.stamp_ns)
        pixels = segmentation.instance_map.pixels
        if before is None or before.pixels.shape != pixels.shape:
            self.unmatched[frame.camera] += 1
            return None
        instances = segmentation.instances
        found = PublishedFrame(
            frame.stamp_ns, pixels, instances.numbers.astype(np.int64), instances.groups, instances.scores,
            instances.boxes_camera,
        )  # fmt: skip
        ours, now = instances_of(before), instances_of(found)
        agreement = compare(ours, now, self._rule)
        self._frames.append(agreement)
        return Change(ours, now, agreement)

    def total(self) -> Agreement:
        """Over all frames that were compared."""
        return Agreement.of(self._frames)

    @property
    def differing(self) -> int:
        """How many frames have missed, extra or relabelled instances."""
        return sum(frame.faults > 0 for frame in self._frames)

    def _reader(self, camera: str) -> _Reader:
        if camera not in self._readers:
            # A single camera's topics lie directly under the node's name.
            space = self._spaces.get(camera) or next(iter(self._spaces.values()))
            if camera not in self._spaces and len(self._spaces) > 1:
                raise SourceError(
                    f"{self._path}: expected results of camera {camera}, got those of {', '.join(self._spaces)}"
                )
            published = read_published(self._path, f"{space}/instance_map", f"{space}{_DETECTIONS}")
            self._readers[camera] = _Reader(published)
        return self._readers[camera]


@dataclass
class _Reader:
    """Published frames, found by ascending stamps."""

    frames: Iterator[PublishedFrame]
    _next: PublishedFrame | None = field(default=None, init=False)

    def of(self, stamp_ns: int) -> PublishedFrame | None:
        while self._next is None or self._next.stamp_ns < stamp_ns:
            self._next = next(self.frames, None)
            if self._next is None:
                return None
        return self._next if self._next.stamp_ns == stamp_ns else None


def describe(change: Change) -> str:
    """What is different now, in words."""
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
