"""The benchmark of a model gives full marks for what was found, and none for what was not."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import paint_scene, save_canonical_colour_model

from seg_perception.core.class_tables import resolve_class_table
from seg_perception.offboard.evaluation.by_group import GroupPrecision, precision_table
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.metrics.masks import encode_rle
from seg_perception.offboard.streetworld.truth import CLASS_NAMES
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.pipeline.segmenter import Segmenter
from training.evaluate import benchmark

# The classes of the colour model, as the street world calls them.
SAME = ("rider", "bus", "traffic sign", "traffic light")
RECTANGLES = [
    (16, 16, 64, 64, 0),
    (96, 16, 160, 64, 1),
    (200, 16, 232, 64, 2),
    (16, 100, 48, 160, 3),
    (96, 100, 106, 112, 1),
]


def write_set(folder: Path) -> CocoSet:
    """In sunshine everything can be seen; in fog the same is there and nothing can be seen."""
    (folder / "images").mkdir()
    scene = paint_scene(320, 192, RECTANGLES)
    blank = np.full_like(scene.image, 114)
    images, annotations = [], []
    for number, (weather, image) in enumerate((("day", scene.image), ("fog", blank)), 1):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 192, "weather": weather})
        for index, (x1, y1, x2, y2, label) in enumerate(RECTANGLES, 1):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CLASS_NAMES.index(SAME[label]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "segmentation": encode_rle(scene.instance_map == index),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES, 1)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return CocoSet.load(path)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[GroupPrecision]:
    folder = tmp_path_factory.mktemp("exam")
    data = write_set(folder)
    model = save_canonical_colour_model(folder / "model.onnx")
    with closing(open_backend(model, "", RunOptions(threads=1))) as backend:
        classes = resolve_class_table("auto", backend.spec.class_names)
        return benchmark(Segmenter(backend, classes), classes, data)


def one(results: list[GroupPrecision], name: str, kind: str = "mask") -> GroupPrecision:
    return next(each for each in results if (each.name, each.kind) == (name, kind))


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_weathers_are_judged_apart(results: list[GroupPrecision], kind: str):
    assert list(one(results, "day", kind).at_50.values()) == pytest.approx([1, 1, 1, 1])
    assert list(one(results, "fog", kind).at_50.values()) == [0, 0, 0, 0]
    assert (one(results, "day").images, one(results, "all").images) == (1, 2)


def test_all_is_in_between(results: list[GroupPrecision]):
    # Half of everything is found without a mistake: precision is 1 at 51 of 101 levels of recall.
    assert list(one(results, "all").at_50.values()) == pytest.approx([51 / 101] * 4)


def test_objects_are_counted_by_size(results: list[GroupPrecision]):
    """One of two small vehicles is found; among large ones it is neither a find nor a mistake."""
    assert one(results, "16 x 16 or more").at_50["vehicle"] == pytest.approx(51 / 101)


def test_the_table_has_a_line_for_each(results: list[GroupPrecision]):
    lines = precision_table(results).splitlines()
    assert len(lines) == 2 + len(results) == 2 + 2 * 4
    assert lines[2].startswith("| all | mask | 2 | 0.505 / ")


@pytest.mark.parametrize(("labelled", "right"), [([], True), (["traffic sign"], True), (None, False)])
def test_what_an_image_may_show_without_a_label_is_no_mistake(tmp_path: Path, labelled: list[str] | None, right: bool):
    """Of two images of the same scene, the second is labelled for nothing, or for signs alone."""
    data = write_set(tmp_path)
    shutil.copy(tmp_path / "images" / "1.png", tmp_path / "images" / "2.png")
    annotations = [
        each
        for each in data.annotations["annotations"]
        if each["image_id"] == 1 or (labelled and CLASS_NAMES[each["category_id"] - 1] in labelled)
    ]
    images = [dict(each) for each in data.annotations["images"]]
    if labelled is not None:
        images[1]["labelled"] = labelled
    data = replace(data, annotations={**data.annotations, "images": images, "annotations": annotations})
    with closing(open_backend(save_canonical_colour_model(tmp_path / "m.onnx"), "", RunOptions(threads=1))) as backend:
        classes = resolve_class_table("auto", backend.spec.class_names)
        found = dict(one(benchmark(Segmenter(backend, classes), classes, data), "all").at_50)
    # Of the other groups there is one object, which comes first among equal scores.
    assert (found.pop("vehicle") == pytest.approx(1)) == right
    assert list(found.values()) == pytest.approx([1, 1, 1])
