"""Collecting what a model finds, and labelled sets of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from colour_model import FAULT_COLOUR, NAMES, Scene, paint_scene, save_canonical_colour_model
from pycocotools import mask as coco_mask

from seg_perception.core.class_tables import resolve_class_table
from seg_perception.core.errors import ModelOutputError, SourceError
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.evaluation.collect import coco_results, collect
from seg_perception.offboard.metrics.average_precision import match_results
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.pipeline.segmenter import Segmenter

SIZE = (320, 192)
SCENES = (
    [(16, 16, 80, 96, 0), (120, 40, 280, 160, 1)],
    [(32, 32, 96, 96, 2), (200, 16, 240, 176, 3), (112, 120, 184, 168, 1)],
    [],
)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    model = save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx", fault="predictions")
    return Segmenter(open_backend(model), resolve_class_table("coco", NAMES))


def write_set(folder: Path, scenes: list[Scene]) -> Path:
    """A labelled set of scenes: the annotation file, with `images` next to it; category ids are 10, 20, 30, 40."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": 10 * (label + 1), "name": name.upper()} for label, name in enumerate(NAMES)]
    for number, scene in enumerate(scenes, 7):
        name = f"street_{number}.png"
        assert cv2.imwrite(str(folder / "images" / name), scene.image[..., ::-1])
        height, width = scene.image.shape[:2]
        content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": number,
                    "category_id": 10 * (label + 1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", [paint_scene(*SIZE, rectangles) for rectangles in SCENES])


def test_everything_is_collected_with_whole_masks(segmenter: Segmenter, labels: Path) -> None:
    collected = list(collect(segmenter, CocoSet.load(labels).source()))
    assert [(frame.name, frame.width, frame.height) for frame in collected] == [(n, *SIZE) for n in ("7", "8", "9")]
    for frame, rectangles in zip(collected, SCENES, strict=True):
        scene, found = paint_scene(*SIZE, rectangles), frame.instances
        assert sorted(found.labels.tolist()) == sorted(scene.labels.tolist())
        for box, label, mask in zip(found.boxes_camera, found.labels, found.masks, strict=True):
            index = scene.labels.tolist().index(label)
            np.testing.assert_allclose(box, scene.boxes[index], atol=1)
            truth = scene.instance_map == index + 1
            assert (mask.full() & truth).sum() / (mask.full() | truth).sum() > 0.95


def test_scores_below_the_lowest_are_left_out(segmenter: Segmenter, labels: Path) -> None:
    labelled = CocoSet.load(labels)
    scores = [frame.instances.scores for frame in collect(segmenter, labelled.source())]
    limit = float(np.median(np.concatenate(scores)))
    fewer = [frame.instances.scores for frame in collect(segmenter, labelled.source(), limit)]
    for every, some in zip(scores, fewer, strict=True):
        np.testing.assert_array_equal(some, every[every >= np.float32(limit)])


def test_a_broken_model_is_reported_with_the_frame(segmenter: Segmenter, tmp_path: Path) -> None:
    scene = paint_scene(*SIZE, [])
    scene.image[:32, :32] = FAULT_COLOUR
    frames = CocoSet.load(write_set(tmp_path / "set", [paint_scene(*SIZE, []), scene])).source()
    with pytest.raises(ModelOutputError, match=r"frame 8: .*NaN"):
        list(collect(segmenter, frames))


def test_results_are_those_of_the_data_set(segmenter: Segmenter, labels: Path) -> None:
    coco = CocoSet.load(labels)
    categories = coco.categories(segmenter.spec.class_names)
    assert categories.tolist() == [10, 20, 30, 40]
    results = []
    for frame in collect(segmenter, coco.source()):
        entries = coco_results(frame.instances, int(frame.name), categories)
        for entry, mask in zip(entries, frame.instances.masks, strict=True):
            np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), mask.full())
        results += entries
    assert json.loads(json.dumps(results)) == results
    precision = match_results(coco.annotations, results, coco.image_ids).average_precision()
    assert precision.at_50 == pytest.approx(1.0)
    assert set(precision.per_class) == {name.upper() for name in NAMES}


