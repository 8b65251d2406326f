"""What the command writes can be read by those who know nothing of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from rosbags.highlevel import AnyReader

from seg_perception.cli.main import main
from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.data.images import open_source
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.streetworld.bag import CAMERA_INFO, DETECTIONS, IMAGE, INSTANCE_MAP, TF, TF_STATIC
from seg_perception.offboard.streetworld.world import StreetWorld, WorldFrame, WorldOptions

WORLD = ["--frames", "6", "--seed", "2", "--size", "320x192", "--scene-frames", "3", "--weather", "day,fog"]
OPTIONS = WorldOptions(6, 2, 320, 192, weathers=("day", "fog"), scene_frames=3)


@pytest.fixture(scope="module")
def shots() -> list[WorldFrame]:
    return list(StreetWorld(OPTIONS).shots())


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "coco"
    assert main(["streetworld", *WORLD, "--coco", str(folder)]) == 0
    return folder


def test_pycocotools_reads_masks_boxes_and_tracks(coco_folder: Path, shots: list[WorldFrame]):
    coco = COCO(str(coco_folder / "instances.json"))
    assert len(coco.imgs) == 6
    for image_id, shot in enumerate(shots, 1):
        found = coco.loadAnns(coco.getAnnIds(image_id))
        assert [each["track_id"] for each in found] == [each.number for each in shot.truth.instances]
        for annotation, instance in zip(found, shot.truth.instances, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            assert np.array_equal(mask, shot.truth.instance_map == instance.number)
            assert annotation["area"] == mask.sum()
            assert coco.cats[annotation["category_id"]]["name"] == instance.class_name
            full = coco.annToMask({**annotation, "segmentation": annotation["full_segmentation"]}).astype(bool)
            assert np.array_equal(full, instance.full.full())


def test_the_set_is_one_that_evaluation_takes(coco_folder: Path, shots: list[WorldFrame]):
    data = CocoSet.load(coco_folder / "instances.json")
    assert not data.missing
    frames = dict(data.source())
    assert list(frames) == [str(number) for number in range(1, 7)]
    for frame, shot in zip(frames.values(), shots, strict=True):
        difference = np.abs(frame.data.astype(int) - shot.frame.data.astype(int))
        assert difference.mean() < 4


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_holds_images_and_truth_under_the_same_stamps(tmp_path: Path, shots: list[WorldFrame], storage: str):
    folder = tmp_path / "bag"
    assert main(["streetworld", *WORLD, "--bag", str(folder), "--storage", storage]) == 0
    received: dict[str, list[Any]] = {}
    topics = (IMAGE, CAMERA_INFO, INSTANCE_MAP, DETECTIONS)
    with AnyReader([folder], default_typestore=message_store()) as reader:
        assert {each.topic for each in reader.connections} == {*topics, TF, TF_STATIC}
        for connection, stamp, data in reader.messages([each for each in reader.connections if each.topic in topics]):
            message: Any = reader.deserialize(data, connection.msgtype)
            assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == stamp
            received.setdefault(connection.topic, []).append(message)
    assert {topic: len(messages) for topic, messages in received.items()} == dict.fromkeys(topics, 6)
    rows = zip(*(received[topic] for topic in topics), shots, strict=True)
    for image, info, numbers, detections, shot in rows:
        assert image.header == info.header == numbers.header == detections.header
        check_frame(image, info, numbers, detections, shot)


def check_frame(image: object, info: object, numbers: object, detections: object, shot: WorldFrame) -> None:
    assert np.array_equal(image.data, shot.frame.data)  # type: ignore[attr-defined]
    assert (numbers.encoding, numbers.step) == ("mono16", 640)  # type: ignore[attr-defined]
    pixels = numbers.data.view("<u2").reshape(192, 320)  # type: ignore[attr-defined]
    assert np.array_equal(pixels, shot.truth.instance_map)
    assert (info.width, info.height, info.distortion_model) == (320, 192, "plumb_bob")  # type: ignore[attr-defined]
    assert len(detections.detections) == len(shot.truth.instances)  # type: ignore[attr-defined]
    for found, instance in zip(detections.detections, shot.truth.instances, strict=True):  # type: ignore[attr-defined]
        assert found.id == str(instance.number)
        assert [each.hypothesis.class_id for each in found.results] == [instance.group, instance.class_name]
        rows, columns = np.nonzero(pixels == int(found.id))
        centre = found.bbox.center.position
        assert centre.x - found.bbox.size_x / 2 == columns.min()
        assert centre.y + found.bbox.size_y / 2 == rows.max() + 1


def test_the_bag_is_a_source_of_frames(tmp_path: Path, shots: list[WorldFrame]):
    folder = tmp_path / "bag"
    assert main(["streetworld", *WORLD, "--bag", str(folder)]) == 0
    # The images are read; the instance maps are images of another kind, which the source yields as well.
    frames = [frame for _, frame in open_source(folder) if frame.encoding == "bgr8"]
    assert [frame.stamp_ns for frame in frames] == [shot.frame.stamp_ns for shot in shots]
    assert all(np.array_equal(a.data, b.frame.data) for a, b in zip(frames, shots, strict=True))


def test_what_cannot_be_made_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bag, folder = ["--bag", str(tmp_path / "bag")], tmp_path / "there"
    folder.mkdir()
    for arguments, message in (
        ([*WORLD, "--size", "big", *bag], "--size: expected WIDTHxHEIGHT"),
        ([*WORLD, "--weather", "snow", *bag], "expected some of day"),
        ([*WORLD, *bag, "--designs", "new"], "expected one of all, seen, unseen; got 'new'"),
        ([*WORLD, *bag, "--storage", "tape"], "expected one of mcap, sqlite3"),
        ([*WORLD, "--bag", str(folder)], "exists already"),
        (["--frames", "0", *bag], "frames: expected at least 1"),
    ):
        assert main(["streetworld", *arguments]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize(("package", "remedy"), [("rosbags", "pip install rosbags"), ("tqdm", "install it with pip")])
def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str, remedy: str
):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["streetworld", *WORLD, "--bag", str(tmp_path / "bag")]) == 1
    said = capsys.readouterr().err
    assert package in said
    assert remedy in said
    assert not (tmp_path / "bag").exists()


def test_annotations_are_plain_json(coco_folder: Path):
    content = json.loads((coco_folder / "instances.json").read_text())
    assert {each["weather"] for each in content["images"]} == {"day", "fog"}
    assert {each["supercategory"] for each in content["categories"]} == {
        "pedestrian", "vehicle", "traffic_sign", "traffic_light",
    }  # fmt: skip


def test_a_sheet_shows_images_and_truth(tmp_path: Path, shots: list[WorldFrame]):
    path = tmp_path / "new" / "sheet.jpg"
    assert main(["streetworld", *WORLD, "--sheet", str(path)]) == 0
    sheet = cv2.imread(str(path)).astype(int)
    assert sheet.shape == (6 * 192, 2 * 320, 3)
    truth, shot = sheet[:192, 320:], shots[0]
    # What belongs to nobody is grey next to the image, and what belongs to somebody is coloured.
    colourful = np.abs(truth.max(2) - truth.min(2)) > 25
    owned = shot.truth.instance_map > 0
    assert colourful[owned].mean() > 0.8
    assert colourful[~owned].mean() < 0.2
