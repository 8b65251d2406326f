"""What a model sees in a frame: labels, how sure it is of them, and what another model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.boxes import box_iou
from seg_perception.core.classes import NO_GROUP, ClassTable, group_name
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Instances, Segmentation
from seg_perception.offboard.metrics.agreement import AgreementRule, FrameAgreement, compare
from seg_perception.offboard.metrics.compact import CompactMask, FrameInstances
from seg_perception.onboard.backend.base import Job
from seg_perception.onboard.backend.host.select import select
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.trackers import Trackers

from .records import Category, LabelledObject, QaFlag, box_of
from .shapes import painted_mask
from .temporal import TrackedObservation

# Scores this far above and below the threshold are doubtful, the nearer the more; below are many more detections.
_ABOVE, _BELOW = 0.2, 0.1
# A box that is not labelled and lies over a labelled one of its group is a double of it, no object.
_DOUBLE_IOU = 0.5
# A box and the box around its mask that overlap by less were made of different objects, or one is wrong.
_BOX_IOU = 0.6
# Below, a box's sides are a matter of single pixels.
_FEWEST_PIXELS = 64
# Parts of a mask other than the largest one that hold less than this share are specks.
_ONE_PIECE = 0.9


@dataclass(frozen=True, slots=True)
class Model:
    """A model and how its classes are sorted; `table` gives the road groups."""

    segmenter: Segmenter
    table: ClassTable

    @property
    def groups(self) -> NDArray[np.int32]:
        """Road group of each class, int32 `[C]`."""
        return self.table.groups(self.segmenter.spec.class_names)


@dataclass(frozen=True, slots=True)
class Other:
    """What another model says of a frame.

    Attributes:
        instances: what it sees; labels are road groups.
        agreement: of the first model, as reference, with it.
    """

    instances: FrameInstances
    agreement: FrameAgreement


@dataclass(frozen=True, slots=True)
class Observation:
    """What the model sees in one frame.

    Attributes:
        result: what is labelled.
        job: all that the model found.
        doubtful: what scores just below the threshold, and so is not labelled.
        uncertainty: how many instances are doubtful, each counted by how near its score is to the threshold.
        other: what the other model says.
    """

    result: Segmentation
    job: Job
    doubtful: Instances
    uncertainty: float
    other: Other | None = None


class Observer:
    """Runs the model, and the other one if there is one."""

    def __init__(self, model: Model, categories: Sequence[Category], by_class: bool, other: Model | None) -> None:
        """Take the models; `categories` are those of the data set, by class or by road group."""
        self._model, self._other = model, other
        self._groups = model.groups
        self._class_names = model.segmenter.spec.class_names
        self._by_class = by_class
        self._known = {each.name for each in categories}
        self._tracked = model.segmenter.options
        if other is not None:
            other.segmenter.options = replace(other.segmenter.options, tracking=None)

    def begin(self, tracked: bool) -> None:
        """A new recording begins: tracks of the one before end; images that do not follow one another have none."""
        segmenter = self._model.segmenter
        segmenter.trackers = Trackers()
        segmenter.options = self._tracked if tracked else replace(self._tracked, tracking=None)

    def look(self, frame: Frame) -> Observation:
        """Run the models on a frame.

        Raises:
            FrameError: it cannot be decoded.
            ModelOutputError: a model produced NaN or infinity.
        """
        options = self._model.segmenter.options
        other = None if self._other is None else by_group(_run(self._other.segmenter, frame)[1])
        job, result = _run(self._model.segmenter, frame)
        (detections,) = job.detections()
        if isinstance(detections, ModelOutputError):
            raise detections
        threshold = options.select.score_threshold
        lowered = replace(options.select, score_threshold=max(0.0, threshold - _BELOW))
        found = select(detections, self._groups, lowered)
        kept = result.instances
        double = (
            (box_iou(found.boxes_camera, kept.boxes_camera) > _DOUBLE_IOU) & (found.groups[:, None] == kept.groups)
        ).any(axis=1)
        doubtful = found.where((found.scores < threshold) & ~double & ~np.isin(found.rows, kept.rows))
        scores = np.concatenate([kept.scores, doubtful.scores])
        uncertainty = float(doubt(scores, threshold).sum())
        compared = None
        if other is not None:
            rule = AgreementRule(threshold, min(0.05, threshold))
            compared = Other(other, compare(by_group(result), other, rule))
        return Observation(result, job, doubtful, uncertainty, compared)

    def observations(self, seen: Observation) -> list[TrackedObservation]:
        """Return what the frames around this one will be compared with."""
        instances = seen.result.instances
        return [
            TrackedObservation(int(track), group_name(int(group)), box_of(box))
            for track, group, box in zip(instances.ids, instances.groups, instances.boxes_camera, strict=True)
        ]

    def describe(self, seen: Observation) -> tuple[list[LabelledObject], list[QaFlag]]:
        """Labels of a frame, and what is doubtful about them."""
        objects: list[LabelledObject] = []
        concerns: list[QaFlag] = []
        instances, frame = seen.result.instances, seen.result.frame
        size = (frame.height, frame.width)
        options = self._model.segmenter.options
        threshold = options.select.score_threshold
        for index in range(len(instances)):
            name = self._name(instances, index)
            if name not in self._known:
                continue
            number, box = int(instances.ids[index]), instances.boxes_camera[index]
            score = float(instances.scores[index])
            whole = CompactMask.of(seen.job.mask(0, int(instances.rows[index]), size))
            mask = painted_mask(seen.result.instance_map.pixels, number, box)
            if not mask.area:  # all of it is behind others
                continue
            visible = round(min(1.0, mask.area / max(1, whole.area)), 4)
            about = doubts_of(name, score, threshold, box, whole)
            concerns += [replace(each, subject=len(objects)) for each in about]
            objects.append(LabelledObject(name, mask, round(score, 4), number if options.tracking else 0, visible))
        return objects, [*concerns, *self._overlooked(seen, threshold), *_disagreements(seen)]

    def _overlooked(self, seen: Observation, threshold: float) -> list[QaFlag]:
        """Return what is not labelled, but might have been."""
        found = seen.doubtful
        weights = doubt(found.scores, threshold)
        places = [box_of(each) for each in found.boxes_camera]
        return [
            QaFlag(
                "overlooked", float(weights[row]), f"perhaps a {self._name(found, row)}, at score {score:.2f}", place
            )
            for row, (score, place) in enumerate(zip(found.scores.tolist(), places, strict=True))
            if weights[row] > 0
        ]

    def _name(self, instances: Instances, index: int) -> str:
        if self._by_class:
            return self._class_names[int(instances.labels[index])]
        return group_name(int(instances.groups[index]))


def _run(segmenter: Segmenter, frame: Frame) -> tuple[Job, Segmentation]:
    """Run a model on a frame.

    Raises:
        FrameError: it cannot be decoded.
        ModelOutputError: the model produced NaN or infinity.
    """
    begun = segmenter.begin([frame])
    (result,) = segmenter.end(begun)
    if isinstance(result, ModelOutputError):
        raise result
    return begun.job, result


def doubt(scores: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
    """Return how doubtful it is whether something is there: 1 at the threshold, 0 far from it; float64 `[N]`."""
    above = scores.astype(np.float64) - threshold
    return np.maximum(0.0, 1.0 - np.where(above < 0, -above / _BELOW, above / _ABOVE))


def by_group(result: Segmentation) -> FrameInstances:
    """Return what would be labelled in a frame, as far as it belongs to road groups, which are the labels."""
    instances = result.instances.where(result.instances.groups != NO_GROUP)
    masks = [
        painted_mask(result.instance_map.pixels, int(number), box)
        for number, box in zip(instances.ids, instances.boxes_camera, strict=True)
    ]
    return FrameInstances(instances.boxes_camera, instances.scores, instances.groups, tuple(masks))


def doubts_of(name: str, score: float, threshold: float, box: NDArray[np.float32], whole: CompactMask) -> list[QaFlag]:
    """Return what is doubtful about one instance by itself."""
    found = []
    near = float(doubt(np.array([score], np.float32), threshold)[0])
    place = box_of(box)
    if near > 0:
        found.append(QaFlag("unsure", near, f"{name} at score {score:.2f}; the threshold is {threshold:.2f}", place))
    if whole.area < _FEWEST_PIXELS:
        return found
    around = np.array([[whole.left, whole.top, whole.right, whole.bottom]], np.float64)
    iou = float(box_iou(around, box[None])[0, 0])
    if iou < _BOX_IOU:
        words = f"box and mask of a {name} do not fit each other (IoU {iou:.2f})"
        found.append(QaFlag("box_mask", 1 - iou / _BOX_IOU, words, place))
    pieces, largest = _pieces(whole)
    if largest < _ONE_PIECE:
        words = f"the mask of a {name} is in {pieces} pieces, of which the largest has {100 * largest:.0f} %"
        found.append(QaFlag("pieces", 1 - largest, words, place))
    return found


def _pieces(mask: CompactMask) -> tuple[int, float]:
    """Return how many parts a mask has, and the share of the largest."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.region().astype(np.uint8), connectivity=8)
    return count - 1, float(stats[1:, cv2.CC_STAT_AREA].max()) / mask.area


def _disagreements(seen: Observation) -> list[QaFlag]:
    """Return where the other model says something else."""
    if seen.other is None:
        return []
    ours, theirs, compared = by_group(seen.result), seen.other.instances, seen.other.agreement

    def name(instances: FrameInstances, row: int) -> str:
        return group_name(int(instances.labels[row]))

    def concern(words: str, instances: FrameInstances, row: int) -> QaFlag:
        return QaFlag("models", 1.0, f"the other model {words}", box_of(instances.boxes_camera[row]))

    return [
        *(
            concern(f"sees a {name(theirs, row)} here, at score {theirs.scores[row]:.2f}", theirs, row)
            for row in compared.extra.tolist()
        ),
        *(concern(f"sees no {name(ours, row)} here", ours, row) for row in compared.missed.tolist()),
        *(
            concern(f"calls this {name(ours, row)} a {name(theirs, column)}", ours, row)
            for row, column in compared.switched.tolist()
        ),
    ]
