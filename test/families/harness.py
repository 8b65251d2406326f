"""Holds a canonical model against what the family's own code finds in the same network input.

    images = sharp_images(4, 256, 320)
    reference = [instances_of(boxes, scores, labels, masks), ...]      by the family's own post-processing
    assert_agreement("YOLOv8-seg", reference, found_in(canonical, images, lowest_score=0.2), Bounds(score=0.25))

The images already have the network's size, so that the resize before the network has no part in it. Masks are
compared as the pipeline paints them, pixel by pixel at the size of the network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from runners import open_runner

from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections
from seg_perception.offboard.metrics.agreement import Agreement, AgreementRule, FrameAgreement, compare
from seg_perception.offboard.metrics.compact import FrameInstances
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.runner import ModelOutputs
from seg_perception.onboard.backend.registry import open_backend

# What was measured, for the table that the run ends with.
MEASURED: list[str] = []


@dataclass(frozen=True)
class Bounds:
    """What is compared, and how much the two may differ.

    Attributes:
        score: lowest score of an instance that both must have.
        margin: an instance scoring up to this much less may be the counterpart of one at the threshold.
        min_iou: of the masks of every pair of counterparts.
        mean_iou: of the masks of all pairs.
        box: largest difference of a box side, network pixels.
        score_difference: largest difference of the scores of counterparts.
        min_pixels: smallest instance that both must have; of a mask of a few pixels one border pixel decides its IoU.
        at_least: instances that must have been compared, lest the test compares nothing.
        faults: how many instances may be missed, extra or of another label (for rounded networks).
    """

    score: float = 0.25
    margin: float = 1e-3
    min_iou: float = 0.98
    mean_iou: float = 0.98
    box: float = 0.5
    score_difference: float = 1e-3
    min_pixels: int = 64
    at_least: int = 10
    faults: int = 0


def sharp_images(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images of overlapping bright rectangles on noise, uint8 `[count, height, width, 3]`, RGB."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 140, (count, height, width, 3), np.uint8)
    for image in images:
        for _ in range(12):
            top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
            down, across = rng.integers(8, height // 2), rng.integers(8, width // 2)
            image[top : top + down, left : left + across] = rng.integers(0, 256, 3)
    return images


def instances_of(boxes: Any, scores: Any, labels: Any, masks: Any, scale: int = 1) -> FrameInstances:
    """What the family's own code found in one image, as arrays or CPU tensors.

    Args:
        boxes: `[N, 4]`, x1 y1 x2 y2 in network pixels; clipped, as ours are.
        scores: `[N]`.
        labels: `[N]`, index into the class names.
        masks: `[N, H, W]` at the size of the network input or `scale` times that; above 0.5 (or True) is inside.
        scale: see `found_in`.
    """
    inside = np.asarray(masks)
    if inside.dtype != np.bool_:
        inside = inside > 0.5
    height, width = inside.shape[1:]
    clipped = np.clip(np.asarray(boxes).reshape(-1, 4), 0, np.array([width, height] * 2) / scale)
    return FrameInstances.of(clipped, np.asarray(scores), np.asarray(labels), inside)


def found_in(
    canonical: Path,
    images: NDArray[np.uint8],
    lowest_score: float = 0.01,
    backend: str = "onnxruntime",
    scale: int = 1,
) -> list[FrameInstances]:
    """What the pipeline finds.

    Args:
        canonical: the model.
        images: of the network's size, uint8 `[B, H, W, 3]`, RGB.
        lowest_score: instances below are left out.
        backend: which one runs the model.
        scale: masks are painted at this many times the network's size. Where a family cuts masks at another side of
            the border pixels of a box, the difference is smaller in a larger mask.
    """
    opened = open_backend(canonical, backend, RunOptions(threads=1))
    size = (scale * images.shape[1], scale * images.shape[2])
    found = []
    for image in images:
        job = opened.start([Frame.from_bgr(image[..., ::-1])])
        (detections,) = job.detections()
        assert isinstance(detections, Detections), detections
        rows = np.flatnonzero((detections.scores > 0) & (detections.scores >= lowest_score))
        boxes = detections.geometry.boxes_to_camera(detections.boxes_network[rows])
        masks = (job.mask(0, row, size) for row in rows.tolist())
        found.append(FrameInstances.of(boxes, detections.scores[rows], detections.labels[rows], masks))
    opened.close()
    return found


def outputs_of(canonical: Path, images: NDArray[np.uint8], backend: str = "onnxruntime") -> ModelOutputs:
    """The canonical model's own outputs (class maps among them) for images of the network's size, RGB."""
    return open_runner(canonical, backend).run(np.ascontiguousarray(images))


def assert_agreement(
    subject: str, reference: Sequence[FrameInstances], tested: Sequence[FrameInstances], bounds: Bounds | None = None
) -> Agreement:
    """Every instance of one side has its counterpart on the other, within bounds; notes what was measured."""
    bounds = bounds or Bounds()
    rule = AgreementRule(bounds.score, bounds.margin, min_pixels=bounds.min_pixels)
    frames = [compare(ours, theirs, rule) for ours, theirs in zip(reference, tested, strict=True)]
    agreement = Agreement.of(frames)
    line = _line(subject, agreement, frames)
    MEASURED.append(line)
    print(line)
    lowest = min((float(frame.iou.min()) for frame in frames if frame.iou.size), default=float("nan"))
    scores = max((float(np.abs(frame.score_difference).max()) for frame in frames if frame.iou.size), default=0.0)
    assert agreement.matched >= bounds.at_least, line
    assert agreement.missed + agreement.extra + agreement.switched <= bounds.faults, line
    assert lowest >= bounds.min_iou, line
    assert agreement.mean_iou >= bounds.mean_iou, line
    assert agreement.box_difference_max <= bounds.box, line
    assert scores <= bounds.score_difference, line
    return agreement


def assert_same_map(subject: str, reference: NDArray[np.integer], tested: NDArray[np.integer], share: float) -> None:
    """Two class maps of one shape agree in at least this share of their cells; notes what was measured."""
    assert reference.shape == tested.shape
    same = float(np.mean(reference == tested))
    classes = len(np.unique(reference))
    line = f"{subject}: class map {tested.shape}, {classes} classes seen, {100 * same:.3f} % of cells equal"
    MEASURED.append(line)
    print(line)
    assert classes > 1, line
    assert same >= share, line


def _line(subject: str, agreement: Agreement, frames: Sequence[FrameAgreement]) -> str:
    iou = np.concatenate([frame.iou for frame in frames])
    scores = np.concatenate([np.abs(frame.score_difference) for frame in frames])
    return (
        f"{subject}: {agreement.frames} images, {agreement.matched} matched of {agreement.reference}, "
        f"{agreement.missed} false negatives, {agreement.extra} false positives, "
        f"{agreement.switched} class confusions; "
        f"mask IoU min {iou.min(initial=1.0):.4f} mean {agreement.mean_iou:.5f}; "
        f"box difference max {agreement.box_difference_max:.4f} px; score difference max {scores.max(initial=0):.6f}"
    )