def test_classes_that_the_set_lacks_have_no_results(segmenter: Segmenter, labels: Path) -> None:
    content = json.loads(labels.read_text())
    content["categories"] = [each for each in content["categories"] if each["name"] == "CAR"]
    labels.write_text(json.dumps(content))
    with pytest.raises(SourceError, match="number 0: category 10 is not in `categories`"):
        CocoSet.load(labels)
    content["annotations"] = [each for each in content["annotations"] if each["category_id"] == 20]
    labels.write_text(json.dumps(content))
    coco = CocoSet.load(labels)
    categories = coco.categories(NAMES)
    assert categories.tolist() == [-1, 20, -1, -1]
    frames = list(collect(segmenter, coco.source()))
    entries = [entry for frame in frames for entry in coco_results(frame.instances, int(frame.name), categories)]
    assert [entry["category_id"] for entry in entries] == [20, 20]
    with pytest.raises(SourceError, match=r"at least one of the model's classes \(zebra, ...\), got only 'car'"):
        coco.categories(["zebra"])


def test_parts_of_a_set(labels: Path) -> None:
    coco = CocoSet.load(labels)
    assert coco.image_ids == (7, 8, 9)
    part = coco.only([9, 7, 1000])
    assert part.image_ids == (7, 9)
    assert [name for name, _ in part.source()] == ["7", "9"]


def test_images_that_are_not_there_are_listed(labels: Path) -> None:
    (labels.parent / "images" / "street_8.png").unlink()
    coco = CocoSet.load(labels)
    assert (coco.image_ids, coco.missing) == ((7, 9), ("street_8.png",))
    elsewhere = labels.parent / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(SourceError, match=r"3 images such as street_7\.png, none of which is in .*elsewhere"):
        CocoSet.load(labels, elsewhere)
    (labels.parent / "images").rename(labels.parent / "moved")
    assert CocoSet.load(labels, labels.parent / "moved").image_ids == (7, 9)


def test_images_that_cannot_be_used_are_listed(labels: Path) -> None:
    images = labels.parent / "images"
    (images / "street_7.png").write_bytes(b"no image")
    assert cv2.imwrite(str(images / "street_8.png"), np.zeros((10, 20, 3), np.uint8))
    source = CocoSet.load(labels).source()
    for _ in range(2):
        assert [name for name, _ in source] == ["9"]
        assert "street_7.png" in str(source.failures[0])
        assert "says 320 x 192 pixels, the file has 20 x 10" in str(source.failures[1])
        assert (len(source), len(source.failures)) == (3, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "this is not JSON"),
        ("[1]", "as of results"),
        ('{"images": []}', "missing: annotations, categories"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "`images` number 0: expected `file_name`"),
        ('{"images": [], "annotations": [7], "categories": []}', "`annotations` number 0"),
        ('{"images": [], "annotations": [], "categories": []}', "lists 0 images"),
    ],
)
def test_other_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(SourceError, match=message) as caught:
        CocoSet.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_in_another_unicode_encoding_is_read(labels: Path, encoding: str) -> None:
    # As shells and editors of Windows write it.
    expected = CocoSet.load(labels).image_ids
    labels.write_text(labels.read_text(encoding="utf-8"), encoding=encoding)
    assert CocoSet.load(labels).image_ids == expected


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        CocoSet.load(tmp_path / "instances.json")


def test_labels_fit_a_model_whose_classes_are_the_road_groups(labels: Path) -> None:
    content = json.loads(labels.read_text(encoding="utf-8"))
    # One category of no road group, and two of one.
    names = {10: "person", 20: "car", 30: "truck", 40: "dog"}
    content["categories"] = [{"id": number, "name": name} for number, name in names.items()]
    labels.write_text(json.dumps(content), encoding="utf-8")
    data = CocoSet.load(labels)
    assert data.matching(["car", "dog", "traffic light"]) is data
    grouped = data.matching(["pedestrian", "vehicle", "traffic sign", "traffic light"])
    assert grouped.categories(["vehicle", "traffic sign"]).tolist() == [2, 3]
    expected = [
        (each["image_id"], {10: 1, 20: 2, 30: 2}[each["category_id"]], each["bbox"])
        for each in content["annotations"]
        if each["category_id"] != 40
    ]
    assert [(a["image_id"], a["category_id"], a["bbox"]) for a in grouped.annotations["annotations"]] == expected
    assert len(expected) < len(content["annotations"])
