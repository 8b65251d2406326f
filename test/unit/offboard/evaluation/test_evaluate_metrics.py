"""What evaluation measures in a frame: run lengths, matching, outlines; pycocotools is the judge where it can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seg_perception.core.boxes import box_iou
from seg_perception.offboard.metrics.average_precision import (
    ClassMatches,
    MatchedResults,
    match_results,
    paired_bootstrap,
)
from seg_perception.offboard.metrics.boundary import boundary, boundary_iou, boundary_width
from seg_perception.offboard.metrics.coco_summary import summarize
from seg_perception.offboard.metrics.compact import CompactMask, compact_iou
from seg_perception.offboard.metrics.masks import encode_rle
from seg_perception.offboard.metrics.matching import ClassOverlaps
from seg_perception.offboard.metrics.segmentations import decode_segmentation, encode_compact

SIZE = (48, 64)


def blob(random: np.random.Generator) -> NDArray[np.bool_]:
    """A mask of any form: rectangles with holes, some at the edges of the image."""
    mask = np.zeros(SIZE, bool)
    for _ in range(random.integers(1, 3)):
        top, left = random.integers(0, 40), random.integers(0, 52)
        mask[top : top + random.integers(1, 48), left : left + random.integers(1, 40)] = True
    return mask & (random.random(SIZE) > random.choice([0.0, 0.1]))


@pytest.mark.parametrize("mask", [
    *(blob(np.random.default_rng(seed)) for seed in range(30)),
    np.zeros(SIZE, bool), np.ones(SIZE, bool), np.eye(*SIZE, dtype=bool),
])  # fmt: skip
def test_run_lengths_of_a_compact_mask_are_those_of_the_whole_one(mask: NDArray[np.bool_]):
    runs = encode_compact(CompactMask.of(mask))
    assert runs == encode_rle(mask)
    assert np.array_equal(decode_segmentation(runs, *SIZE).full(), mask)


def test_every_form_of_a_segmentation_is_read():
    mask = np.zeros(SIZE, bool)
    mask[8:20, 10:30] = True
    polygon = [[10, 8, 30, 8, 30, 20, 10, 20]]
    numbers = {"size": list(SIZE), "counts": [10 * 48 + 8, *([12, 36] * 19), 12, 48 * 64 - 29 * 48 - 20]}
    assert np.array_equal(decode_segmentation(polygon, *SIZE).full(), mask)
    assert np.array_equal(decode_segmentation(numbers, *SIZE).full(), mask)
    assert decode_segmentation([[1, 2, 3, 4]], *SIZE).area == 0
    with pytest.raises(ValueError, match="expected run lengths of"):
        decode_segmentation(numbers, 64, 48)
    with pytest.raises(ValueError, match="run lengths: expected a list of numbers or text"):
        decode_segmentation({"size": list(SIZE)}, *SIZE)
    for counts in ([12], [-4, 48 * 64 + 4], []):
        with pytest.raises(ValueError, match=r"run lengths of 3072 pixels in all|whole numbers of pixels from 0"):
            decode_segmentation({"size": list(SIZE), "counts": counts}, *SIZE)


def world(seed: int, images: int = 12) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth of one category with crowds, and results that meet it more or less."""
    random = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(images):
        for _ in range(random.integers(0, 6)):
            mask = blob(random)
            found = mask & (random.random(SIZE) > random.uniform(0, 0.4))
            runs = encode_rle(mask)
            x1, y1, w, h = coco_mask.toBbox(runs).tolist()
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": 1, "bbox": [x1, y1, w, h],
                "area": int(mask.sum()), "iscrowd": int(random.random() < 0.15), "segmentation": runs,
            })  # fmt: skip
            for _ in range(random.integers(0, 3)):
                shape = encode_rle(np.roll(found, random.integers(-3, 4), axis=1))
                results.append({
                    "image_id": image, "category_id": 1, "score": float(random.choice([0.2, 0.5, random.random()])),
                    "bbox": coco_mask.toBbox(shape).tolist(), "segmentation": shape,
                })  # fmt: skip
    content = {
        "images": [{"id": image, "height": SIZE[0], "width": SIZE[1]} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    return content, results


def matched_by_us(
    content: dict[str, Any], results: list[dict[str, Any]], kind: str, ignored: set[int]
) -> MatchedResults:
    outcomes = []
    for image in content["images"]:
        true = [each for each in content["annotations"] if each["image_id"] == image["id"]]
        found = [each for each in results if each["image_id"] == image["id"]]
        if kind == "mask":
            masks = [[decode_segmentation(each["segmentation"], *SIZE) for each in side] for side in (found, true)]
            iou = compact_iou(*masks)
            areas = tuple(np.array([mask.area for mask in side], float) for side in masks)
        else:
            boxes = [np.array([each["bbox"] for each in side]).reshape(-1, 4) for side in (found, true)]
            iou = box_iou(*(np.hstack([each[:, :2], each[:, :2] + each[:, 2:]]) for each in boxes))
            areas = tuple(each[:, 2] * each[:, 3] for each in boxes)
        crowd = np.array([each["iscrowd"] for each in true], bool)
        overlaps = ClassOverlaps.of(
            iou, np.array([each["score"] for each in found]), areas, crowd, np.arange(len(found)), np.arange(len(true))
        )
        own = crowd | np.array([each["id"] in ignored for each in true], bool)
        outcomes.append(overlaps.outcome(own))
    ids = [image["id"] for image in content["images"]]
    return MatchedResults(kind, ids, {"thing": ClassMatches.of(outcomes)})


@pytest.mark.parametrize("kind", ["mask", "box"])
@pytest.mark.parametrize("seed", range(6))
def test_matching_is_that_of_pycocotools(seed: int, kind: str):
    content, results = world(seed)
    ids = [image["id"] for image in content["images"]]
    theirs = match_results(content, results, ids, kind).classes["thing"]
    ours = matched_by_us(content, results, kind, set()).classes["thing"]
    assert len(ours.scores) == len(theirs.scores) > 0
    for name in ("scores", "image", "right", "wrong", "truths"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_objects_that_do_not_count_are_neither_missed_nor_wrong():
    content, results = world(3)
    some = {each["id"] for each in content["annotations"][::2]}
    ours = matched_by_us(content, results, "mask", some).classes["thing"]
    everything = matched_by_us(content, results, "mask", set()).classes["thing"]
    counted = [each for each in content["annotations"] if not each["iscrowd"] and each["id"] not in some]
    assert ours.truths.sum() == len(counted)
    assert not (ours.wrong[0] & everything.right[0]).any()
    assert ours.right[0].sum() < everything.right[0].sum()


def with_sizes(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`world`, its areas spread over small, medium and large, and a second category with nothing but results."""
    content, results = world(seed)
    random = np.random.default_rng(seed)
    for each in content["annotations"]:
        each["area"] = float(random.choice([500, 3000, 20000]))
    content["categories"].append({"id": 2, "name": "other"})
    return content, [{**each, "category_id": 1 if random.random() < 0.9 else 2} for each in results]


@pytest.mark.parametrize("kind", ["mask", "box"])
@pytest.mark.parametrize("size", [1, 5, 12])
def test_the_summary_is_that_of_pycocotools(kind: str, size: int):
    """However many images it gets at a time."""
    content, results = with_sizes(5)
    ids = [image["id"] for image in content["images"]]
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    batches = [(part, [each for each in results if each["image_id"] in part]) for part in parts]
    matched, stats = summarize(content, batches, kind)
    truth = COCO()
    truth.dataset = content
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes([dict(each) for each in results]), {"mask": "segm", "box": "bbox"}[kind])
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert len(set(judge.stats.tolist())) > 9
    assert np.allclose(np.where(judge.stats < 0, np.nan, judge.stats), stats, atol=1e-12, equal_nan=True)
    assert matched.average_precision().overall == pytest.approx(stats[0], abs=1e-9)
    # The curve at IoU 0.5 has the mean that COCO's AP50 is.
    precision, scores = matched.classes["thing"].curve(0)
    assert precision.mean() == pytest.approx(stats[1], abs=1e-9)
    reached = ~np.isnan(scores)
    assert (np.diff(scores[reached]) <= 0).all()
    assert np.array_equal(precision > 0, reached)


def test_frames_that_are_alike_are_drawn_together():
    """Every image three times is no more evidence than every image once."""
    content, results = world(5, images=8)
    worse = [{**each, "score": each["score"] * (0.1 if number % 3 else 1)} for number, each in enumerate(results)]
    copies = [
        [{**each, "image_id": 3 * each.get("image_id", 0) + copy} for each in part for copy in range(3)]
        for part in (content["annotations"], results, worse)
    ]
    images = [{**each, "id": 3 * each["id"] + copy} for each in content["images"] for copy in range(3)]
    thrice = {**content, "images": images, "annotations": copies[0]}
    ids = [each["id"] for each in images]
    first, second = (match_results(thrice, part, ids) for part in copies[1:])
    alone = paired_bootstrap(first, second)
    together = paired_bootstrap(first, second, blocks=[number // 3 for number in ids])
    assert together.value == alone.value != 0
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def disc(radius: float, shift: float = 0.0) -> CompactMask:
    y, x = np.mgrid[:200, :300]
    return CompactMask.of((y - 100) ** 2 + (x - 150 - shift) ** 2 <= radius**2)


def test_the_boundary_is_what_lies_near_the_outline():
    assert boundary_width(480, 640) == 16
    square = np.zeros((100, 100), bool)
    square[10:60, 20:80] = True
    ring = square.copy()
    ring[13:57, 23:77] = False
    assert np.array_equal(boundary(CompactMask.of(square), 3).full(), ring)
    at_the_edge = CompactMask.of(np.ones((20, 30), bool))
    assert boundary(at_the_edge, 2).area == 20 * 30 - 16 * 26
    assert boundary(CompactMask.of(np.zeros((20, 30), bool)), 2).area == 0


def test_boundary_iou_sees_what_mask_iou_overlooks():
    """A shift of three pixels: nearly nothing of a large disc, much of its outline."""
    assert boundary_iou(disc(80), disc(80)) == 1.0
    mask = compact_iou([disc(80)], [disc(80, 3)])[0, 0]
    assert boundary_iou(disc(80), disc(80, 3)) < mask - 0.2
    # A disc that is all boundary has no inside to hide behind.
    assert boundary_iou(disc(6), disc(6, 3)) == pytest.approx(compact_iou([disc(6)], [disc(6, 3)])[0, 0])
