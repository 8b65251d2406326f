"""What a model would publish of a frame, held against the truth: one segment for each pixel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP, group_name
from seg_perception.core.instances import Segmentation
from seg_perception.offboard.metrics.compact import CompactMask, FrameInstances
from seg_perception.offboard.metrics.panoptic import PanopticCounts, SegmentOverlaps

from .results import FrameVerdict
from .scheme import Scheme
from .tracking import TrackedFrame
from .truth import FrameTruth

# Objects go together from this IoU on; of segments only one pair can.
_MATCH = 0.5


@dataclass(frozen=True, slots=True)
class TrueSegments:
    """The truth of a frame as segments; the same for all models.

    Attributes:
        truth: it comes from.
        pixels: int64 `[H, W]`, segment + 1 of each pixel, 0 for none; objects in their order, then stuff.
        classes: int64 `[T]`, classes of panoptic quality.
        crowd: bool `[T]`, objects whose masks are not judged.
    """

    truth: FrameTruth
    pixels: NDArray[np.int64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @classmethod
    def of(cls, truth: FrameTruth, scheme: Scheme) -> TrueSegments:
        """Divide an image."""
        pixels = truth.segments().astype(np.int64)
        by_number = scheme.true_class
        classes = [by_number.get(number, -1) for number in truth.categories.tolist()]
        if truth.stuff is not None:
            labels = np.where(pixels == 0, truth.stuff.labels, 255)
            for label in np.unique(labels[labels < 255]).tolist():
                classes.append(scheme.things + label)
                pixels[labels == label] = len(classes)
        crowd = np.append(truth.unjudged, np.zeros(len(classes) - len(truth.unjudged), bool))
        return cls(truth, pixels, np.array(classes, np.int64), crowd)


@dataclass(frozen=True, slots=True)
class Published:
    """What a model would publish of a frame, next to the truth.

    Attributes:
        result: of the segmenter.
        groups: int32 `[R]`, road group of each instance as far as it is judged.
        overlaps: of all segments; instances in their order, then stuff.
        counts: for panoptic quality.
    """

    result: Segmentation
    groups: NDArray[np.int32]
    overlaps: SegmentOverlaps
    counts: PanopticCounts

    @classmethod
    def of(
        cls,
        result: Segmentation,
        class_map: NDArray[np.uint8] | None,
        true: TrueSegments,
        scheme: Scheme,
        label_classes: NDArray[np.int64],
        label_groups: NDArray[np.int32],
    ) -> Published:
        """Compare.

        Args:
            result: of the frame; the instance map has the size of the truth.
            class_map: uint8 `[H, W]`, of a model that has one.
            true: segments of the truth.
            scheme: how classes meet.
            label_classes: int64 `[C]`, class of panoptic quality of each of the model's classes.
            label_groups: int32 `[C]`, road group of each.
        """
        instances = result.instances
        classes = label_classes[instances.labels].tolist()
        places = np.zeros(1 << 16, np.int64)
        places[instances.ids] = np.arange(1, len(instances) + 1)
        pixels = places[result.instance_map.pixels]
        if true.truth.stuff is not None:
            pixels, classes = _with_stuff(pixels, classes, class_map, scheme.things, label_classes)
        counts = (len(true.classes), len(classes))
        overlaps = SegmentOverlaps.of(true.pixels, pixels, counts, true.truth.void)
        found = PanopticCounts.of(
            overlaps, true.classes, np.array(classes, np.int64), true.crowd, len(scheme.segment_names)
        )
        return cls(result, label_groups[instances.labels], overlaps, found)

    def verdict(self, truth: FrameTruth) -> FrameVerdict:
        """Return the right and wrong road users, signs and lights; rows are those of `instances` and of the truth's."""
        rows, columns = truth.judged, self.judged
        iou = self._iou(truth)[np.ix_(rows, columns)]
        iou = np.where(truth.groups[rows][:, None] == self.groups[columns], iou, 0.0)
        pairs = np.argwhere(iou > _MATCH)
        found = np.isin(np.arange(len(columns)), pairs[:, 1])
        extra = np.flatnonzero(~found & ~self._excused(truth)[columns])
        seen = self.overlaps.true_areas[rows] > 0
        missed = np.flatnonzero(seen & ~np.isin(np.arange(len(rows)), pairs[:, 0]))
        total = len(pairs) + (len(extra) + len(missed)) / 2
        score = float(iou[pairs[:, 0], pairs[:, 1]].sum() / total) if total else float("nan")
        words = [
            *_counted("missed", truth.groups[rows][missed]),
            *_counted("false alarm:", self.groups[columns][extra]),
        ]
        if len(pairs):
            words.append(f"{len(pairs)} found with a mean IoU of {iou[pairs[:, 0], pairs[:, 1]].mean():.2f}")
        return FrameVerdict(pairs, missed, extra, score, "; ".join(words) or "nothing to be found, and nothing found")

    def instances(self) -> FrameInstances:
        """The judged instances with the pixels that show them, labelled by road group."""
        rows, own = self.judged, self.result.instances
        return FrameInstances(
            own.boxes_camera[rows], own.scores[rows], self.groups[rows],
            tuple(self.mask(row) for row in rows.tolist()),
        )  # fmt: skip

    def mask(self, row: int) -> CompactMask:
        """The pixels that show an instance."""
        return CompactMask.of(self.result.instance_map.pixels == self.result.instances.ids[row])

    def tracked(self, truth: FrameTruth) -> TrackedFrame:
        """The judged objects and instances with their track numbers; no instances where nothing must be judged."""
        rows, columns = truth.judged, self.judged
        columns = columns[~self._excused(truth)[columns]]
        return TrackedFrame(
            truth.numbers[rows],
            self.result.instances.ids[columns].astype(np.int64),
            truth.groups[rows],
            self.groups[columns],
            self._iou(truth)[np.ix_(rows, columns)],
        )

    @property
    def judged(self) -> NDArray[np.int64]:
        """Rows of the segmenter's instances that have a road group and a pixel, int64 `[J]`."""
        return np.flatnonzero((self.groups != NO_GROUP) & (self.result.areas > 0))

    def _iou(self, truth: FrameTruth) -> NDArray[np.float64]:
        """Objects with instances, float64 `[N, R]`."""
        return self.overlaps.iou()[: len(truth.masks), : len(self.groups)]

    def _excused(self, truth: FrameTruth) -> NDArray[np.bool_]:
        """Instances that lie mostly where nothing is judged, and meet no object: bool `[R]`."""
        count, objects = len(self.groups), len(truth.masks)
        same = (truth.groups[:, None] == self.groups) & truth.unjudged[:, None]
        covered = self.overlaps.void_areas[:count] + (self.overlaps.shared[:objects, :count] * same).sum(axis=0)
        meets = (self._iou(truth)[~truth.unjudged] > _MATCH).any(axis=0)
        excused: NDArray[np.bool_] = (covered > _MATCH * self.overlaps.reported_areas[:count]) & ~meets
        return excused


def _with_stuff(
    pixels: NDArray[np.int64],
    classes: list[int],
    class_map: NDArray[np.uint8] | None,
    things: int,
    label_classes: NDArray[np.int64],
) -> tuple[NDArray[np.int64], list[int]]:
    """The segments with one more for each class of stuff; instances of what the truth calls stuff become part of it."""
    table = np.full(256, -1, np.int64)
    table[: len(label_classes)] = label_classes
    behind = np.full(pixels.shape, -1, np.int64) if class_map is None else table[class_map]
    own = np.append(-1, np.array(classes, np.int64))[pixels]
    shown = np.where(pixels == 0, behind, own)
    found, pixels = list(classes), pixels.copy()
    for each in np.unique(shown[shown >= things]).tolist():
        found.append(each)
        pixels[shown == each] = len(found)
    return pixels, found


def _counted(what: str, groups: NDArray[np.int32]) -> list[str]:
    counts = {group_name(group): number for group, number in sorted(Counter(groups.tolist()).items())}
    return [f"{what} {', '.join(f'{number} {name}' for name, number in counts.items())}"] if counts else []
