"""How well outlines agree: boundary IoU.

Cheng, Girshick, Dollar, Berg, Kirillov: "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR
2021. Only the pixels of a mask that lie near its outline count, so that the inside of a large object does not hide how
badly its outline is drawn.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from .compact import CompactMask, compact_iou

# How far inside the outline, as a share of the image's diagonal; as in the paper.
BOUNDARY_SHARE = 0.02


def boundary_width(height: int, width: int) -> int:
    """Return how many pixels inside its outline belong to a mask's boundary, in an image of this size."""
    return max(1, round(BOUNDARY_SHARE * math.hypot(height, width)))


def boundary(mask: CompactMask, pixels: int) -> CompactMask:
    """The pixels of a mask that are no further from what is outside it than `pixels`; the image's edge is outside.

    Distances are those of a king on a chessboard, as the paper's erosion by squares has it.
    """
    if not mask.area:
        return mask
    # Around its rectangle a mask has no pixel, so that what is eroded there is what would be in the whole image.
    region = np.pad(mask.region().astype(np.uint8), 1)
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    inner = cv2.erode(region, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)[1:-1, 1:-1]
    kept = mask.region() & (inner == 0)
    return CompactMask(
        mask.size, mask.top, mask.left, mask.bottom, mask.right, int(np.count_nonzero(kept)), np.packbits(kept)
    )


def boundary_iou(first: CompactMask, second: CompactMask) -> float:
    """Boundary IoU of two masks of one image, 0-1; 0 where both are empty.

    Raises:
        ValueError: the masks are not of one image size.
    """
    pixels = boundary_width(*first.size)
    return float(compact_iou([boundary(first, pixels)], [boundary(second, pixels)])[0, 0])
