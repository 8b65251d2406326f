"""Panoptic quality: how well an image is divided into segments.

Kirillov, He, Girshick, Rother, Dollar: "Panoptic Segmentation", CVPR 2019. Every pixel belongs to one segment at most;
a true and a reported segment of one class match if their IoU is above one half, which only one pair can reach. SQ is
the mean IoU of matched segments, RQ their F1, PQ the product.

Pixels of the truth may be void: of no known class. They count neither for nor against anybody, and a reported segment
that matches nothing and lies mostly on void pixels or on a crowd of its class is no mistake.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MATCH = 0.5


@dataclass(frozen=True, slots=True)
class SegmentOverlaps:
    """Pixels that true and reported segments of one frame share.

    Attributes:
        shared: int64 `[T, R]`.
        true_areas: int64 `[T]`.
        reported_areas: int64 `[R]`.
        void_areas: int64 `[R]`, pixels of reported segments that are void in the truth.
    """

    shared: NDArray[np.int64]
    true_areas: NDArray[np.int64]
    reported_areas: NDArray[np.int64]
    void_areas: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        true: NDArray[np.integer],
        reported: NDArray[np.integer],
        counts: tuple[int, int],
        void: NDArray[np.bool_] | None = None,
    ) -> SegmentOverlaps:
        """Count pixels.

        Args:
            true: `[H, W]`, segment + 1 of each pixel, 0 for none.
            reported: `[H, W]`, the same.
            counts: T and R, how many segments there are.
            void: bool `[H, W]`, pixels of the truth that are unknown; their values in `true` are not looked at.

        Raises:
            ValueError: the maps are not of one size.
        """
        if true.shape != reported.shape:
            raise ValueError(f"segments: expected maps of one size, got {true.shape} and {reported.shape}")
        rows, columns = counts[0] + 2, counts[1] + 1
        place = true.astype(np.int64)
        if void is not None:
            place[void] = rows - 1
        table = np.bincount((place * columns + reported).ravel(), minlength=rows * columns).reshape(rows, columns)
        return cls(table[1:-1, 1:], table[1:-1].sum(axis=1), table[:, 1:].sum(axis=0), table[-1, 1:])

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union, float64 `[T, R]`; void pixels belong to no union."""
        either = self.true_areas[:, None] + (self.reported_areas - self.void_areas) - self.shared
        return np.divide(self.shared, either, out=np.zeros(self.shared.shape), where=either > 0)


@dataclass(frozen=True, slots=True)
class PanopticCounts:
    """Segments by class, over one frame or many.

    Attributes:
        iou: float64 `[C]`, sum over matched segments.
        matched, extra, missed: int64 `[C]`.
    """

    iou: NDArray[np.float64]
    matched: NDArray[np.int64]
    extra: NDArray[np.int64]
    missed: NDArray[np.int64]

    @classmethod
    def none(cls, classes: int) -> PanopticCounts:
        """Of no frame."""
        return cls(np.zeros(classes), *(np.zeros(classes, np.int64) for _ in range(3)))

    @classmethod
    def of(
        cls,
        overlaps: SegmentOverlaps,
        true_classes: NDArray[np.integer],
        reported_classes: NDArray[np.integer],
        crowd: NDArray[np.bool_],
        classes: int,
    ) -> PanopticCounts:
        """Count the segments of one frame.

        Args:
            overlaps: of the segments.
            true_classes: `[T]`, 0 to C - 1, or negative for segments that are not judged.
            reported_classes: `[R]`, the same.
            crowd: bool `[T]`, segments that stand for several objects: not to be found.
            classes: C.
        """
        same = (true_classes[:, None] == reported_classes) & (reported_classes >= 0)
        iou = overlaps.iou()
        rows, columns = np.nonzero((iou > _MATCH) & same & ~crowd[:, None])
        covered = overlaps.void_areas + (overlaps.shared * (same & crowd[:, None])).sum(axis=0)
        extra = (reported_classes >= 0) & (overlaps.reported_areas > 0)
        extra &= covered <= _MATCH * overlaps.reported_areas
        extra[columns] = False
        # What lies under others altogether has no segment in the image.
        missed = (true_classes >= 0) & ~crowd & (overlaps.true_areas > 0)
        missed[rows] = False
        found = true_classes[rows]
        return cls(
            np.bincount(found, iou[rows, columns], classes).astype(np.float64),
            np.bincount(found, minlength=classes),
            np.bincount(reported_classes[extra], minlength=classes),
            np.bincount(true_classes[missed], minlength=classes),
        )

    @classmethod
    def sum(cls, frames: Iterable[PanopticCounts], classes: int) -> PanopticCounts:
        """All frames together."""
        total = cls.none(classes)
        for each in frames:
            total = cls(
                total.iou + each.iou,
                total.matched + each.matched,
                total.extra + each.extra,
                total.missed + each.missed,
            )
        return total

    def qualities(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """PQ, SQ and RQ by class, float64 `[C]` each; NaN for classes without any segment, SQ also without a match."""
        with np.errstate(invalid="ignore", divide="ignore"):
            segmentation = self.iou / self.matched
            recognition = self.matched / (self.matched + (self.extra + self.missed) / 2)
        return np.where(self.matched > 0, segmentation * recognition, recognition), segmentation, recognition
