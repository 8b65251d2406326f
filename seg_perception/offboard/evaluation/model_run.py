"""One model on its way through a labelled set: what is kept of each frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.boxes import box_iou
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Segmentation
from seg_perception.offboard.metrics.average_precision import KINDS
from seg_perception.offboard.metrics.boundary import boundary_iou
from seg_perception.offboard.metrics.compact import FrameInstances, compact_iou
from seg_perception.offboard.metrics.matching import ClassOverlaps
from seg_perception.offboard.metrics.panoptic import PanopticCounts
from seg_perception.offboard.metrics.segmentations import encode_compact
from seg_perception.onboard.pipeline.trackers import Trackers

from .collect import frame_instances
from .results import FrameVerdict, Latency, Throughput
from .scheme import Scheme, Subject
from .segments import Published, TrueSegments
from .tracking import TrackedFrame
from .truth import FrameTruth

# Average precision looks at instances far below any threshold.
LOWEST_SCORE = 0.01


@dataclass(frozen=True, slots=True)
class FrameResults:
    """What a model found in one frame, as small as it can be kept.

    Attributes:
        image_id: number of the image.
        boxes: float32 `[N, 4]`, x1 y1 x2 y2.
        scores: float32 `[N]`.
        categories: int64 `[N]`.
        size: height and width of the image.
        counts: run lengths of the masks as text.
    """

    image_id: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    categories: NDArray[np.int64]
    size: tuple[int, int]
    counts: tuple[str, ...]

    def entries(self) -> Iterator[dict[str, Any]]:
        """COCO results."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.categories.tolist(), self.counts, strict=True)
        for (x1, y1, x2, y2), score, category, counts in rows:
            yield {
                "image_id": self.image_id,
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
                "segmentation": {"size": list(self.size), "counts": counts},
            }


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """The matches of the judged objects of one frame, in their order.

    Attributes:
        found: bool `[J]`.
        mask_iou, boundary_iou: float64 `[J]`, NaN of those that were not found.
    """

    found: NDArray[np.bool_]
    mask_iou: NDArray[np.float64]
    boundary_iou: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model found in one frame: all instances with their whole masks, and what a node would publish.

    Attributes:
        class_map: uint8 `[H, W]`; None where the truth has no stuff, or the model no class map.
    """

    found: FrameInstances
    result: Segmentation
    class_map: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class Look:
    """What a model made of one frame, as long as the frame is at hand."""

    found: FrameInstances
    published: Published
    verdict: FrameVerdict


class ModelRun:
    """What a model did so far.

    Attributes:
        subject: the model.
        results: by frame.
        overlaps: by kind of AP, then by frame, then by road group.
        objects: by frame.
        panoptic: of all frames.
        tracked: frames by sequence.
        inference_s: seconds of the model and all around it that a node does, too.
        masks_s: seconds for the whole masks of all results, which only average precision asks for.
    """

    def __init__(self, subject: Subject, scheme: Scheme) -> None:
        self.subject = subject
        self.results: list[FrameResults] = []
        self.overlaps: dict[str, list[tuple[ClassOverlaps, ...]]] = {kind: [] for kind in KINDS}
        self.objects: list[ObjectScores] = []
        self.panoptic = PanopticCounts.none(len(scheme.segment_names))
        self.tracked: dict[str, list[TrackedFrame]] = {}
        self.inference_s = self.masks_s = 0.0
        self._scheme = scheme
        self._categories = scheme.categories(subject)
        self._groups = scheme.groups(subject)
        self._classes = scheme.segment_classes(subject)
        self._stages: list[dict[str, float]] = []
        self._sequence = ""

    def see(self, frame: Frame, true: TrueSegments, sequence: str) -> Seen:
        """Run the model on a frame; nothing of it is counted yet.

        Args:
            frame: of the size of the truth.
            true: its truth.
            sequence: that it belongs to; empty for a single image.

        Raises:
            FrameError: it cannot be decoded.
            ModelOutputError: the model produced NaN or infinity; the message names model and frame.
        """
        segmenter = self.subject.segmenter
        if sequence != self._sequence:
            segmenter.trackers, self._sequence = Trackers(), sequence
        begin = perf_counter()
        try:
            begun = segmenter.begin([frame])
            (result,) = segmenter.end(begun)
            if isinstance(result, ModelOutputError):
                raise result
            done = perf_counter()
            found = frame_instances(begun.job, LOWEST_SCORE)
        except ModelOutputError as error:
            raise ModelOutputError(f"{self.subject.name}: frame {true.truth.name}: {error}") from error
        self.inference_s += done - begin
        self.masks_s += perf_counter() - done
        class_map = begun.job.class_map(0, true.truth.size) if true.truth.stuff is not None else None
        return Seen(found, result, class_map)

    def look(self, seen: Seen, true: TrueSegments, sequence: str) -> Look:
        """Hold what was found in a frame against the truth, and keep what matters of it; arguments as `see`."""
        found, result = seen.found, seen.result
        self._stages.append({stage: 1000 * seconds for stage, seconds in result.timings.items()})
        published = Published.of(result, seen.class_map, true, self._scheme, self._classes, self._groups)
        self._keep(found, true.truth)
        verdict = published.verdict(true.truth)
        self.objects.append(_object_scores(published, verdict, true.truth))
        self.panoptic = PanopticCounts.sum([self.panoptic, published.counts], len(self._scheme.segment_names))
        if sequence:
            self.tracked.setdefault(sequence, []).append(published.tracked(true.truth))
        return Look(found, published, verdict)

    def in_groups(self, found: FrameInstances) -> FrameInstances:
        """The road users, signs and lights among instances, labelled by road group instead of class."""
        groups = self._groups[found.labels]
        rows = np.flatnonzero(groups != NO_GROUP)
        return FrameInstances(
            found.boxes_camera[rows], found.scores[rows], groups[rows], tuple(found.masks[row] for row in rows.tolist())
        )

    def throughput(self) -> Throughput:
        """Return how fast it was."""
        names = list(dict.fromkeys(stage for frame in self._stages for stage in frame))
        times = {name: np.array([frame.get(name, 0.0) for frame in self._stages]) for name in names}
        total = np.sum([np.zeros(len(self._stages)), *times.values()], axis=0)
        mean = float(total.mean()) if len(total) else float("nan")
        return Throughput(
            1000 / mean if mean else float("nan"),
            {name: _latency(each) for name, each in {**times, "total": total}.items()},
            total.astype(np.float32),
        )

    def _keep(self, found: FrameInstances, truth: FrameTruth) -> None:
        categories = self._categories[found.labels]
        rows = np.flatnonzero(categories >= 0)
        self.results.append(
            FrameResults(
                truth.image_id, found.boxes_camera[rows], found.scores[rows], categories[rows],
                truth.size, tuple(encode_compact(found.masks[row])["counts"] for row in rows.tolist()),
            )
        )  # fmt: skip
        groups = self._groups[found.labels]
        sides = found.boxes_camera[:, 2:].astype(np.float64) - found.boxes_camera[:, :2]
        true_sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
        mask_areas = found.areas(), np.array([mask.area for mask in truth.masks], np.int64)
        for kind, areas in (("mask", mask_areas), ("box", (sides.prod(axis=1), true_sides.prod(axis=1)))):
            by_group = []
            crowd = truth.unjudged if kind == "mask" else truth.crowd
            for group in range(len(ROAD_GROUPS)):
                own, true = np.flatnonzero(groups == group), np.flatnonzero(truth.groups == group)
                iou = np.zeros((len(found), len(truth.masks)))
                iou[np.ix_(own, true)] = (
                    compact_iou([found.masks[row] for row in own], [truth.masks[row] for row in true])
                    if kind == "mask"
                    else box_iou(found.boxes_camera[own], truth.boxes[true])
                )
                by_group.append(ClassOverlaps.of(iou, found.scores, areas, crowd, own, true))
            self.overlaps[kind].append(tuple(by_group))


def _object_scores(published: Published, verdict: FrameVerdict, truth: FrameTruth) -> ObjectScores:
    rows, columns = truth.judged, published.judged
    found = np.zeros(len(rows), bool)
    mask_iou, outline_iou = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    iou = published.overlaps.iou()
    for row, column in verdict.found.tolist():
        found[row] = True
        mask_iou[row] = iou[rows[row], columns[column]]
        outline_iou[row] = boundary_iou(truth.masks[rows[row]], published.mask(int(columns[column])))
    return ObjectScores(found, mask_iou, outline_iou)


def _latency(milliseconds: NDArray[np.float64]) -> Latency:
    if not len(milliseconds):
        return Latency(*[float("nan")] * 5)
    half, ninety, most = np.percentile(milliseconds, [50, 90, 99]).tolist()
    return Latency(float(milliseconds.mean()), half, ninety, most, float(milliseconds.max()))
