"""Readers of labelled data sets, on tiny files written after each format's public description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from seg_perception.core.errors import SourceError
from seg_perception.offboard.evaluation.datasets import open_dataset
from seg_perception.offboard.evaluation.datasets.bdd100k import outline
from seg_perception.offboard.evaluation.datasets.labelled import NO_STUFF, LabelledSet
from seg_perception.offboard.metrics.masks import encode_rle
from seg_perception.offboard.metrics.segmentations import decode_segmentation

HEIGHT, WIDTH = 40, 64


def image(path: Path, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), value, np.uint8))


def region(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def objects(labelled: LabelledSet, image: int = 1) -> list[tuple[str, int, dict[str, Any]]]:
    """Category name, area of the mask, and the annotation, of each object that is no crowd."""
    names = {each["id"]: each["name"] for each in labelled.labels.annotations["categories"]}
    chosen = [each for each in labelled.labels.annotations["annotations"] if each["image_id"] == image]
    return [
        (names[each["category_id"]], decode_segmentation(each["segmentation"], HEIGHT, WIDTH).area, each)
        for each in chosen
        if not each["iscrowd"]
    ]


def crowds(labelled: LabelledSet, image: int = 1) -> set[tuple[str, bool, int]]:
    """Category name, whether it stands for void, and area, of each crowd."""
    names = {each["id"]: each["name"] for each in labelled.labels.annotations["categories"]}
    return {
        (names[each["category_id"]], bool(each.get("void")), each["area"])
        for each in labelled.labels.annotations["annotations"]
        if each["iscrowd"] and each["image_id"] == image
    }


def cityscapes(folder: Path) -> Path:
    values = np.full((HEIGHT, WIDTH), 7, np.uint16)  # road
    values[:10] = 23  # sky
    values[30:] = 1  # ego vehicle: not evaluated
    values[region(10, 0, 20, 10)] = 26001
    values[region(10, 20, 20, 25)] = 26000
    values[region(12, 30, 20, 33)] = 24002
    values[region(12, 40, 20, 50)] = 26  # a group of cars
    values[region(20, 50, 24, 60)] = 29001  # a caravan: not evaluated
    labels = folder / "gtFine" / "val" / "aachen"
    labels.mkdir(parents=True)
    assert cv2.imwrite(str(labels / "aachen_000000_000019_gtFine_instanceIds.png"), values)
    assert cv2.imwrite(str(labels / "aachen_000001_000019_gtFine_instanceIds.png"), values)
    (labels / "aachen_000002_000019_gtFine_instanceIds.png").write_bytes(b"no image")
    for number in (0, 2):
        image(folder / "leftImg8bit" / "val" / "aachen" / f"aachen_00000{number}_000019_leftImg8bit.png")
    return folder / "gtFine" / "val"


def test_cityscapes(tmp_path: Path):
    labelled = open_dataset(cityscapes(tmp_path))
    assert labelled.kind == "Cityscapes"
    assert sorted((name, area) for name, area, _ in objects(labelled)) == [("car", 50), ("car", 100), ("person", 24)]
    assert ("car", False, 80) in crowds(labelled)
    void = {each for each in crowds(labelled) if each[1]}
    assert len(void) == 8
    assert {area for *_, area in void} == {10 * WIDTH + 40}
    assert labelled.labels.missing == ("aachen_000001_000019_leftImg8bit.png",)
    assert "000002" in labelled.labels.omitted[0]
    assert [name for name, _ in labelled.source] == ["1"]
    assert labelled.stuff is not None
    stuff = labelled.stuff(1)
    assert labelled.stuff_names[stuff.labels[0, 0]] == "sky"
    assert labelled.stuff_names[stuff.labels[25, 5]] == "road"
    assert stuff.labels[12, 42] == NO_STUFF
    assert stuff.void[35, 0]
    assert stuff.void[21, 52]
    assert not stuff.void[12, 42]
    groups = labelled.labels.by_group().annotations
    assert {each["category_id"] for each in groups["annotations"]} == {1, 2}


def test_labels_without_images_are_refused(tmp_path: Path):
    labels = cityscapes(tmp_path)
    with pytest.raises(SourceError, match=r"got none: aachen_000000_000019_leftImg8bit.png is missing"):
        open_dataset(labels, tmp_path / "gtFine")
    with pytest.raises(SourceError, match="there is no such folder"):
        open_dataset(labels, tmp_path / "elsewhere")


def mots_map() -> NDArray[np.uint16]:
    values = np.zeros((HEIGHT, WIDTH), np.uint16)
    values[region(5, 5, 15, 15)] = 1003
    values[region(5, 30, 20, 34)] = 2001
    values[region(0, 60, 40, 64)] = 10000
    return values


def write_mots(folder: Path, as_text: bool, deep: bool = False) -> tuple[Path, Path]:
    labels, images = folder / "labels", folder / "images"
    for frame in range(3):
        name = f"{frame + deep:06d}.png"
        image(images / "0002" / ("img1" if deep else "") / name)
    if not as_text:
        (labels / "0002").mkdir(parents=True)
        for frame in range(2):
            assert cv2.imwrite(str(labels / "0002" / f"{frame:06d}.png"), mots_map())
        return labels, images
    file = labels / "0002" / "gt" / "gt.txt" if deep else labels / "0002.txt"
    file.parent.mkdir(parents=True)
    lines = [
        f"{frame + deep} {number} {number // 1000} {HEIGHT} {WIDTH} {encode_rle(mots_map() == number)['counts']}"
        for frame in range(2)
        for number in (1003, 2001, 10000)
    ]
    file.write_text("\n".join(lines) + "\n")
    (labels / "val.seqmap").write_text("empty 0002 000000 000002")
    return labels, images


@pytest.mark.parametrize(("as_text", "deep"), [(False, False), (True, False), (True, True)])
def test_mots(tmp_path: Path, as_text: bool, deep: bool):
    labelled = open_dataset(*write_mots(tmp_path, as_text, deep))
    assert labelled.kind == "MOTS"
    found = objects(labelled)
    assert [(name, area, each["track_id"]) for name, area, each in found] == [("car", 100, 1003), ("person", 60, 2001)]
    assert {each[1:] for each in crowds(labelled)} == {(True, 160)}
    assert labelled.labelled_names == {"car", "person", "pedestrian"}
    # A frame with no line has nothing in it; a frame with no image of labels is not labelled.
    assert len(labelled.images) == (3 if as_text else 2)
    stamps = [frame.stamp_ns for _, frame in labelled.source]
    assert np.diff(stamps).tolist() == [100_000_000] * (len(stamps) - 1)
    assert set(labelled.sequence_of().values()) == {"0002"}


def test_a_line_that_is_none_is_named(tmp_path: Path):
    labels, images = write_mots(tmp_path, as_text=True)
    with (labels / "0002.txt").open("a") as file:
        file.write("1 1003 1 40\n")
    with pytest.raises(SourceError, match=r"0002.txt, line 7: expected `frame id class height width rle`"):
        open_dataset(labels, images)


def bitmask(path: Path) -> None:
    values = np.zeros((HEIGHT, WIDTH, 4), np.uint8)

    def put(mask: NDArray[np.bool_], category: int, attributes: int, number: int) -> None:
        # BGRA in OpenCV: the file has R the category, G the attributes, B and A the number.
        values[mask] = (number >> 8, attributes, category, number & 0xFF)

    put(region(0, 0, 10, 10), 3, 0b0100, 300)
    put(region(0, 20, 10, 30), 3, 0b1000, 7)
    put(region(20, 0, 24, 10), 1, 0, 8)
    put(region(30, 0, 40, 20), 3, 0b0010, 9)
    put(region(30, 30, 40, 40), 5, 0b0001, 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values)


def test_bdd100k_bitmasks(tmp_path: Path):
    bitmask(tmp_path / "labels" / "b1.png")
    bitmask(tmp_path / "labels" / "b2.png")
    image(tmp_path / "images" / "b1.jpg")
    labelled = open_dataset(tmp_path / "labels", tmp_path / "images")
    assert labelled.kind == "BDD100K"
    found = sorted((name, area, each["occluded"], each["truncated"]) for name, area, each in objects(labelled))
    assert found == [("car", 100, False, True), ("car", 100, True, False), ("pedestrian", 40, False, False)]
    assert crowds(labelled) == {("car", False, 200), ("bus", False, 100)}
    assert labelled.labels.missing == ("b2",)
    assert labelled.sequence_of() == {}


def test_bdd100k_tracks(tmp_path: Path):
    for number in (1, 2):
        bitmask(tmp_path / "labels" / "b1-drive" / f"b1-drive-000000{number}.png")
        image(tmp_path / "images" / "b1-drive" / f"b1-drive-000000{number}.jpg")
    labelled = open_dataset(tmp_path / "labels", tmp_path / "images")
    assert {each["track_id"] for _, _, each in objects(labelled, 2)} == {300, 7, 8}
    assert labelled.sequence_of() == {1: "b1-drive", 2: "b1-drive"}


def bdd_frame() -> dict[str, Any]:
    square = [[5.0, 5.0], [25.0, 5.0], [25.0, 25.0], [5.0, 25.0]]
    other = [[x + 30, y] for x, y in square]
    return {
        "name": "b1.jpg",
        "attributes": {"weather": "rainy", "scene": "undefined", "timeofday": "night"},
        "labels": [
            {"category": "car", "attributes": {"occluded": True, "truncated": False},
             "poly2d": [{"vertices": square, "types": "LLLL", "closed": True}]},
            {"category": "rider", "attributes": {"crowd": True},
             "poly2d": [{"vertices": other, "types": "LLLL", "closed": True}]},
            {"category": "lane/crosswalk", "poly2d": [{"vertices": other, "types": "LLLL", "closed": False}]},
            {"category": "traffic sign", "box2d": {"x1": 1, "y1": 1, "x2": 4, "y2": 4}},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True])
def test_bdd100k_polygons(tmp_path: Path, wrapped: bool):
    image(tmp_path / "images" / "b1.jpg")
    (tmp_path / "images" / "b3.jpg").write_bytes(b"no image")
    frames = [bdd_frame(), {"name": "b2.jpg", "labels": None}, {"name": "b3.jpg"}]
    (tmp_path / "ins_seg_val.json").write_text(json.dumps({"frames": frames, "config": {}} if wrapped else frames))
    labelled = open_dataset(tmp_path / "ins_seg_val.json", tmp_path / "images")
    assert labelled.kind == "BDD100K"
    found = [(name, area, each.get("occluded")) for name, area, each in objects(labelled)]
    assert found == [("car", 400, True), ("traffic sign", 0, None)]
    assert labelled.labels.without_mask == 1
    assert crowds(labelled) == {("rider", False, 400)}
    assert (labelled.images[1]["weather"], labelled.images[1]["timeofday"]) == ("rainy", "night")
    assert "scene" not in labelled.images[1]
    assert labelled.labels.missing == ("b2.jpg",)
    assert any("lane/crosswalk" in line for line in labelled.labels.omitted)
    assert any("b3.jpg" in line for line in labelled.labels.omitted)


def test_curves_go_to_where_they_end():
    """A quarter of a circle by the usual control points, whatever the letter of its end."""
    k = 0.5523
    corners = [[1.0, 0.0], [1.0, k], [k, 1.0], [0.0, 1.0], [0.0, 0.0]]
    for types in ("LCCLL", "LCCCL"):
        points = outline(corners, types)
        assert np.allclose(np.hypot(*points[:-1].T), 1.0, atol=3e-4)
        assert points[-1].tolist() == [0.0, 0.0]
        assert points[-2].tolist() == [0.0, 1.0]
    closing = outline([[0.0, 0.0], [1.0, 0.0], [1.0, k], [k, 1.0]], "LLCC")
    assert closing[-1].tolist() == [0.0, 0.0]
    assert outline([[0, 0], [1, 0], [1, 1]], "").shape == (3, 2)


def test_coco_is_told_from_bdd100k(tmp_path: Path):
    image(tmp_path / "images" / "1.png")
    content = {
        "images": [{"id": 4, "file_name": "1.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [],
        "categories": [{"id": 1, "name": "car"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    assert open_dataset(tmp_path / "instances.json").kind == "COCO"
    assert open_dataset(tmp_path).kind == "COCO"


def test_what_is_no_data_set_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="does not exist"):
        open_dataset(tmp_path / "nothing")
    with pytest.raises(SourceError, match="recognised none"):
        open_dataset(tmp_path)
    with pytest.raises(SourceError, match="expected auto or one of"):
        open_dataset(tmp_path, name="kitti")


def bdd_labels(tmp_path: Path, *labels: dict[str, Any]) -> LabelledSet:
    image(tmp_path / "images" / "b1.jpg")
    path = tmp_path / "labels.json"
    path.write_text(json.dumps([{"name": "b1.jpg", "labels": list(labels)}]))
    return open_dataset(path, tmp_path / "images")


def test_bdd100k_masks_are_the_same_as_polygons_and_as_run_lengths(tmp_path: Path):
    square = [[5, 5], [25, 5], [25, 25], [5, 25]]
    runs = encode_rle(region(5, 5, 25, 25))
    read = bdd_labels(
        tmp_path,
        {"category": "car", "poly2d": [{"vertices": square, "types": "LLLL", "closed": True}]},
        {"category": "car", "poly2d": None, "rle": runs},
        {"category": "car", "rle": runs, "box2d": {"x1": 1, "y1": 1, "x2": 9, "y2": 9}},
        {"category": "rider", "rle": runs, "attributes": {"ignored": True}},
    )
    assert [(name, area) for name, area, _ in objects(read)] == [("car", 400)] * 3
    assert crowds(read) == {("rider", False, 400)}
    assert read.labels.omitted == ()
    with pytest.raises(SourceError, match=r"b1\.jpg: a label cannot be understood"):
        bdd_labels(tmp_path, {"category": "car", "rle": {"size": [1, 1], "counts": "1"}})


def test_bdd100k_boxes_and_names_of_2018(tmp_path: Path):
    box = {"x1": 10, "y1": 5.5, "x2": 30, "y2": 25}
    names = ("person", "bike", "motor", "car", "traffic light", "other vehicle", "van")
    read = bdd_labels(
        tmp_path,
        *({"category": name, "box2d": box} for name in names),
        {"category": "car"},
        {"category": "car", "box3d": {}},
        {"category": "drivable area", "poly2d": []},
        {"category": "car", "box2d": {**box, "x1": 500, "x2": 600}},
    )
    found = objects(read)
    assert [name for name, *_ in found] == ["pedestrian", "bicycle", "motorcycle", "car", "traffic light", "car"]
    assert all(each["segmentation"] == [] and each["bbox"] == [10, 6, 20, 19] for *_, each in found)
    assert read.labels.without_mask == 6
    assert crowds(read) == {("car", False, 380)}
    lines = "\n".join(read.labels.omitted)
    assert "2 x object: it has neither `rle` nor `poly2d` nor `box2d`" in lines
    assert "1 x object: drivable area is none of the categories" in lines
    assert "1 x object: its box lies outside of the image" in lines
    # Signs and lights are categories only where they are labelled: else nothing of them is judged.
    categories = [each["name"] for each in read.labels.annotations["categories"]]
    assert "traffic light" in categories
    assert "traffic sign" not in categories


@pytest.mark.parametrize("text", ["", "\n\n", "  \n"])
@pytest.mark.parametrize("deep", [True, False])
def test_mots_sequences_in_which_nothing_is_labelled(tmp_path: Path, deep: bool, text: str):
    """Their images are there to be found nothing in; the size is that of the images."""
    labels = tmp_path / "labels"
    for name, content in (
        ("0001", text),
        ("0002", f"1 1001 1 {HEIGHT} {WIDTH} {encode_rle(region(5, 5, 9, 9))['counts']}"),
    ):
        path = labels / name / "gt" / "gt.txt" if deep else labels / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        for frame in (1, 2):
            image(tmp_path / "images" / name / "img1" / f"{frame:06d}.jpg")
    (labels / "seqmap.txt").write_text("0001\n0002\n")
    read = open_dataset(labels, tmp_path / "images")
    assert [(each["sequence"], each["width"], each["height"]) for each in read.images.values()] == [
        ("0001", WIDTH, HEIGHT)] * 2 + [("0002", WIDTH, HEIGHT)] * 2  # fmt: skip
    assert len(read.labels.annotations["annotations"]) == 1
    assert set(read.sequence_of().values()) == {"0001", "0002"}
    assert [name for name, _ in read.source] == ["1", "2", "3", "4"]
    assert read.labels.omitted == ("1 x text file: it has no labels of a sequence (first: seqmap.txt)",)


def test_mots_classes_that_are_not_known_are_counted(tmp_path: Path):
    counts = encode_rle(region(5, 5, 9, 9))["counts"]
    (tmp_path / "labels").mkdir()
    lines = [f"1 {number} {label} {HEIGHT} {WIDTH} {counts}" for number, label in ((1001, 1), (3001, 3), (10000, 10))]
    (tmp_path / "labels" / "0001.txt").write_text("\n".join(["", *lines]))
    image(tmp_path / "images" / "0001" / "000001.jpg")
    read = open_dataset(tmp_path / "labels", tmp_path / "images")
    assert len(objects(read)) == 1
    assert read.labels.omitted[0].startswith("1 x object: class 3 is not known")
