"""Masks as polygons and run lengths, and back.

Polygons are in pixels whose corners have whole coordinates: pixel (u, v) is the square from (u, v) to (u + 1, v + 1).
Before it is simplified, the outline of a mask runs along the edges of its pixels, so drawing it gives the mask again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.offboard.metrics.compact import CompactMask
from seg_perception.offboard.metrics.segmentations import check_image_size, fill_polygon

# A hole that is no thicker than this in pixels may be filled: no pixel of it is further than one from the object.
_THIN = 2
_FEWEST_POINTS = 3


def polygons_of(mask: CompactMask, simplify: float) -> list[NDArray[np.float64]] | None:
    """The outlines of a mask, the largest part first.

    Args:
        mask: holes that are at most two pixels thick are filled.
        simplify: how far in pixels an outline may leave the mask's own, so that it needs fewer points. No pixel that
            is further from the mask's border, rounded up, changes sides.

    Returns:
        One float64 `[P, 2]` for each part, x and y in pixels of the image; None for a mask that polygons cannot hold
        because of its holes.
    """
    if not mask.area:
        return []
    region = mask.region().astype(np.uint8)
    outlines = _outlines(region)
    filled = _drawn(outlines, region.shape)
    thick = cv2.erode(filled - region, np.ones((_THIN + 1, _THIN + 1), np.uint8), borderValue=0)
    if thick.any():
        return None
    chosen = [_simplified(outline, 0.0) for outline in outlines]
    for tolerance in (simplify, simplify / 2, simplify / 4) if simplify > 0 else ():
        simple = [_simplified(outline, tolerance) for outline in outlines]
        # Outlines of thin parts may come to cross one another.
        if _is_near(_drawn(simple, region.shape), filled, int(np.ceil(simplify))):
            chosen = simple
            break
    chosen.sort(key=lambda outline: -cv2.contourArea(outline.astype(np.float32)))
    corner = np.array([mask.left, mask.top], np.float64)
    return [outline + corner for outline in chosen]


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> NDArray[np.float64]:
    """Return the corners of a polygon that is an ellipse to a hundredth of its size, float64 `[P, 2]`.

    Args:
        centre: x and y in pixels.
        radii: along x and y before it is turned.
        degrees: by which it is turned clockwise around its centre.
    """
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    corners = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    placed: NDArray[np.float64] = turned(corners, degrees) + np.array(centre, np.float64)
    return placed


def turned(points: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Return points, float64 `[P, 2]`, turned clockwise around the origin in an image, whose y points down."""
    # Whole quarters must give whole pixels, which a cosine of 6e-17 would not.
    cosine, sine = (round(float(part), 12) for part in (np.cos(np.radians(degrees)), np.sin(np.radians(degrees))))
    rotated: NDArray[np.float64] = points @ np.array([[cosine, sine], [-sine, cosine]])
    return rotated


def crop_runs(mask: CompactMask) -> list[int]:
    """The runs along the rows of a mask's own rectangle, outside first."""
    flat = mask.region().reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = [0, *([0] if flat[:1].any() else []), *changes.tolist(), flat.size]
    return [end - begin for begin, end in pairwise(bounds)]


def mask_of_crop_runs(runs: Sequence[int], box: tuple[int, int, int, int], size: tuple[int, int]) -> CompactMask:
    """The inverse of `crop_runs`.

    Args:
        runs: along the rows of a rectangle, outside first.
        box: its left, top, width and height in pixels.
        size: height and width of the image.

    Raises:
        ValueError: the runs do not add up to the rectangle, or it has a size that no image has.
    """
    left, top, width, height = box
    if (width, height) == (0, 0):
        return CompactMask.of(np.zeros(size, bool))
    # Before memory is taken for it.
    check_image_size(height, width)
    return mask_of_crop(_mask_of_runs(runs, (height, width)), left, top, size)


