"""Masks between COCO's forms (polygons, run lengths) and `CompactMask`.

Annotations come from strangers. pycocotools is a C library that trusts its input: coordinates that are not finite or
very large end the process, and run lengths that are too short leave memory as it happened to be. So everything is
checked here before pycocotools sees it, and run lengths are not given to it at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import BackendUnavailable
from seg_perception.core.frame import MAX_SIDE

from .compact import CompactMask
from .masks import counts_text

# Most pixels of an image whose masks are decoded: a mask needs a byte of memory for each of them.
MOST_PIXELS = 1 << 27
# Two numbers for each corner, and three corners.
_FEWEST_COORDINATES = 6
# pycocotools walks along each edge in steps of a fifth of a pixel. How far outside of the image an edge may begin, in
# image sides, so that the way is bounded.
_MARGIN = 4
# Longest way around all polygons of an object in pixels; pycocotools takes 40 bytes for each.
_LONGEST_OUTLINE = 1 << 20
# Rows that edges of a polygon cross, taken at once.
_CROSSINGS_AT_ONCE = 1 << 18
# In all; a polygon that has more was made to take time.
_MOST_CROSSINGS = 1 << 24
# Coordinates whose product with another one is a finite float.
_EXACT = 1e150
# Characters of one run length: five bits each, for less than 2^34 pixels.
_MOST_CHARACTERS = 7
_FIRST_CHARACTER, _LAST_CHARACTER = 48, 48 + 63


def require_pycocotools() -> None:
    """See that average precision can be had; for those who compute long before they ask for it.

    Raises:
        BackendUnavailable: pycocotools is not installed.
    """
    try:
        import_module("pycocotools.cocoeval")
    except ImportError as error:
        raise BackendUnavailable(
            f"average precision needs the Python package pycocotools ({error}): pip install pycocotools"
        ) from error


def encode_compact(mask: CompactMask) -> dict[str, Any]:
    """Return what `encode_rle` makes of the same mask, at a cost that follows its rectangle and not the image."""
    height, width = mask.size
    region = np.zeros((mask.right - mask.left, mask.bottom - mask.top + 2), np.int8)
    region[:, 1:-1] = mask.region().T
    # Where runs begin (1) and end (-1), column by column.
    change = np.diff(region, axis=1)
    columns, rows = np.nonzero(change)
    places = (columns + mask.left).astype(np.int64) * height + rows + mask.top
    if mask.top == 0 and mask.bottom == height:
        # A run that ends with its column goes on where the next column begins.
        values, counts = np.unique(places, return_counts=True)
        places = values[counts == 1]
    lengths = np.diff(np.concatenate([[0], places, [height * width]]).astype(np.int64))
    # A mask that ends with the image has no run of pixels outside after it.
    if len(lengths) > 1 and lengths[-1] == 0:
        lengths = lengths[:-1]
    return {"size": [height, width], "counts": counts_text(lengths)}


def has_mask(annotation: Mapping[str, Any]) -> bool:
    """Return whether a COCO annotation, as `checked_segmentation` left it, has a mask; else only its box is known."""
    return bool(annotation["segmentation"])


def mask_of_box(sides: Sequence[float], size: tuple[int, int]) -> CompactMask:
    """Return the mask that fills a box.

    Args:
        sides: x1 y1 x2 y2 in pixels; what lies outside of the image is cut off.
        size: height and width of the image.

    Raises:
        ValueError: these are not four numbers.
    """
    x1, y1, x2, y2 = (float(side) for side in sides)
    if not np.isfinite([x1, y1, x2, y2]).all():
        raise ValueError(f"box: expected four numbers, got {list(sides)}")
    left, right = (min(max(0, round(side)), size[1]) for side in (x1, x2))
    top, bottom = (min(max(0, round(side)), size[0]) for side in (y1, y2))
    if right <= left or bottom <= top:
        return CompactMask(size, 0, 0, 0, 0, 0, np.zeros(0, np.uint8))
    area = (right - left) * (bottom - top)
    return CompactMask(size, top, left, bottom, right, area, np.packbits(np.ones(area, bool)))


def filled_box(annotation: Mapping[str, Any], size: tuple[int, int]) -> CompactMask:
    """Return the mask that fills the `bbox` of a COCO annotation; see `mask_of_box`."""
    x, y, width, height = annotation["bbox"]
    return mask_of_box((x, y, x + width, y + height), size)


def check_image_size(height: int, width: int) -> None:
    """Check the size that a label file states for an image, before memory is taken for masks of it.

    Raises:
        ValueError: a side is no whole number, is below 1 or above `MAX_SIDE`, or the image has too many pixels.
    """
    for side in (height, width):
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            raise ValueError(f"expected an image of 1 to {MAX_SIDE} pixels a side, got {width!r:.40} x {height!r:.40}")
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"images of more than {MOST_PIXELS} pixels are not supported here, this one has {width} x {height}; "
            "cut it into tiles"
        )


def checked_segmentation(segmentation: object, height: int, width: int) -> Any:
    """Return the `segmentation` of a COCO annotation in a form that is safe for pycocotools.

    Args:
        segmentation: polygons, or run lengths as numbers or as text; as it stands in the file.
        height, width: of the image in pixels.

    Returns:
        The same mask as polygons of three corners or more, or as run lengths; an empty list where it has no pixel.

    Raises:
        ValueError: it is none of these, has coordinates that are not finite, or is of another size.
        BackendUnavailable: pycocotools is not installed.
    """
    check_image_size(height, width)
    if isinstance(segmentation, Mapping):
        counts = check_counts(segmentation, height, width)
        return dict(segmentation) if counts[1::2].any() else []
    polygons = _polygons(segmentation)
    if not polygons:
        return []
    if not _is_near(polygons, height, width):
        mask = _drawn(polygons, height, width)
        return encode_compact(mask) if mask.area else []
    return [polygon.tolist() for polygon in polygons] if _runs(polygons, height, width)[1::2].any() else []


def decode_segmentation(segmentation: object, height: int, width: int) -> CompactMask:
    """Return the mask that the `segmentation` of a COCO annotation stands for; arguments as `checked_segmentation`.

    Raises:
        ValueError: it is none of these, has coordinates that are not finite, or is of another size.
        BackendUnavailable: pycocotools is not installed.
    """
    check_image_size(height, width)
    if isinstance(segmentation, Mapping):
        return _mask(check_counts(segmentation, height, width), height, width)
    polygons = _polygons(segmentation)
    if polygons and not _is_near(polygons, height, width):
        return _drawn(polygons, height, width)
    return _mask(_runs(polygons, height, width), height, width)


def check_counts(runs: Mapping[str, Any], height: int, width: int) -> NDArray[np.int64]:
    """Return the run lengths of a mask, int64 `[R]`, outside first.

    Raises:
        ValueError: they are none, or do not add up to the image.
    """
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f"expected run lengths of {[height, width]}, got {size!r:.60}")
    if isinstance(counts, str):
        try:
            lengths = _of_text(counts.encode("ascii"))
        except UnicodeEncodeError as error:
            raise ValueError("run lengths as text: expected COCO's characters, got others") from error
    elif isinstance(counts, bytes):
        lengths = _of_text(counts)
    else:
        lengths = _of_numbers(counts)
    total = int(lengths.sum())
    if total != height * width or (lengths < 0).any():
        raise ValueError(f"expected run lengths of {height * width} pixels in all, got {total}")
    return lengths


def mask_of_polygons(polygons: Sequence[NDArray[np.floating]], size: tuple[int, int]) -> CompactMask:
    """Return the pixels whose centres lie in any of some polygons.

    Args:
        polygons: float `[P, 2]` each, x and y in pixels; a polygon that crosses itself is filled by the even-odd rule.
        size: height and width of the image; what lies outside it is cut off.

    Raises:
        ValueError: a coordinate is not finite.
    """
    chosen = [np.asarray(polygon, np.float64) for polygon in polygons if len(polygon) * 2 >= _FEWEST_COORDINATES]
    if not all(np.isfinite(polygon).all() for polygon in chosen):
        raise ValueError("polygon: expected numbers as coordinates, got NaN or infinity")
    if not chosen:
        return CompactMask.of(np.zeros((0, 0), bool)).placed(0, 0, size)
    # Drawn in the rectangle around them, because an image may be a thousand times larger.
    corners = np.concatenate(chosen)
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, (size[1], size[0])).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), (left, top), (size[1], size[0])).astype(int).tolist()
    region = np.zeros((bottom - top, right - left), bool)
    for polygon in chosen:
        fill_polygon(region, polygon - np.array([left, top], np.float64))
    return CompactMask.of(region).placed(left, top, size)


def fill_polygon(mask: NDArray[np.bool_], polygon: NDArray[np.float64]) -> None:
    """Add the pixels whose centres lie in a polygon, float64 `[P, 2]`, to a mask, bool `[H, W]`, by the even-odd rule.

    Along each row the edges that cross its middle take turns at beginning and ending the inside.
    """
    height, width = mask.shape
    # Rows outside of the image are cut off while they are floats, which hold any size.
    top, bottom = (int(np.clip(np.ceil(side - 0.5), 0, height)) for side in (polygon[:, 1].min(), polygon[:, 1].max()))
    if bottom <= top:
        return
    turns = np.zeros((bottom - top, width + 1), np.uint8)
    ends = np.roll(polygon, -1, axis=0)
    low, high = np.minimum(polygon[:, 1], ends[:, 1]), np.maximum(polygon[:, 1], ends[:, 1])
    first, last = (np.clip(np.ceil(side - 0.5), top, bottom).astype(np.int64) for side in (low, high))
    crossings = np.cumsum(last - first)
    if len(crossings) and crossings[-1] > _MOST_CROSSINGS:
        raise ValueError(f"a polygon of {len(polygon)} corners that cross the image again and again is not supported")
    # A product of whole coordinates is exact; that of very large ones would overflow.
    exact = float(np.abs(polygon).max()) < _EXACT
    begin = 0
    while begin < len(polygon):
        # So many edges that the rows they cross take little memory; one at least.
        done = crossings[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(crossings, done + _CROSSINGS_AT_ONCE, side="right")))
        part = slice(begin, end)
        counts = last[part] - first[part]
        edge = np.repeat(np.arange(begin, end), counts)
        rows = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        (x1, y1), (x2, y2) = polygon[edge].T, ends[edge].T
        down = rows + 0.5 - y1
        x = x1 + (down * (x2 - x1) / (y2 - y1) if exact else down / (y2 - y1) * (x2 - x1))
        columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        np.bitwise_xor.at(turns.reshape(-1), (rows - top) * (width + 1) + columns, 1)
        begin = end
    mask[top:bottom] |= np.bitwise_xor.accumulate(turns[:, :width], axis=1).view(np.bool_)


def _polygons(segmentation: object) -> list[NDArray[np.float64]]:
    """The polygons that have three corners, float64 `[2 P]` each: x y x y ..."""
    if not isinstance(segmentation, list):
        raise ValueError(f"expected polygons or run lengths, got {segmentation!r:.80}")
    if segmentation and all(type(side) in (int, float) for side in segmentation):
        segmentation = [segmentation]  # one polygon without the list around it, as some tools write
    found = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or not all(type(side) in (int, float) for side in polygon):
            raise ValueError(f"expected a polygon as a list of numbers, got {polygon!r:.80}")
        if len(polygon) % 2:
            raise ValueError(f"expected a polygon as pairs of x and y, got {len(polygon)} numbers")
        try:
            corners = np.array(polygon, np.float64)
        except OverflowError as error:  # a whole number beyond the range of a float
            raise ValueError(f"expected finite coordinates of a polygon, got a number of {error}") from error
        if not np.isfinite(corners).all():
            raise ValueError("expected finite coordinates of a polygon, got NaN or infinity")
        if len(corners) >= _FEWEST_COORDINATES:
            found.append(corners)
    return found


def _is_near(polygons: Sequence[NDArray[np.float64]], height: int, width: int) -> bool:
    """Return whether the way along all edges is short enough for pycocotools."""
    if max(float(np.abs(polygon).max()) for polygon in polygons) > _MARGIN * max(height, width):
        return False
    edges = (np.abs(np.diff(polygon.reshape(-1, 2), axis=0)).max(axis=1).sum() for polygon in polygons)
    return float(sum(edges)) <= _LONGEST_OUTLINE


def _drawn(polygons: Sequence[NDArray[np.float64]], height: int, width: int) -> CompactMask:
    return mask_of_polygons([polygon.reshape(-1, 2) for polygon in polygons], (height, width))


def _runs(polygons: Sequence[NDArray[np.float64]], height: int, width: int) -> NDArray[np.int64]:
    """The run lengths of polygons as pycocotools draws them, int64 `[R]`."""
    require_pycocotools()
    from pycocotools import mask as coco_mask

    if not polygons:
        return np.array([height * width], np.int64)
    runs = coco_mask.merge(coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width))
    return _of_text(runs["counts"])


def _of_numbers(counts: object) -> NDArray[np.int64]:
    """The run lengths that a file lists as numbers."""
    if not isinstance(counts, list) or not all(type(count) in (int, float) for count in counts):
        raise ValueError(f"run lengths: expected a list of numbers or text, got {counts!r:.60}")
    if not all(0 <= count <= MOST_PIXELS and count == int(count) for count in counts):
        raise ValueError(f"run lengths: expected whole numbers of pixels from 0, got {counts!r:.60}")
    return np.array(counts, np.int64)


def _of_text(text: bytes) -> NDArray[np.int64]:
    """The run lengths in COCO's text form; the inverse of `counts_text`."""
    characters = np.frombuffer(text, np.uint8).astype(np.int64)
    if not len(characters):
        raise ValueError("run lengths as text: expected some, got none")
    if characters.min() < _FIRST_CHARACTER or characters.max() > _LAST_CHARACTER:
        raise ValueError("run lengths as text: expected COCO's characters, got others")
    bits = characters - _FIRST_CHARACTER
    ends = np.flatnonzero(bits & 0x20 == 0)
    if not len(ends) or ends[-1] != len(bits) - 1:
        raise ValueError("run lengths as text: expected whole numbers, the last one is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MOST_CHARACTERS:
        raise ValueError("run lengths as text: expected lengths of an image, got a number that is far too large")
    shift = 5 * (np.arange(len(bits)) - np.repeat(starts, sizes))
    lengths = np.add.reduceat((bits & 0x1F) << shift, starts)
    lengths -= np.where(bits[ends] & 0x10, np.int64(1) << (5 * sizes), 0)
    # From the fourth on each is stored as its difference from the run before the previous one.
    lengths[1::2], lengths[2::2] = np.cumsum(lengths[1::2]), np.cumsum(lengths[2::2])
    return lengths


def _mask(lengths: NDArray[np.int64], height: int, width: int) -> CompactMask:
    """The mask of run lengths, in memory that follows the columns it lies in."""
    ends = np.cumsum(lengths)
    inside = np.flatnonzero(lengths[1::2]) * 2 + 1
    if not len(inside):
        return CompactMask((height, width), 0, 0, 0, 0, 0, np.zeros(0, np.uint8))
    begin, end = int(ends[inside[0]] - lengths[inside[0]]), int(ends[inside[-1]])
    left, right = begin // height, (end - 1) // height + 1
    changes = np.zeros((right - left) * height + 1, np.int8)
    np.add.at(changes, ends[inside] - lengths[inside] - left * height, 1)
    np.add.at(changes, ends[inside] - left * height, -1)
    columns = np.cumsum(changes[:-1], dtype=np.int8).view(np.bool_).reshape(right - left, height)
    return CompactMask.of(columns.T).placed(left, 0, (height, width))
