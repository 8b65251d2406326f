"""Which detections are kept: thresholds by road group, duplicates across classes, ignore regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.boxes import box_iou
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.core.encodings.compressed import stored_pixels
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.instances import Detections, Instances

from ..base import SelectionParams

# An instance is ignored when more than this share of its box lies in the ignore region.
IGNORED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class SelectOptions:
    """What is kept.

    Attributes:
        score_threshold: lowest score, 0-1, for groups without a threshold of their own.
        group_thresholds: lowest score by index in `ROAD_GROUPS`; negative takes `score_threshold`.
        group_iou: of two instances of different classes in one road group whose boxes overlap by more than this IoU,
            the one with the lower score is dropped (a car that is also a truck is one vehicle); 1 keeps both.
        keep_other: whether instances of classes of no road group are kept too.
    """

    score_threshold: float = 0.25
    group_thresholds: tuple[float, ...] = (-1.0,) * len(ROAD_GROUPS)
    group_iou: float = 0.7
    keep_other: bool = False

    def __post_init__(self) -> None:
        if len(self.group_thresholds) != len(ROAD_GROUPS):
            raise ConfigurationError(
                f"group thresholds: expected {len(ROAD_GROUPS)}, one for each of {', '.join(ROAD_GROUPS)}; "
                f"got {len(self.group_thresholds)}"
            )
        if not 0 <= self.score_threshold <= 1 or max(self.group_thresholds) > 1:
            raise ConfigurationError(
                f"score thresholds: expected 0 to 1, got {self.score_threshold} and for groups {self.group_thresholds}"
            )
        if not 0 <= self.group_iou <= 1:
            raise ConfigurationError(f"group IoU: expected 0 to 1, got {self.group_iou}")

    def thresholds(self) -> NDArray[np.float32]:
        """Lowest score by group index, float32 `[len(ROAD_GROUPS) + 1]`; the last one is for `NO_GROUP`."""
        own = [self.score_threshold if value < 0 else value for value in self.group_thresholds]
        return np.array([*own, self.score_threshold], np.float32)

    @property
    def lowest_threshold(self) -> float:
        """The lowest score of anything that is kept."""
        return float((self.thresholds() if self.keep_other else self.thresholds()[:-1]).min())


class IgnoreMask:
    """A region of a camera's image in which nothing is reported, for instance the hood of the ego vehicle."""

    def __init__(self, ignored: NDArray[np.bool_]) -> None:
        """Take the region.

        Args:
            ignored: bool `[h, w]`, spanning the camera image at any resolution.
        """
        self._sums = np.pad(np.cumsum(np.cumsum(ignored, axis=0, dtype=np.float64), axis=1), ((1, 0), (1, 0)))

    @classmethod
    def load(cls, path: Path) -> IgnoreMask:
        """Read a grey image whose non-zero pixels are ignored.

        Raises:
            ConfigurationError: it cannot be read.
        """
        image = stored_pixels(path, cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise ConfigurationError(
                f"ignore mask: expected an image (PNG or JPEG, non-zero = ignored) at {path}, could not read one"
            )
        return cls(image > 0)

    @property
    def sums(self) -> NDArray[np.float64]:
        """Ignored pixels above and to the left of each corner of the mask's pixels, float64 `[h + 1, w + 1]`."""
        return self._sums


def ignored_share(
    sums: NDArray[np.float64], boxes: NDArray[np.float32], width: int, height: int
) -> NDArray[np.float64]:
    """Return the ignored share of boxes.

    Args:
        sums: float64 `[h + 1, w + 1]`, of an `IgnoreMask`.
        boxes: float32 `[N, 4]`, x1 y1 x2 y2 in camera pixels.
        width, height: size of the camera image.

    Returns:
        float64 `[N]`, 0-1, to the whole pixel of the mask.
    """
    rows, columns = sums.shape[0] - 1, sums.shape[1] - 1
    scaled = boxes * np.array([columns / width, rows / height] * 2)
    x1, y1 = np.floor(scaled[:, 0]).astype(int), np.floor(scaled[:, 1]).astype(int)
    # Rounding may take a box that ends with the image one pixel beyond the mask.
    x2 = np.minimum(np.ceil(scaled[:, 2]).astype(int), columns)
    y2 = np.minimum(np.ceil(scaled[:, 3]).astype(int), rows)
    inside = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    covered: NDArray[np.float64] = inside / np.maximum((x2 - x1) * (y2 - y1), 1)
    return covered


def class_thresholds(options: SelectOptions, class_groups: NDArray[np.int32]) -> NDArray[np.float32]:
    """Lowest score of each class, float32 `[C]`; infinity for classes that are never kept.

    Args:
        options: what is kept.
        class_groups: int32 `[C]`, road group of each class, or `NO_GROUP`.
    """
    thresholds = options.thresholds()[class_groups]
    if not options.keep_other:
        thresholds[class_groups == NO_GROUP] = np.inf
    return thresholds


def select(
    detections: Detections, class_groups: NDArray[np.int32], options: SelectOptions, ignore: IgnoreMask | None = None
) -> Instances:
    """Keep what is worth reporting, with the ids 1..N by descending score.

    Args:
        detections: of one frame.
        class_groups: int32 `[C]`, road group of each of the model's classes, or `NO_GROUP`.
        options: what is kept.
        ignore: the camera's ignore region.
    """
    thresholds = class_thresholds(options, class_groups)
    sums = ignore.sums if ignore is not None else None
    params = SelectionParams(thresholds, class_groups, options.group_iou, 0, (1, 1), sums)
    return instances_of(detections, select_rows(detections, params), class_groups)


def select_rows(detections: Detections, params: SelectionParams) -> NDArray[np.uint16]:
    """Return the id of each row, uint16 `[K]`: 1..N by descending score, 0 for rows that are left out."""
    kept = (detections.scores > 0) & (detections.scores >= params.thresholds[detections.labels])
    instances = instances_of(detections, kept.astype(np.uint16), params.groups)
    distinct = _distinct(instances, params.group_iou)
    if params.ignore is not None:
        geometry = detections.geometry
        share = ignored_share(params.ignore, instances.boxes_camera, geometry.camera_width, geometry.camera_height)
        distinct &= share <= IGNORED_SHARE
    kept[instances.rows] = distinct
    return renumbered(kept)


def renumbered(kept: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Return the ids 1..N for the rows that are kept, 0 for the others: uint16 `[K]`."""
    return np.cumsum(kept, dtype=np.uint16) * kept


def instances_of(detections: Detections, ids: NDArray[np.uint16], class_groups: NDArray[np.int32]) -> Instances:
    """Return the rows that have an id.

    Args:
        detections: of one frame.
        ids: uint16 `[K]`, of each row; 0 for those left out.
        class_groups: int32 `[C]`, road group of each class.
    """
    rows = np.flatnonzero(ids).astype(np.int32)
    labels = detections.labels[rows]
    boxes = detections.geometry.boxes_to_camera(detections.boxes_network[rows])
    return Instances(rows, ids[rows], boxes, detections.scores[rows], labels, class_groups[labels])


def _distinct(instances: Instances, limit: float) -> NDArray[np.bool_]:
    """Greedy suppression across the classes of a road group: bool `[N]`, true for those that stay."""
    iou = box_iou(instances.boxes_camera, instances.boxes_camera)
    rival = (
        (iou > limit)
        & (instances.groups[:, None] == instances.groups)
        & (instances.groups != NO_GROUP)
        & (instances.labels[:, None] != instances.labels)
    )
    keep = np.ones(len(instances), bool)
    for row in np.flatnonzero(rival.any(axis=1)):
        if keep[row]:
            keep[row + 1 :] &= ~rival[row, row + 1 :]
    return keep
