"""Which instances of a camera's next frame are kept when they are tracked, and under which ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections, Instances
from seg_perception.onboard.backend.host.select import IgnoreMask, SelectOptions, class_thresholds, select

from .options import SegmenterOptions
from .track import Tracker, TrackerOptions


class Trackers:
    """One tracker for each camera; frames of a camera come in their order."""

    def __init__(self) -> None:
        self._trackers: dict[str, Tracker] = {}

    def ids(
        self,
        frame: Frame,
        detections: Detections,
        class_groups: NDArray[np.int32],
        options: SegmenterOptions,
        ignore: IgnoreMask | None,
    ) -> NDArray[np.uint16]:
        """Return the track id of each row that is worth reporting, uint16 `[K]`; 0 for the other rows.

        Args:
            frame: its camera and time. Every frame of a camera must come here, empty ones too.
            detections: what was found in it.
            class_groups: int32 `[C]`, road group of each class.
            options: those of the camera, with `tracking`.
            ignore: the camera's ignore region.
        """
        tracking = options.tracking or TrackerOptions()
        tracker = self._trackers.setdefault(frame.camera, Tracker())
        tracker.options = tracking
        found = select(detections, class_groups, _lowered(options.select, tracking.weak_share), ignore)
        low_confidence = found.scores < class_thresholds(options.select, class_groups)[found.labels]
        ids = np.zeros(len(detections.scores), np.uint16)
        ids[found.rows] = tracker.update(found, frame.time_ns, low_confidence)
        return ids

    def coasted(self, frame: Frame) -> Instances:
        """Objects that the last frame of this camera lacked, where they are expected; rows are -1."""
        return self._trackers[frame.camera].coasted(frame.width, frame.height)


def _lowered(options: SelectOptions, share: float) -> SelectOptions:
    """The same with lower thresholds, for instances that only continue a track."""
    groups = tuple(value if value < 0 else value * share for value in options.group_thresholds)
    return replace(options, score_threshold=options.score_threshold * share, group_thresholds=groups)
