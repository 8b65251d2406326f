"""Overlap of masks, and masks as run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Pixels multiplied at once: bounds the memory of the float copies, and every sum below 2^24 is exact in float32.
_PIXELS_AT_ONCE = 1 << 16


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as the compressed run lengths of the COCO results format (https://cocodataset.org/#format-results).

    The runs go down the columns, alternate between outside and inside and begin with outside, a run of no pixels if
    need be. From the fourth on each is stored as its difference from the run before the previous one. A number is
    written in two's complement, five bits a character, lowest first; bit 5 says that more follow, and 48 makes it text.

    Args:
        mask: bool `[H, W]`.

    Returns:
        `size`, the list `[H, W]`, and `counts`, the text.

    Raises:
        ValueError: the mask is not two-dimensional.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask: expected shape (H, W), got {mask.shape}")
    height, width = mask.shape
    return {"size": [height, width], "counts": counts_text(_run_lengths(mask))}


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union of every mask of one list with every mask of another.

    Args:
        first: bool `[N, H, W]`.
        second: bool `[M, H, W]`, of the same image.

    Returns:
        float64 `[N, M]`, 0-1; 0 where both masks are empty.

    Raises:
        ValueError: the masks are not of one size.
    """
    if first.ndim != 3 or second.ndim != 3 or first.shape[1:] != second.shape[1:]:
        raise ValueError(f"masks: expected shapes (N, H, W) and (M, H, W), got {first.shape} and {second.shape}")
    pixels = first.shape[1] * first.shape[2]
    a, b = first.reshape(len(first), pixels), second.reshape(len(second), pixels)
    shared = np.zeros((len(a), len(b)))
    for start in range(0, pixels, _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        shared += a[:, part].astype(np.float32) @ b[:, part].astype(np.float32).T
    union = np.count_nonzero(a, axis=1)[:, None] + np.count_nonzero(b, axis=1) - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def map_iou(pixels: NDArray[np.uint16], numbers: NDArray[np.uint16], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how well an instance map shows instances: IoU of each one's region in the map with its own full mask.

    Args:
        pixels: uint16 `[H, W]`, an instance map.
        numbers: uint16 `[N]`, the instances' numbers in it.
        masks: bool `[N, H, W]`, the instances' masks, also where others lie in front.

    Returns:
        float64 `[N]`, 0-1; 0 where both the region and the mask are empty.

    Raises:
        ValueError: the shapes do not fit.
    """
    if masks.shape != (len(numbers), *pixels.shape):
        raise ValueError(f"masks: expected shape {(len(numbers), *pixels.shape)}, got {masks.shape}")
    iou = np.zeros(len(numbers))
    for index, (number, mask) in enumerate(zip(numbers, masks, strict=True)):
        region = pixels == number
        union = np.count_nonzero(region | mask)
        if union:
            iou[index] = np.count_nonzero(region & mask) / union
    return iou


def _run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs down the columns, outside first: int64 `[runs]`."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    outside = [0] if flat[:1].any() else []
    lengths: NDArray[np.int64] = np.diff(np.concatenate([[0], outside, changes, [flat.size]]).astype(np.int64))
    return lengths


def counts_text(lengths: NDArray[np.int64]) -> str:
    """Run lengths, int64 `[runs]`, outside first, in COCO's text form."""
    rest = lengths.copy()
    rest[3:] -= lengths[1:-2]
    columns = []
    pending = np.ones(len(rest), bool)
    while pending.any():
        digit = rest & 0x1F
        rest = rest >> 5
        # The sign is read off the last character's highest bit, so the rest may go once it only repeats that bit.
        more = rest != np.where(digit & 0x10, -1, 0)
        columns.append(np.where(pending, digit + (more << 5) + 48, 0))
        pending = pending & more
    # Row by row: the characters of one number after those of the one before; 0 stands where a number has ended.
    characters = np.stack(columns, axis=1).astype(np.uint8).ravel()
    return characters[characters > 0].tobytes().decode("ascii")
