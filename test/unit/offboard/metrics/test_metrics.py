"""Overlap of boxes and masks, run-length encoding: against plain references and pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.boxes import box_iou
from seg_perception.offboard.metrics.masks import encode_rle, map_iou, mask_iou

seeds = st.integers(0, 1 << 30)
counts = st.integers(0, 6)


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    corners = random.integers(0, 12, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)


def filled(box: np.ndarray) -> np.ndarray:
    mask = np.zeros((12, 12), bool)
    x1, y1, x2, y2 = box.astype(int)
    mask[y1:y2, x1:x2] = True
    return mask


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


@given(counts, counts, seeds)
def test_box_iou_counts_pixels(first, second, seed):
    random = np.random.default_rng(seed)
    a, b = random_boxes(random, first), random_boxes(random, second)
    expected = [[plain_iou(filled(one), filled(other)) for other in b] for one in a]
    np.testing.assert_allclose(box_iou(a, b), np.reshape(expected, (first, second)), atol=1e-12)


def test_box_iou_of_turned_and_empty_boxes_is_zero():
    boxes = np.array([[5, 5, 1, 1], [3, 3, 3, 3], [0, 0, 4, 4]], np.float32)
    np.testing.assert_array_equal(box_iou(boxes, boxes), np.diag([0.0, 0.0, 1.0]))


def random_masks(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    return random.random((count, height, width)) < random.random((count, 1, 1))


@given(counts, counts, st.integers(1, 9), st.integers(1, 9), seeds)
def test_mask_iou(first, second, height, width, seed):
    random = np.random.default_rng(seed)
    a, b = random_masks(random, first, height, width), random_masks(random, second, height, width)
    expected = [[plain_iou(one, other) for other in b] for one in a]
    np.testing.assert_allclose(mask_iou(a, b), np.reshape(expected, (first, second)))


@given(counts, st.integers(1, 9), st.integers(1, 9), seeds)
def test_map_iou_takes_numbers_that_are_not_in_the_map(count, height, width, seed):
    random = np.random.default_rng(seed)
    numbers = random.choice(np.array([1, 2, 3, 500, 40_000, 65_535], np.uint16), count, replace=False)
    pixels = random.choice(np.array([0, 1, 2, 3, 500], np.uint16), (height, width))
    full = random_masks(random, count, height, width)
    expected = [plain_iou(pixels == number, mask) for number, mask in zip(numbers, full, strict=True)]
    np.testing.assert_allclose(map_iou(pixels, numbers, full), expected)


def test_masks_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="expected shape"):
        map_iou(np.zeros((4, 5), np.uint16), np.array([1], np.uint16), np.zeros((1, 5, 4), bool))
    with pytest.raises(ValueError, match="expected shapes"):
        mask_iou(np.zeros((1, 4, 5), bool), np.zeros((1, 5, 4), bool))
    with pytest.raises(ValueError, match="expected shape"):
        encode_rle(np.zeros((1, 5, 4), bool))


@given(st.integers(1, 40), st.integers(1, 40), seeds, st.floats(0, 1))
def test_rle_is_that_of_pycocotools(height, width, seed, density):
    reference = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    mask = np.random.default_rng(seed).random((height, width)) < density
    expected = reference.encode(np.asfortranarray(mask, np.uint8))
    assert encode_rle(mask) == {"size": expected["size"], "counts": expected["counts"].decode()}


@pytest.mark.parametrize("size", [(480, 640), (2160, 3840)])
def test_rle_of_large_masks_with_long_runs(size):
    reference = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    y, x = np.ogrid[: size[0], : size[1]]
    for mask in (
        np.zeros(size, bool),
        np.ones(size, bool),
        (y - size[0] / 2) ** 2 + (x - size[1] / 3) ** 2 < (size[0] / 3) ** 2,
        (y == size[0] - 1) & (x == size[1] - 1),
    ):
        encoded = encode_rle(mask)
        assert encoded["counts"] == reference.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        np.testing.assert_array_equal(reference.decode(dict(encoded)), mask)


def test_rle_of_a_view_is_that_of_its_copy():
    mask = np.random.default_rng(1).random((30, 40)) < 0.5
    for view in (mask[::2, ::-1], mask.T, np.asfortranarray(mask)):
        assert encode_rle(view) == encode_rle(np.ascontiguousarray(view))


def test_rle_holds_values_that_json_takes():
    encoded = encode_rle(np.eye(3, dtype=bool))
    assert json.loads(json.dumps(encoded)) == encoded


def test_mask_iou_is_exact_beyond_the_whole_numbers_of_float32():
    full = np.ones((1, 5000, 5000), bool)
    nearly = full.copy()
    nearly[0, 0, 0] = False
    assert mask_iou(full, full)[0, 0] == 1.0
    assert mask_iou(full, nearly)[0, 0] == (full.size - 1) / full.size
