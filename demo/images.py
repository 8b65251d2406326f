"""Images for the camera, spread evenly over sources of any length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import SourceError
from seg_perception.offboard.data.images import open_source

# Of a video that does not say how long it is, so many frames from the beginning are looked at.
_UNKNOWN_LENGTH = 300


def spread(path: Path, most: int, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Up to `most` images of a source, evenly spread, each filling `size`; only these are kept in memory.

    Args:
        path: image, folder or video.
        most: at least 1.
        size: width and height.

    Returns:
        bgr8 images `[height, width, 3]`, at least one.

    Raises:
        SourceError: the source cannot be opened, or nothing in it can be read.
    """
    source = open_source(path)
    try:
        length = len(source)
    except TypeError:
        length = _UNKNOWN_LENGTH
    wanted = set(np.linspace(0, length - 1, min(most, length), dtype=int).tolist())
    chosen = []
    for index, (_, frame) in enumerate(source):
        if index in wanted:
            chosen.append(_fill(to_bgr(frame), *size))
        if index >= max(wanted):
            break
    if not chosen:
        reasons = "; ".join(map(str, source.failures)) or "it is empty"
        raise SourceError(f"{path}: expected at least one image that can be read, got none: {reasons}")
    return chosen


def schedule(
    paths: Sequence[Path], frames: int, size: tuple[int, int], most: int = 60
) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Images of one size, and the order in which to send them.

    Each source gets an equal share of the frames; its images, at most `most`, are held for several frames if there
    are fewer of them.

    Returns:
        Images, bgr8 `[height, width, 3]`, and for each of the `frames` frames the index of its image.
    """
    images: list[NDArray[np.uint8]] = []
    order: list[int] = []
    for source, path in enumerate(paths):
        share = frames * (source + 1) // len(paths) - len(order)
        if share:
            kept = spread(path, min(share, most), size)
            order += [len(images) + index * len(kept) // share for index in range(share)]
            images += kept
    return images, order


def _fill(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale an image until it fills width x height and cut off the rest, equally on both sides."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
