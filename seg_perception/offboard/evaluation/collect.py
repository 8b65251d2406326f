"""What a model finds in many frames, compact enough to keep, and as COCO results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.offboard.metrics.class_maps import CompactClassMap
from seg_perception.offboard.metrics.compact import CompactMask, FrameInstances
from seg_perception.offboard.metrics.masks import encode_rle
from seg_perception.onboard.backend.base import Job
from seg_perception.onboard.pipeline.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class CollectedFrame:
    """What a model found in one frame.

    Attributes:
        name: of the frame in its source.
        width, height: of the camera image in pixels.
        instances: every class and no selection, best first.
        class_map: at camera size; None of a model without.
    """

    name: str
    width: int
    height: int
    instances: FrameInstances
    class_map: CompactClassMap | None = None


def collect(
    segmenter: Segmenter, frames: Iterable[tuple[str, Frame]], lowest_score: float = 0.01
) -> Iterator[CollectedFrame]:
    """Run a model over frames and keep everything it finds from a score on; lazily, one frame at a time.

    Args:
        segmenter: its options are not looked at: nothing is selected.
        frames: a `FrameSource`, or any names and frames.
        lowest_score: instances below are left out.

    Raises:
        ModelOutputError: the model produced NaN or infinity; the message names the frame.
    """
    for name, frame in frames:
        instances, class_map = find(segmenter, name, frame, lowest_score)
        kept = None if class_map is None else CompactClassMap.of(class_map)
        yield CollectedFrame(name, frame.width, frame.height, instances, kept)


def find(
    segmenter: Segmenter, name: str, frame: Frame, lowest_score: float
) -> tuple[FrameInstances, NDArray[np.uint8] | None]:
    """Return what a model finds in one frame; arguments and errors as `collect`.

    Returns:
        The instances, and the class map at camera size, uint8 `[height, width]`, if the model has one.
    """
    job = segmenter.backend.start([frame])
    try:
        instances = frame_instances(job, lowest_score)
    except ModelOutputError as error:
        raise ModelOutputError(f"frame {name}: {error}") from error
    return instances, job.class_map(0, (frame.height, frame.width))


def frame_instances(job: Job, lowest_score: float) -> FrameInstances:
    """Return the detections of a job's only frame from a score on, with their whole masks at camera size.

    Raises:
        ModelOutputError: the model produced NaN or infinity.
    """
    (detections,) = job.detections()
    if isinstance(detections, ModelOutputError):
        raise detections
    rows = np.flatnonzero((detections.scores > 0) & (detections.scores >= lowest_score))
    size = (detections.geometry.camera_height, detections.geometry.camera_width)
    return FrameInstances(
        detections.geometry.boxes_to_camera(detections.boxes_network[rows]),
        detections.scores[rows],
        detections.labels[rows],
        tuple(CompactMask.of(job.mask(0, row, size)) for row in rows.tolist()),
    )


def coco_results(instances: FrameInstances, image_id: int, categories: NDArray[np.int64]) -> list[dict[str, Any]]:
    """One COCO result for each instance (https://cocodataset.org/#format-results).

    Args:
        instances: of one frame.
        image_id: the data set's number of the image.
        categories: int64 `[C]`, the data set's number of each of the model's classes; instances of those below 0 are
            left out.
    """
    rows = zip(
        instances.boxes_camera.tolist(),
        instances.scores.tolist(),
        categories[instances.labels].tolist(),
        instances.masks,
        strict=True,
    )
    return [
        {
            "image_id": image_id,
            "category_id": category,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
            "segmentation": encode_rle(mask.full()),
        }
        for (x1, y1, x2, y2), score, category, mask in rows
        if category >= 0
    ]