def mask_of_crop(region: NDArray[np.bool_], left: int, top: int, size: tuple[int, int]) -> CompactMask:
    """A mask of which a rectangle, bool `[h, w]`, is given; what lies outside the image is cut off."""
    y, x = max(0, -top), max(0, -left)
    bottom, right = max(0, size[0] - top), max(0, size[1] - left)
    return CompactMask.of(region[y:bottom, x:right]).placed(left + x, top + y, size)


def union(masks: Sequence[CompactMask]) -> CompactMask:
    """The pixels of any of some masks of one image, of which there is at least one."""
    parts = [each for each in masks if each.area]
    if len(parts) < 2:
        return parts[0] if parts else masks[0]
    whole = parts[0].full()
    for each in parts[1:]:
        whole[each.top : each.bottom, each.left : each.right] |= each.region()
    return CompactMask.of(whole)


def is_near(first: CompactMask, second: CompactMask, distance: int) -> bool:
    """Return whether two masks of one image differ only within this distance of the border of the second."""
    top, left = (max(0, min(getattr(first, side), getattr(second, side)) - distance) for side in ("top", "left"))
    bottom, right = (max(getattr(first, side), getattr(second, side)) + distance for side in ("bottom", "right"))
    both = [each.full()[top:bottom, left:right].view(np.uint8) for each in (first, second)]
    return _is_near(both[0], both[1], distance)


def painted_mask(pixels: NDArray[np.uint16], number: int, box: NDArray[np.floating]) -> CompactMask:
    """The pixels of one number in an instance map; only its box is looked at, outside which nothing is painted.

    Args:
        pixels: uint16 `[H, W]`, at camera size.
        number: of the instance.
        box: float `[4]`, x1 y1 x2 y2 in pixels of the map.
    """
    height, width = pixels.shape
    x1, y1 = (max(0, int(np.floor(side)) - 1) for side in box[:2])
    x2, y2 = min(width, int(np.ceil(box[2])) + 1), min(height, int(np.ceil(box[3])) + 1)
    return CompactMask.of(pixels[y1:y2, x1:x2] == number).placed(x1, y1, (height, width))


def _outlines(region: NDArray[np.uint8]) -> list[NDArray[np.int32]]:
    """The outer border of each part, along the edges of its pixels: int32 `[P, 2]`."""
    # Of a doubled mask the outline that OpenCV draws through the centres of pixels tells the two sides of one apart.
    double = np.repeat(np.repeat(region, 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(double, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((contour[:, 0] + 1) // 2).astype(np.int32) for contour in contours]


def _simplified(outline: NDArray[np.int32], tolerance: float) -> NDArray[np.float64]:
    """The same outline with fewer points, float64 `[P, 2]`."""
    closed = cv2.approxPolyDP(outline.reshape(-1, 1, 2), tolerance, True)[:, 0]
    # A speck that is smaller than the tolerance stays as it is.
    return (closed if len(closed) >= _FEWEST_POINTS else outline).astype(np.float64)


def _drawn(outlines: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    mask = np.zeros(shape, bool)
    for outline in outlines:
        fill_polygon(mask, outline.astype(np.float64))
    return mask.view(np.uint8)


def _is_near(first: NDArray[np.uint8], second: NDArray[np.uint8], distance: int) -> bool:
    """Return whether two masks, uint8 0 or 1, differ only within this distance of the border of the second."""
    around = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    outer, inner = cv2.dilate(second, around, borderValue=0), cv2.erode(second, around, borderValue=0)
    return bool((first <= outer).all() and (inner <= first).all())


def _mask_of_runs(lengths: Sequence[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Runs along the rows of an array, outside first: bool of that shape."""
    if not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError(f"run lengths: expected whole numbers of pixels from 0, got {lengths!r:.60}")
    if sum(lengths) != shape[0] * shape[1]:
        raise ValueError(f"run lengths: expected them to add up to {shape[0]} x {shape[1]} pixels, got {sum(lengths)}")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(shape)
