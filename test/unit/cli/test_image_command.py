"""`seg_perception image` end to end, on a model whose right answers are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import FAULT_COLOUR, Scene, paint_scene, save_canonical_colour_model
from panoptic_model import AIR, GROUND, save_panoptic_model, save_semantic_model
from pycocotools import mask as coco_mask

from seg_perception.cli.main import main

TABLE = """
name: colours
classes: [person, car, stop sign, traffic light]
groups: {pedestrian: [person], vehicle: [car], traffic_sign: [stop sign]}
ids: {person: 1, car: 3, stop sign: 13, traffic light: 10}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx", fault="predictions")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "colours.yaml"
    path.write_text(TABLE)
    return path


@pytest.fixture
def scene() -> Scene:
    return paint_scene(640, 384, [(32, 64, 160, 256, 0), (240, 160, 560, 352, 1), (480, 16, 560, 96, 3)])


def save(scene: Scene, path: Path) -> Path:
    assert cv2.imwrite(str(path), scene.image[..., ::-1])
    return path


def save_video(scene: Scene, path: Path, count: int) -> Path:
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (640, 384))
    for _ in range(count):
        writer.write(np.ascontiguousarray(scene.image[..., ::-1]))
    writer.release()
    return path


def run(*arguments: object) -> int:
    return main(["image", *map(str, arguments)])


