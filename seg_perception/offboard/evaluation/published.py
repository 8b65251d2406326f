"""What a node published, held against the truth of the same frames.

Only what is in the messages counts: an instance is the pixels that have its number in the instance map, under the road
group and score of the detection with that id. So everything between camera and receiver is judged, not the model alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.boxes import box_iou
from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.offboard.data.published import PublishedFrame
from seg_perception.offboard.metrics.agreement import Agreement, AgreementRule, FrameAgreement, compare
from seg_perception.offboard.metrics.compact import CompactMask, FrameInstances
from seg_perception.offboard.metrics.masks import encode_rle

from .by_group import SIZES, GroupPrecision, group_precision
from .coco import CATEGORIES
from .collect import coco_results

# Category of each road group by its index; the last one is for `NO_GROUP`, which is -1.
_CATEGORY_OF_GROUP = np.array([*range(1, len(ROAD_GROUPS) + 1), -1], np.int64)
# Shifts in pixels at which a map is laid over the truth.
SHIFTS = (-4, -2, 0, 2, 4)


@dataclass(frozen=True, slots=True)
class IdAgreement:
    """Consistency of ids: whether one means the same in the instance map, in the detections and over time.

    Attributes:
        pixels: of the received maps that belong to an instance.
        known_pixels: those of them whose number is the id of a detection of the same frame.
        detections: how many were received.
        shown: those of them whose id is the number of at least one pixel of the same frame's map.
        box_iou: mean IoU of a shown detection's box with the box around the pixels of its number; of those with the
            rule's score, because others are mostly doubles that lie behind a better one. A part hidden behind another
            instance lowers it; ids that are mixed up bring it near 0.
        seen_again: how often a true object was found that had been found before.
        kept: how many of these times it had the same number as the last time.
    """

    pixels: int
    known_pixels: int
    detections: int
    shown: int
    box_iou: float
    seen_again: int
    kept: int


@dataclass(frozen=True, slots=True)
class Alignment:
    """Agreement of the road groups pixel by pixel, and whether they do better with another frame or place.

    Each value is the pixels with the same group in both over those with a group in either, 0-1; NaN without any.

    Attributes:
        frames: by how many frames the truth is later than the map: -1, 0 and 1.
        right: by how many pixels the map is moved to the right: `SHIFTS`.
        down: the same downwards.
    """

    frames: Mapping[int, float]
    right: Mapping[int, float]
    down: Mapping[int, float]

    @property
    def fits(self) -> bool:
        """Return whether each map fits its own frame best, at its own place."""
        return all(max(each, key=lambda shift: each[shift]) == 0 for each in (self.frames, self.right, self.down))


@dataclass(frozen=True, slots=True)
class PublishedComparison:
    """What was received on one side, the truth on the other.

    Attributes:
        frames: frames that were compared.
        precision: of masks, for each of `by_group.SIZES`.
        agreement: instances with the rule's score and size; the reference is the truth.
        ids: numbers.
        alignment: stamps and geometry.
    """

    frames: int
    precision: tuple[GroupPrecision, ...]
    agreement: Agreement
    ids: IdAgreement
    alignment: Alignment


def compare_published(
    truth: Sequence[PublishedFrame], received: Iterable[PublishedFrame], rule: AgreementRule
) -> PublishedComparison:
    """Compare every received frame with the truth of the same stamp.

    Args:
        truth: in the order of stamps.
        received: of some of these frames.
        rule: which instances `agreement` and `ids.kept` count.

    Raises:
        ValueError: no received frame has a stamp of the truth, or maps differ in size.
        BackendUnavailable: pycocotools is not installed.
    """
    place_of = {frame.stamp_ns: place for place, frame in enumerate(truth)}
    found = {place_of[frame.stamp_ns]: frame for frame in received if frame.stamp_ns in place_of}
    if not found:
        raise ValueError("received frames: expected at least one with a stamp of the truth, got none")
    pairs = [(place, truth[place], found[place]) for place in sorted(found)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    agreements: list[FrameAgreement] = []
    for place, true, seen in pairs:
        ours, theirs = instances_of(true), instances_of(seen)
        annotations += _annotations(place, ours)
        results += coco_results(theirs, place, _CATEGORY_OF_GROUP)
        agreements.append(compare(ours, theirs, rule))
    height, width = truth[0].pixels.shape
    images = [{"id": place, "height": height, "width": width} for place in found]
    matched = [(true, seen, agreement) for (_, true, seen), agreement in zip(pairs, agreements, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return PublishedComparison(
        len(pairs),
        tuple(
            group_precision(name, "mask", content, results, list(found), counts) for name, counts in SIZES.items()
        ),
        Agreement.of(agreements),
        _ids(matched, rule.score),
        _alignment(truth, found),
    )  # fmt: skip


def instances_of(frame: PublishedFrame) -> FrameInstances:
    """The detections of a frame, each with the pixels of its number; labels are road groups."""
    return FrameInstances.of(
        frame.boxes_camera, frame.scores, frame.groups, (frame.pixels == number for number in frame.numbers)
    )


def _annotations(image: int, instances: FrameInstances) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": int(_CATEGORY_OF_GROUP[group]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": mask.area,
            "segmentation": encode_rle(mask.full()),
        }
        for (x1, y1, x2, y2), group, mask in zip(
            instances.boxes_camera.tolist(), instances.labels.tolist(), instances.masks, strict=True
        )
    ]


def _ids(frames: Sequence[tuple[PublishedFrame, PublishedFrame, FrameAgreement]], score: float) -> IdAgreement:
    """Of (true, received, how they match) in order of time; boxes from a score on."""
    pixels = known = shown = detections = seen_again = kept = 0
    overlaps: list[float] = []
    number_of: dict[int, int] = {}
    for true, seen, agreement in frames:
        pixels += np.count_nonzero(seen.pixels)
        known += np.count_nonzero(np.isin(seen.pixels, seen.numbers) & (seen.pixels > 0))
        masks = [CompactMask.of(seen.pixels == number) for number in seen.numbers]
        around = np.array([(mask.left, mask.top, mask.right, mask.bottom) for mask in masks]).reshape(-1, 4)
        visible = np.array([mask.area > 0 for mask in masks], bool)
        detections += len(masks)
        shown += np.count_nonzero(visible)
        sure = visible & (seen.scores >= score)
        overlaps += np.diagonal(box_iou(seen.boxes_camera[sure], around[sure])).tolist()
        for row, column in agreement.pairs.tolist():
            track, number = int(true.numbers[row]), int(seen.numbers[column])
            seen_again += track in number_of
            kept += number_of.get(track) == number
            number_of[track] = number
    mean = float(np.mean(overlaps)) if overlaps else float("nan")
    return IdAgreement(int(pixels), int(known), detections, int(shown), mean, seen_again, kept)


def _alignment(truth: Sequence[PublishedFrame], received: Mapping[int, PublishedFrame]) -> Alignment:
    """Of received frames by their place in the truth; those at its ends have no neighbour and are left out."""
    true = [_group_map(frame) for frame in truth]
    inner = {place: _group_map(frame) for place, frame in received.items() if 0 < place < len(truth) - 1}
    return Alignment(
        {shift: _same([(true[place + shift], seen) for place, seen in inner.items()]) for shift in (-1, 0, 1)},
        {shift: _same([_overlap(true[place], seen, shift) for place, seen in inner.items()]) for shift in SHIFTS},
        {shift: _same([_overlap(true[place].T, seen.T, shift) for place, seen in inner.items()]) for shift in SHIFTS},
    )


def _group_map(frame: PublishedFrame) -> NDArray[np.uint8]:
    """Index of the road group of each pixel + 1, 0 for none: uint8 `[H, W]`."""
    table = np.zeros(1 << 16, np.uint8)
    table[frame.numbers] = frame.groups + 1
    return table[frame.pixels]


def _overlap(
    true: NDArray[np.uint8], seen: NDArray[np.uint8], shift: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what of both lies over one another once the second is moved right; the same size for each shift."""
    most = max(SHIFTS)
    width = true.shape[1] - 2 * most
    return true[:, most : most + width], seen[:, most - shift : most - shift + width]


def _same(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> float:
    equal = sum(int(np.count_nonzero((true == seen) & (true > 0))) for true, seen in pairs)
    either = sum(int(np.count_nonzero(true | seen)) for true, seen in pairs)
    return equal / either if either else float("nan")
