"""Average precision: equal to pycocotools' own sum, and its bootstrap tells real differences from chance."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seg_perception.core.classes import ClassTable
from seg_perception.offboard.metrics.average_precision import KINDS, match_results, paired_bootstrap

SIDE = 64
NAMES = {3: "car", 1: "person", 10: "traffic light", 90: "toothbrush"}
TABLE = ClassTable(
    "test", tuple(NAMES.values()), {"person": "pedestrian", "car": "vehicle", "traffic light": "traffic_light"}
)


def rectangle(box: np.ndarray) -> dict[str, Any]:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    x, y, width, height = box.round().astype(int)
    mask[y : y + height, x : x + width] = 1
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def random_set(random: np.random.Generator, images: int) -> dict[str, Any]:
    """Ground truth with crowds, images without objects and a class without any."""
    annotations = []
    for image in range(images):
        for _ in range(random.integers(0, 6)):
            box = np.array([*random.integers(0, 30, 2), *random.integers(6, 30, 2)], float)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + image,
                    "category_id": int(random.choice([1, 3, 10])),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "segmentation": rectangle(box),
                    "iscrowd": int(random.random() < 0.1),
                }
            )
    return {
        "images": [{"id": 100 + image, "width": SIDE, "height": SIDE} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
    }


def results(random: np.random.Generator, truth: dict[str, Any], noise: float) -> list[dict[str, Any]]:
    """What a detector with that much noise in position (pixels), score and label might say; many scores are equal."""
    found = []
    for each in truth["annotations"]:
        if random.random() < 0.04 * noise:
            continue
        box = np.clip(np.array(each["bbox"]) + random.normal(0, noise, 4), 1, SIDE / 2)
        wrong = random.random() < 0.03 * noise
        found.append((each["image_id"], 90 if wrong else each["category_id"], box))
    for image in truth["images"]:
        for _ in range(random.poisson(0.2 * noise)):
            box = np.array([*random.integers(0, 30, 2), *random.integers(6, 30, 2)], float)
            found.append((image["id"], int(random.choice(list(NAMES))), box))
    return [
        {
            "image_id": image,
            "category_id": category,
            "bbox": box.tolist(),
            "score": round(float(random.random()), 1),
            "segmentation": rectangle(box),
        }
        for image, category, box in found
    ]


def reference(truth: dict[str, Any], found: list[dict[str, Any]], kind: str, image_ids: list[int]) -> COCOeval:
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes([dict(each) for each in found]), KINDS[kind])
    evaluation.params.imgIds = image_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_equals_pycocotools(kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random_set(random, 20)
    found = results(random, truth, 0.5 + 0.4 * seed)
    image_ids = list(range(100, 114)) if seed % 2 else list(range(100, 120))
    ours = match_results(truth, found, image_ids, kind).average_precision(TABLE)
    theirs = reference(truth, found, kind, image_ids)
    assert ours.overall == pytest.approx(theirs.stats[0], abs=1e-12)
    assert ours.at_50 == pytest.approx(theirs.stats[1], abs=1e-12)
    assert 0.05 < ours.overall < 0.95
    precision = theirs.eval["precision"][:, :, :, 0, 2].mean(axis=(0, 1))
    by_class = {NAMES[number]: value for number, value in zip(theirs.params.catIds, precision, strict=True)}
    assert ours.per_class == pytest.approx({name: value for name, value in by_class.items() if value > -1})
    assert ours.per_group == pytest.approx(
        {"pedestrian": by_class["person"], "vehicle": by_class["car"], "traffic_light": by_class["traffic light"]}
    )


def test_what_is_given_stays_as_it_was_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    truth = random_set(random, 4)
    found = results(random, truth, 2.0)
    before = repr((truth, found))
    match_results(truth, found, [100, 101, 102, 103])
    assert repr((truth, found)) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("seed", range(3))
def test_weighting_an_image_is_repeating_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random_set(random, 8)
    found = results(random, truth, 4.0)
    times = random.integers(0, 3, 8)
    repeated: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    copies = []
    for image, count in enumerate(times):
        for number in range(count):
            new = {"image_id": 1000 * image + number}
            repeated["images"].append({"id": new["image_id"], "width": SIDE, "height": SIDE})
            of_image = [each for each in truth["annotations"] if each["image_id"] == 100 + image]
            repeated["annotations"] += [
                {**each, **new, "id": len(repeated["annotations"]) + at} for at, each in enumerate(of_image, 1)
            ]
            copies += [{**each, **new} for each in found if each["image_id"] == 100 + image]
    theirs = reference(repeated, copies, "mask", [image["id"] for image in repeated["images"]])
    ours = match_results(truth, found, range(100, 108)).resampled(times[None].astype(float))
    assert ours[0] == pytest.approx(theirs.stats[0], abs=1e-12)


def test_an_object_whose_id_is_0_is_found_all_the_same() -> None:
    truth = random_set(np.random.default_rng(5), 1)
    for number, each in enumerate(truth["annotations"]):
        each["id"], each["iscrowd"] = number, 0
        del each["area"]
    perfect = [{**each, "score": 0.9} for each in truth["annotations"]]
    assert len(perfect) > 1
    assert match_results(truth, perfect, [100]).average_precision().overall == pytest.approx(1.0)


def test_nothing_found_and_nothing_to_find() -> None:
    truth = random_set(np.random.default_rng(1), 3)
    assert match_results(truth, [], [100, 101, 102]).average_precision().overall == 0.0
    empty = {**truth, "annotations": []}
    assert np.isnan(match_results(empty, [], [100]).average_precision().overall)
    with pytest.raises(ValueError, match="at least one image"):
        match_results(truth, [], [])


def test_the_interval_covers_zero_for_equal_models_and_not_for_a_worse_one() -> None:
    random = np.random.default_rng(3)
    truth = random_set(random, 40)
    image_ids = [image["id"] for image in truth["images"]]
    good, bad = (match_results(truth, results(random, truth, noise), image_ids) for noise in (1.0, 3.0))
    same = paired_bootstrap(good, good, samples=200)
    assert (same.value, same.low, same.high, same.samples) == (0.0, 0.0, 0.0, 200)
    worse = paired_bootstrap(good, bad, samples=300)
    assert worse.low < worse.value < worse.high < 0
    assert worse.value == pytest.approx(bad.average_precision().overall - good.average_precision().overall)


def test_the_interval_covers_zero_about_as_often_as_it_says() -> None:
    """Pairs of detectors of one quality, each pair on images of its own."""
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        truth = random_set(random, 40)
        image_ids = [image["id"] for image in truth["images"]]
        first, second = (match_results(truth, results(random, truth, 1.5), image_ids) for _ in range(2))
        difference = paired_bootstrap(first, second, samples=100)
        covered += difference.low < 0 < difference.high
    assert covered >= 33


def test_a_difference_in_some_classes() -> None:
    random = np.random.default_rng(4)
    truth = random_set(random, 30)
    image_ids = [image["id"] for image in truth["images"]]
    found = results(random, truth, 2.0)
    whole = match_results(truth, found, image_ids)
    without_cars = match_results(truth, [each for each in found if each["category_id"] != 3], image_ids)
    others = ["person", "traffic light"]
    assert paired_bootstrap(whole.only(others), without_cars.only(others), 100).value == 0.0
    cars = paired_bootstrap(whole.only(["car"]), without_cars.only(["car"]), 100)
    assert cars.value == pytest.approx(-whole.average_precision().per_class["car"])
    assert cars.high < 0


def test_only_like_is_compared_with_like() -> None:
    truth = random_set(np.random.default_rng(1), 3)
    few, more = (match_results(truth, [], image_ids) for image_ids in ([100, 101], [100, 101, 102]))
    with pytest.raises(ValueError, match="on the same images"):
        paired_bootstrap(few, more)
    with pytest.raises(ValueError, match="of one kind"):
        paired_bootstrap(few, match_results(truth, [], [100, 101], "box"))


def test_pycocotools_is_named_where_it_is_missing() -> None:
    code = """
