"""Segmentations of strangers: every mask is the right one, or the reason is said; nothing reaches the C library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from seg_perception.offboard.metrics.average_precision import for_kind
from seg_perception.offboard.metrics.masks import counts_text, encode_rle
from seg_perception.offboard.metrics.segmentations import (
    MOST_PIXELS,
    checked_segmentation,
    decode_segmentation,
    encode_compact,
    filled_box,
)

SIZE = (40, 30)
PIXELS = SIZE[0] * SIZE[1]


def text(*lengths: int) -> str:
    return counts_text(np.array(lengths, np.int64))


def runs(counts: object, size: object = None) -> dict[str, Any]:
    return {"size": list(SIZE) if size is None else size, "counts": counts}


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_read_as_pycocotools_reads_them(seed: int):
    random = np.random.default_rng(seed)
    mask = random.random(SIZE) < random.choice([0.02, 0.5, 0.98])
    mask[:, : seed % 4] = seed % 2
    encoded = encode_rle(mask)
    assert np.array_equal(decode_segmentation(encoded, *SIZE).full(), mask)
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(decode_segmentation({**theirs, "counts": theirs["counts"].decode()}, *SIZE).full(), mask)
    flat = mask.ravel(order="F")
    bounds = np.concatenate([[0], [0] if flat[0] else [], np.flatnonzero(np.diff(flat)) + 1, [PIXELS]])
    counts = np.diff(bounds).astype(int).tolist()
    assert np.array_equal(decode_segmentation(runs(counts), *SIZE).full(), mask)
    assert np.array_equal(decode_segmentation(runs([float(each) for each in counts]), *SIZE).full(), mask)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (runs("5"), "pixels in all, got 5"),
        (runs(text(5, 5)), "pixels in all"),
        (runs(text(0, 10**6)), "pixels in all"),
        (runs(text(0, 2**31 - 1, 5, 2**31 - 1)), "pixels in all"),
        (runs(text(0, -5, PIXELS + 5)), "pixels in all"),
        (runs("o" * 100_000), "cut off"),
        (runs("o" * 100 + "0"), "far too large"),
        (runs("\x7f\x7f"), "COCO's characters"),
        (runs("\x01 "), "COCO's characters"),
        (runs("\u20ac"), "COCO's characters"),
        (runs(""), "expected some"),
        (runs(True), "list of numbers or text"),
        (runs(None), "list of numbers or text"),
        (runs([[PIXELS]]), "list of numbers or text"),
        (runs([True, PIXELS - 1]), "list of numbers or text"),
        (runs([0.5, PIXELS - 0.5]), "whole numbers"),
        (runs([float("nan"), PIXELS]), "whole numbers"),
        (runs([float("inf")]), "whole numbers"),
        (runs([10**400]), "whole numbers"),
        (runs([-5, PIXELS + 5]), "whole numbers"),
        (runs([PIXELS], [30, 40]), "expected run lengths of"),
        (runs([PIXELS], "4"), "expected run lengths of"),
        (runs([PIXELS], 7), "expected run lengths of"),
        ({"counts": [PIXELS]}, "expected run lengths of"),
        ([[float("nan")] * 6], "finite"),
        ([[0, 0, float("inf"), 0, 5, 5]], "finite"),
        ([[0, 0, 10**400, 0, 5, 5]], "finite"),
        ([[0, 0, 5, 0, 5, 5, 1]], "pairs"),
        (["abcdef"], "list of numbers"),
        ([[[0, 0], [5, 5], [9, 0]]], "list of numbers"),
        ([[True, 0, 5, 0, 5, 5]], "list of numbers"),
        ([[None] * 6], "list of numbers"),
        ("abcdef", "polygons or run lengths"),
        (7, "polygons or run lengths"),
        (None, "polygons or run lengths"),
    ],
)
def test_what_is_no_segmentation_is_refused_with_the_reason(segmentation: object, words: str):
    for function in (decode_segmentation, checked_segmentation):
        with pytest.raises(ValueError, match=words):
            function(segmentation, *SIZE)


@pytest.mark.parametrize(
    ("height", "width"), [(0, 5), (-1, -1), (2**31, 2**31), (16384, 16384), (True, 5), ("4", 5), (5, None), (5.0, 5)]
)
def test_no_memory_is_taken_for_sizes_that_no_image_has(height: int, width: int):
    with pytest.raises(ValueError, match=r"expected an image of|images of more than"):
        decode_segmentation({"size": [height, width], "counts": [0]}, height, width)
    assert MOST_PIXELS < 16384 * 16384


@pytest.mark.parametrize("far", [1e4, 1e6, 1e9, 2.0**31, 1e18, 1e300])
def test_polygons_that_reach_far_out_of_the_image_are_cut_off(far: float):
    """A half plane, a strip, and all of the image, each with corners far away."""
    right = decode_segmentation([[10, -far, far, -far, far, far, 10, far]], *SIZE).full()
    assert np.array_equal(right, np.broadcast_to(np.arange(SIZE[1]) >= 10, SIZE))
    strip = decode_segmentation([[-far, 5, far, 5, far, 8, -far, 8]], *SIZE).full()
    assert np.array_equal(strip, np.broadcast_to(((np.arange(SIZE[0]) >= 5) & (np.arange(SIZE[0]) < 8))[:, None], SIZE))
    whole = checked_segmentation([[-far, -far, far, -far, far, far, -far, far]], *SIZE)
    assert decode_segmentation(whole, *SIZE).area == PIXELS
    # What pycocotools may see afterwards is bounded.
    assert isinstance(whole, dict) or max(map(abs, whole[0])) < 1000
    assert checked_segmentation([[far, far, 2 * far, far, far, 2 * far]], *SIZE) == []


def test_a_polygon_whose_outline_is_very_long_is_drawn_without_pycocotools():
    zigzag = [side for place in range(60_000) for side in (30.0 * (place % 2), float(place % 40))]
    safe = checked_segmentation([zigzag, [5, 5, 15, 5, 15, 15, 5, 15]], *SIZE)
    assert isinstance(safe, dict)
    assert decode_segmentation(safe, *SIZE).full()[5:15, 5:15].all()


@pytest.mark.parametrize(
    "segmentation",
    [[], [[]], [[1, 2, 3, 4]], [[], [5, 5, 9, 9]], [[50, 50, 60, 50, 60, 60]], [[-9, -9, -2, -9, -2, -2]],
     [[5, 5, 5, 5, 5, 5]], runs([PIXELS]), runs(text(PIXELS)), runs([PIXELS, 0]), runs(text(3, 0, PIXELS - 3))],
)  # fmt: skip
def test_what_holds_no_pixel_is_no_mask(segmentation: Any):
    assert checked_segmentation(segmentation, *SIZE) == []
    assert decode_segmentation(segmentation, *SIZE).area == 0


def test_polygons_that_hold_pixels_stay_as_they_are():
    polygon = [5, 5, 15, 5, 15, 12.5, 5, 12.5]
    assert checked_segmentation([[1, 2, 3, 4], polygon], *SIZE) == [polygon]
    # Some tools write one polygon without the list around it.
    assert checked_segmentation(polygon, *SIZE) == [polygon]
    encoded = encode_compact(decode_segmentation([polygon], *SIZE))
    assert checked_segmentation(encoded, *SIZE) == encoded


def test_an_object_without_a_mask_is_a_crowd_for_masks_and_an_object_for_boxes():
    annotation = {"image_id": 3, "bbox": [2, 4, 10, 6], "segmentation": [], "iscrowd": 0}
    other = {"image_id": 3, "bbox": [0, 0, 5, 5], "segmentation": [[0, 0, 5, 0, 5, 5, 0, 5]], "iscrowd": 0}
    assert for_kind([annotation, other], {}, "box") == [annotation, other]
    region, same = for_kind([annotation, other], {3: SIZE}, "mask")
    assert same == other
    assert region["iscrowd"] == 1
    mask = decode_segmentation(region["segmentation"], *SIZE)
    assert (mask.left, mask.top, mask.right, mask.bottom, mask.area) == (2, 4, 12, 10, 60)
    assert filled_box({"bbox": [-5, -5, 500, 7]}, SIZE).area == 2 * SIZE[1]
    assert filled_box({"bbox": [50, 50, 5, 5]}, SIZE).area == 0


def test_a_polygon_that_was_made_to_take_time_is_refused():
    """Its edges cross all rows of a large image, again and again."""
    height, width = 8000, 9000
    edges = [side for place in range(4000) for side in (9000.0 * (place % 2), 8000.0 * (place % 2))]
    with pytest.raises(ValueError, match="again and again"):
        checked_segmentation([edges], height, width)
