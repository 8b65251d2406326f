"""Commands over cameras of 12 bits: with the bit depth they find what they find in the same images of 8 bits."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import Scene, paint_scene, save_canonical_colour_model
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from seg_perception.cli.main import main
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.data.images import open_source
from seg_perception.offboard.data.published import read_published
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.label.run import LabelOptions
from seg_perception.offboard.replay.inputs import BagRecording
from seg_perception.offboard.toolchain.quantize.frames import gather

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return paint_scene(320, 192, [(100, 40, 180, 100, 1), (40, 40, 72, 120, 0)])


def bgr(scene: Scene) -> NDArray[np.uint8]:
    return np.ascontiguousarray(scene.image[..., ::-1])


def deep(image: NDArray[np.uint8], depth: int = 12) -> NDArray[np.uint16]:
    return np.round(image * (((1 << depth) - 1) / 255)).astype(np.uint16)


def bag(path: Path, image: NDArray[np.generic], encoding: str, count: int = 12) -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = "sensor_msgs/msg/Image"
        connection = writer.add_connection("/front/image_raw", kind, typestore=STORE)
        for index in range(count):
            header = TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](7 + index, 0), "front")
            data = image.reshape(-1).view(np.uint8)
            step = data.size // image.shape[0]
            message = TYPES[kind](header, image.shape[0], image.shape[1], encoding, 0, step, data)
            writer.write(connection, (7 + index) * 10**9, STORE.serialize_cdr(message, kind))
    return path


def test_replay(model: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    own = bag(tmp_path / "eight", bgr(scene), "bgr8")
    wide = bag(tmp_path / "twelve", deep(bgr(scene)), "bgr16")
    found = {}
    for name, path, depth in (("eight", own, "16"), ("said", wide, "12"), ("auto", wide, "auto"), ("dark", wide, "16")):
        out = tmp_path / f"{name}.mcap"
        arguments = [str(path), "--model", str(model), "-o", str(out), "--threads", "1", "--bit-depth", depth]
        assert main(["replay", *arguments]) == 0
        found[name] = [
            (each.pixels, each.scores)
            for each in read_published(out, "/segmenter/instance_map", "/segmenter/detections")
        ]
        printed = capsys.readouterr().out
        assert ("warning: " in printed and "12 of 16 bits" in printed) == (name == "dark")
    for name in ("said", "auto"):
        for (pixels, scores), (true_pixels, true_scores) in zip(found[name], found["eight"], strict=True):
            np.testing.assert_array_equal(pixels, true_pixels)
            np.testing.assert_array_equal(scores, true_scores)
    assert len(found["eight"][0][1]) == 2
    assert main(["replay", str(wide), "--model", str(model), "-o", str(tmp_path / "x.mcap"), "--bit-depth", "20"]) == 1
    assert "bit depth: expected 8 to 16 or auto, got '20'" in capsys.readouterr().err


def test_what_ends_before_ten_images_is_warned_of_too(
    model: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    image = deep(bgr(scene))
    short = bag(tmp_path / "short", image, "bgr16", count=3)
    single = tmp_path / "single.png"
    assert cv2.imwrite(str(single), image)
    labelled = {
        "images": [{"id": 1, "file_name": "single.png", "width": 320, "height": 192}],
        "annotations": [],
        "categories": [{"id": 1, "name": "car"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(labelled))
    labels = CocoSet.load(tmp_path / "instances.json", tmp_path).source()
    for source in (open_source(short), open_source(single), labels):
        assert len(list(source)) in (1, 3)
        (line,) = source.warnings.lines()
        assert "12 of 16 bits" in line
    for command, path, output in (("replay", short, tmp_path / "x.mcap"), ("image", single, tmp_path / "out")):
        assert main([command, str(path), "-o", str(output), "--model", str(model), "--threads", "1"]) == 0
        assert "set the bit depth to 12 or auto" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_image(suffix: str, model: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / f"street{suffix}"
    assert cv2.imwrite(str(path), deep(bgr(scene)))
    arguments = [str(path), "--model", str(model), "-o", str(tmp_path / "out"), "--bit-depth", "auto"]
    assert main(["image", *arguments]) == 0
    written = json.loads((tmp_path / "out" / "street.json").read_text())
    assert sorted(each["class"] for each in written["instances"]) == ["car", "person"]
    with pytest.raises(SystemExit):
        main(["image", *arguments, "--bit-depth"])
    capsys.readouterr()


def test_other_readers(scene: Scene, tmp_path: Path):
    wide = bag(tmp_path / "twelve", deep(bgr(scene)), "bgr16")
    source = open_source(wide)
    source.bit_depth = "12"
    assert all((to_bgr(frame) == bgr(scene)).all() for _, frame in source)
    recording = BagRecording(wide, bit_depth="12")
    assert all((to_bgr(shot.frame) == bgr(scene)).all() for shot in recording.shots() if shot.frame is not None)
    for index in range(3):
        image = bgr(scene).copy()
        image[:, index] = 255
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), deep(image))
    images = [{"id": index, "file_name": f"{index}.png", "width": 320, "height": 192} for index in range(3)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "car"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    labelled = CocoSet.load(tmp_path / "instances.json", tmp_path).source()
    labelled.bit_depth = "12"
    assert {int(to_bgr(frame).max()) for _, frame in labelled} == {255}
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for depth, highest in (("12", 255), ("auto", 255), ("16", 15)):
        frames = gather(paths, bit_depth=depth)
        assert {int(to_bgr(frame).max()) for _, frame in frames.frames(frames.images)} == {highest}


def test_what_is_no_bit_depth(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="bit depth"):
        LabelOptions(tmp_path / "model.onnx", bit_depth="wide")
    with pytest.raises(ConfigurationError, match="bit depth"):
        open_source(bag(tmp_path / "bag", np.zeros((2, 2, 3), np.uint8), "bgr8")).bit_depth = "4"