import sys
sys.modules["pycocotools"] = None
from seg_perception.core.errors import BackendUnavailable
from seg_perception.offboard.metrics.average_precision import match_results
try:
    match_results({"images": [], "annotations": [], "categories": []}, [], [1])
except BackendUnavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install pycocotools" in done.stdout, done.stderr


def test_a_result_on_an_object_without_a_mask_is_neither_right_nor_wrong_as_a_mask() -> None:
    """For masks the object is not there, and what finds it is not wrong; for boxes nothing is special about it."""

    def square(left: int, **more: object) -> dict[str, object]:
        sides = [left, 10, left + 20, 10, left + 20, 30, left, 30]
        return {"image_id": 1, "category_id": 1, "bbox": [left, 10, 20, 20], "segmentation": [sides], **more}

    images = [{"id": 1, "width": 100, "height": 50}]
    truth = [square(10), square(40, segmentation=[])]
    content = {"images": images, "annotations": truth, "categories": [{"id": 1, "name": "car"}]}

    def precision(kind: str, *results: dict[str, object]) -> float:
        return match_results(content, results, [1], kind).average_precision().overall

    found, without, wrong = square(10, score=0.5), square(40, score=0.9), square(70, score=0.8)
    for kind in ("mask", "box"):
        assert precision(kind, without, found) == pytest.approx(1.0)
    assert precision("mask", found) == pytest.approx(1.0)
    assert precision("box", found) == pytest.approx(0.5, abs=0.01)
    assert precision("mask", found, wrong) == pytest.approx(0.5)
    # Twice on the same box, and a part of it, are nothing that can be judged as a mask; as boxes they are wrong.
    twice = [without, square(41, score=0.95), square(10, score=0.5)]
    assert precision("mask", *twice) == pytest.approx(1.0, abs=0.06)
    assert precision("box", *twice) < 1.0
    truth[0]["segmentation"] = []
    assert np.isnan(precision("mask", found, without))
    assert precision("box", found, without) == pytest.approx(1.0)
