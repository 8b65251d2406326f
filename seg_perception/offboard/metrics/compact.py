"""Instances of one frame in a form small enough to keep those of many frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class CompactMask:
    """A mask, kept as the bits of the smallest rectangle around it.

    Attributes:
        size: height and width of the image.
        top, left, bottom, right: the rectangle, in pixels; `bottom` and `right` are outside it.
        area: pixels of the mask.
        bits: uint8 `[ceil(rectangle / 8)]`, the rectangle row by row.
    """

    size: tuple[int, int]
    top: int
    left: int
    bottom: int
    right: int
    area: int
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> CompactMask:
        """Take a mask, bool `[H, W]`."""
        if mask.ndim != 2:
            raise ValueError(f"mask: expected shape (H, W), got {mask.shape}")
        height, width = mask.shape
        top, bottom = _extent(mask, axis=1)
        left, right = _extent(mask[top:bottom], axis=0)
        region = mask[top:bottom, left:right]
        return cls(
            (height, width), top, left, bottom, right, int(np.count_nonzero(region)), np.packbits(region, axis=None)
        )

    def placed(self, left: int, top: int, size: tuple[int, int]) -> CompactMask:
        """The same pixels in a larger image of which this one is the part at `left` and `top`."""
        if not self.area:
            return CompactMask(size, 0, 0, 0, 0, 0, self.bits)
        return CompactMask(
            size, self.top + top, self.left + left, self.bottom + top, self.right + left, self.area, self.bits
        )

    def region(self) -> NDArray[np.bool_]:
        """The mask within its rectangle, bool `[bottom - top, right - left]`."""
        shape = (self.bottom - self.top, self.right - self.left)
        return np.unpackbits(self.bits, count=shape[0] * shape[1]).reshape(shape).view(np.bool_)

    def full(self) -> NDArray[np.bool_]:
        """The mask over the whole image, bool `[H, W]`."""
        mask = np.zeros(self.size, bool)
        mask[self.top : self.bottom, self.left : self.right] = self.region()
        return mask


@dataclass(frozen=True, slots=True)
class FrameInstances:
    """What a model found in one frame, each instance with its whole mask, also where others lie in front.

    Attributes:
        boxes_camera: float32 `[N, 4]`, x1 y1 x2 y2 in camera pixels.
        scores: float32 `[N]`.
        labels: int32 `[N]`, index into the model's class names.
        masks: N masks of the size of the camera image.

    Raises:
        ValueError: the attributes are not of one length.
    """

    boxes_camera: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    masks: tuple[CompactMask, ...]

    def __post_init__(self) -> None:
        count = len(self.masks)
        shapes = (self.boxes_camera.shape, self.scores.shape, self.labels.shape)
        if shapes != ((count, 4), (count,), (count,)):
            raise ValueError(f"boxes, scores, labels: expected shapes for {count} masks, got {shapes}")

    @classmethod
    def of(
        cls,
        boxes_camera: NDArray[np.floating],
        scores: NDArray[np.floating],
        labels: NDArray[np.integer],
        masks: Iterable[NDArray[np.bool_]],
    ) -> FrameInstances:
        """Take instances whose masks are bool `[H, W]` each, or one bool `[N, H, W]`."""
        return cls(
            np.asarray(boxes_camera, np.float32).reshape(-1, 4),
            np.asarray(scores, np.float32),
            np.asarray(labels, np.int32),
            tuple(CompactMask.of(mask) for mask in masks),
        )

    def __len__(self) -> int:
        return len(self.masks)

    def areas(self) -> NDArray[np.int64]:
        """Pixels of each mask, int64 `[N]`."""
        return np.array([mask.area for mask in self.masks], np.int64)


def compact_iou(first: Iterable[CompactMask], second: Iterable[CompactMask]) -> NDArray[np.float64]:
    """Intersection over union of every mask of one list with every mask of another, float64 `[N, M]`.

    Raises:
        ValueError: the masks are not of one image size.
    """
    a, b = list(first), list(second)
    if len({mask.size for mask in (*a, *b)}) > 1:
        raise ValueError(f"masks: expected one image size, got {sorted({mask.size for mask in (*a, *b)})}")
    regions = [mask.region() for mask in b]
    iou = np.zeros((len(a), len(b)))
    for row, one in enumerate(a):
        region = one.region()
        for column, other in enumerate(b):
            top, bottom = max(one.top, other.top), min(one.bottom, other.bottom)
            left, right = max(one.left, other.left), min(one.right, other.right)
            if top >= bottom or left >= right:
                continue
            mine = region[top - one.top : bottom - one.top, left - one.left : right - one.left]
            its = regions[column][top - other.top : bottom - other.top, left - other.left : right - other.left]
            shared = np.count_nonzero(mine & its)
            iou[row, column] = shared / (one.area + other.area - shared)
    return iou


def _extent(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First index with a pixel once `axis` is summed over, and one beyond the last; (0, 0) where there is none."""
    found = np.flatnonzero(np.any(mask, axis=axis))
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, 0)