def test_writes_overlay_map_and_instances(
    model: Path, table: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = save(scene, tmp_path / "street.png"), tmp_path / "out"
    assert run(image, "--model", model, "--classes", table, "-o", out) == 0
    written = json.loads((out / "street.json").read_text())
    assert (written["width"], written["height"]) == (640, 384)
    assert written["source"] == str(image)
    # The traffic light belongs to no road group of this table.
    assert {each["class"]: each["group"] for each in written["instances"]} == {"person": "pedestrian", "car": "vehicle"}
    pixels = cv2.imread(str(out / "street.instances.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16
    assert pixels.shape == (384, 640)
    for each in written["instances"]:
        index = {"person": 0, "car": 1}[each["class"]]
        own, truth = pixels == each["number"], scene.instance_map == index + 1
        assert (own & truth).sum() / (own | truth).sum() > 0.95
        assert each["area"] == own.sum()
        np.testing.assert_allclose(each["box_camera"], scene.boxes[index], atol=3)
    overlay = cv2.imread(str(out / "street.overlay.jpg"))
    assert overlay.shape == (384, 640, 3)
    assert "1 pedestrian" in capsys.readouterr().out


def test_other_classes_on_request(model: Path, table: Path, scene: Scene, tmp_path: Path) -> None:
    image, out = save(scene, tmp_path / "street.png"), tmp_path / "out"
    assert run(image, "--model", model, "--classes", table, "-o", out, "--keep-other") == 0
    classes = {each["class"]: each["group"] for each in json.loads((out / "street.json").read_text())["instances"]}
    assert classes["traffic light"] == "other"


def test_score_threshold(model: Path, table: Path, scene: Scene, tmp_path: Path) -> None:
    image, out = save(scene, tmp_path / "street.png"), tmp_path / "out"
    assert run(image, "--model", model, "--classes", table, "-o", out, "--score", 0.99) == 0
    assert json.loads((out / "street.json").read_text())["instances"] == []


def test_a_class_map_alone(table: Path, scene: Scene, tmp_path: Path) -> None:
    image, out = save(scene, tmp_path / "street.png"), tmp_path / "out"
    model = save_semantic_model(tmp_path / "semantic.onnx")
    assert run(image, "--model", model, "--classes", table, "-o", out) == 0
    written = json.loads((out / "street.json").read_text())
    # Largest first. The traffic light belongs to no road group of this table, and the background to no object.
    assert [(each["class"], each["score"]) for each in written["instances"]] == [("car", 1.0), ("person", 1.0)]
    pixels = cv2.imread(str(out / "street.instances.png"), cv2.IMREAD_UNCHANGED)
    assert (pixels == np.array([0, 2, 1, 0])[scene.instance_map]).mean() > 0.99
    semantic = cv2.imread(str(out / "street.semantic.png"), cv2.IMREAD_UNCHANGED)
    assert semantic.dtype == np.uint8
    # Class index + 1: `background` is the model's first class.
    assert (semantic == np.array([1, 2, 3, 5])[scene.instance_map]).mean() > 0.99


def test_a_class_map_beside_instances(model: Path, table: Path, scene: Scene, tmp_path: Path) -> None:
    image, out = save(scene, tmp_path / "street.png"), tmp_path / "out"
    panoptic = save_panoptic_model(tmp_path / "panoptic.onnx")
    assert run(image, "--model", panoptic, "--classes", table, "-o", out, "--keep-other") == 0
    semantic = cv2.imread(str(out / "street.semantic.png"), cv2.IMREAD_UNCHANGED)
    stuff = np.where(np.arange(384)[:, None] < 192, AIR + 1, GROUND + 1)
    things = np.array([0, 1, 2, 4])[scene.instance_map]
    assert (semantic == np.where(things, things, stuff)).mean() > 0.97
    # A model without a class map has no such file.
    assert run(image, "--model", model, "--classes", table, "-o", tmp_path / "plain") == 0
    assert not list((tmp_path / "plain").glob("*.semantic.png"))


def test_coco_results_of_a_class_map(table: Path, scene: Scene, tmp_path: Path) -> None:
    image, results = save(scene, tmp_path / "7.png"), tmp_path / "out" / "results.json"
    model = save_semantic_model(tmp_path / "semantic.onnx")
    table.write_text(TABLE.replace("ids: {", "ids: {background: 0, "))
    assert run(image, "--model", model, "--classes", table, "-o", tmp_path / "out", "--coco", results) == 0
    entries = json.loads(results.read_text())
    assert [entry["category_id"] for entry in entries] == [3, 1, 10]
    mask = coco_mask.decode(entries[0]["segmentation"]).astype(bool)
    truth = scene.instance_map == 2
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95


def test_coco_results_have_every_class_and_whole_masks(
    model: Path, table: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    save(scene, folder / "COCO_val2017_000000000042.png")
    results = out / "results.json"
    assert run(folder, "--model", model, "--classes", table, "-o", out, "--score", 0.01, "--coco", results) == 0
    entries = json.loads(results.read_text())
    assert sorted(entry["category_id"] for entry in entries) == [1, 3, 10]
    for entry in entries:
        index = {1: 0, 3: 1, 10: 2}[entry["category_id"]]
        mask = coco_mask.decode(entry["segmentation"]).astype(bool)
        truth = scene.instance_map == index + 1
        assert entry["image_id"] == 42
        assert mask.shape == (384, 640)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.95
        x, y, width, height = entry["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], scene.boxes[index], atol=3)
    assert "mean IoU 1.0000" in capsys.readouterr().out


def test_coco_needs_image_ids(
    model: Path, table: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stray, image = save(scene, tmp_path / "notes.png"), save(scene, tmp_path / "7.png")
    arguments = ("--model", model, "--classes", table, "-o", tmp_path / "out", "--coco", tmp_path / "r.json")
    assert run(stray, image, *arguments) == 1
    assert "skipped: notes: --coco: expected an integer (the image id)" in capsys.readouterr().out
    assert {entry["image_id"] for entry in json.loads((tmp_path / "r.json").read_text())} == {7}


def test_coco_needs_category_ids(
    model: Path, table: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text(TABLE.replace("ids:", "# ids:"))
    image = save(scene, tmp_path / "1.png")
    arguments = ("--model", model, "--classes", table, "-o", tmp_path / "out", "--coco", tmp_path / "r.json")
    assert run(image, *arguments) == 1
    assert "ids" in capsys.readouterr().err


def test_what_cannot_be_used_is_named_and_the_rest_is_done(
    model: Path, table: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    save(scene, folder / "good.png")
    whole = save(scene, folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    broken = paint_scene(640, 384, [])
    broken.image[:32, :32] = FAULT_COLOUR
    save(broken, folder / "nan.png")
    assert run(folder, "--model", model, "--classes", table, "-o", out) == 1
    printed = capsys.readouterr().out
    assert "truncated.jpg" in printed
    assert "nan" in printed
    assert "NaN or infinity" in printed
    assert "1 frames" in printed
    assert (out / "good.json").exists()
    assert not (out / "nan.json").exists()


def test_videos_in_a_folder_are_listed_as_ignored(
    model: Path, table: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_video(scene, tmp_path / "images" / "drive.avi", 2).parent
    save(scene, folder / "good.png")
    (folder / "notes.txt").write_text("no image")
    assert run(folder, "--model", model, "--classes", table, "-o", tmp_path / "out") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ignored")]
    assert "2 files" in line
    assert line.endswith("given by their own paths: drive.avi")


def test_equal_names_from_two_folders_do_not_overwrite(model: Path, table: Path, scene: Scene, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(scene, tmp_path / name / "street.png")
    assert run(tmp_path / "a", tmp_path / "b", "--model", model, "--classes", table, "-o", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.json"))) == 2


def test_a_video_becomes_a_video(model: Path, table: Path, scene: Scene, tmp_path: Path) -> None:
    # Two of one name: neither may swallow the other.
    videos = [save_video(scene, tmp_path / folder / "drive.avi", count) for folder, count in (("a", 5), ("b", 3))]
    assert run(*videos, "--model", model, "--classes", table, "-o", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*drive_*.json"))) == 8
    for name, count in (("drive.overlay.mp4", 5), ("2.drive.overlay.mp4", 3)):
        overlay = cv2.VideoCapture(str(tmp_path / "out" / name))
        assert overlay.get(cv2.CAP_PROP_FRAME_COUNT) == count
        assert overlay.get(cv2.CAP_PROP_FPS) == 10.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.png"], "does not exist"),
        (["."], "expected files ending in"),
        (["street.png", "--backend", "abacus"], "expected one of openvino"),
        (["street.png", "--device", "abacus"], "OpenVINO has CPU"),
        (["street.png", "--score", "2"], "score thresholds: expected 0 to 1, got 2.0"),
        (["street.png", "--min-pixels", "-3"], "min_pixels: expected 0 to 2147483647, got -3"),
        (["street.png", "--threads", "-3"], "threads: expected 0 (the backend's choice) or more, got -3"),
        ([".", "-o", "."], "it is a folder of input"),
        (["street.png", "-o", "/proc/nowhere"], "cannot be written"),
        (["street.png", "--model", "absent.onnx"], "does not exist"),
        (["street.png", "--classes", "absent"], "class table"),
    ],
)
def test_errors_say_what_was_expected(
    arguments: list[str],
    message: str,
    model: Path,
    table: Path,
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    if arguments[0] != ".":
        save(scene, work / "street.png")
    assert run("--model", model, "--classes", table, "-o", tmp_path / "out", *arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("module", "package"), [("cv2", "opencv-python"), ("tqdm", "tqdm"), ("yaml", "PyYAML")])
def test_a_package_that_is_missing_is_named(
    module: str,
    package: str,
    model: Path,
    table: Path,
    scene: Scene,
    tmp_path: Path,
) -> None:
    image = save(scene, tmp_path / "street.png")
    block = f"import sys; sys.modules[{module!r}] = None"
    code = f"{block}; from seg_perception.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["image", str(image), "--model", str(model), "--classes", str(table), "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"needs the Python package {package}" in done.stderr
    assert "Traceback" not in done.stderr
