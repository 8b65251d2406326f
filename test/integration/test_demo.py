"""`make demo` end to end: camera, node and viewer in processes of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import paint_scene, save_colour_model

from demo.images import schedule, spread
from seg_perception.core.errors import SourceError

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        scene = paint_scene(640, 384, [(32 + 16 * index, 64, 160, 256, 0), (240, 160, 560, 352, 1)])
        cv2.imwrite(str(folder / f"{index}.png"), scene.image[..., ::-1])
    return folder


def test_a_raw_export_and_a_folder_of_images(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # The class table `coco` knows these names, so both rectangles belong to road groups.
    model = save_colour_model(tmp_path / "colours.onnx")
    done = demo("--model", model, "--input", images, "--out", out, "--frames", 30, "--rate", 15, "--size", "640x384")
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = {key: int(value) for key, value in re.findall(r"frames (\w+) +(\d+)", done.stdout)}
    assert numbers["sent"] == 30
    assert numbers["processed"] + numbers["dropped"] == 30
    assert numbers["processed"] >= 20
    groups = {key: int(value) for key, value in re.findall(r"^ +(\w+) +(\d+)$", done.stdout, re.MULTILINE)}
    assert groups["pedestrian"] == groups["vehicle"] >= 20
    assert re.search(r"p50 +\d+\.\d ms +p95 +\d+\.\d ms +p99 +\d+\.\d ms", done.stdout)
    assert re.search(r"model +\d+\.\d\d$", done.stdout, re.MULTILINE)
    assert len(list((out / "overlays").glob("*.jpg"))) >= 20
    assert cv2.imread(str(out / "contact_sheet.jpg")).shape == (4 * 270, 3 * 480, 3)


def test_without_input_it_drives_through_the_street_world(tmp_path: Path) -> None:
    """With a model that finds nothing there: what it is worth is not the point here."""
    out = tmp_path / "out"
    done = demo("--model", save_colour_model(tmp_path / "colours.onnx"), "--frames", 12, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = {key: int(value) for key, value in re.findall(r"frames (\w+) +(\d+)", done.stdout)}
    assert numbers["sent"] == 12
    assert numbers["processed"] == 12 - numbers["dropped"] > 0
    assert f"received against the truth, {numbers['processed']} frames" in done.stdout
    assert re.search(r"16 x 16 or more +AP50( +0\.000){2}", done.stdout)
    assert re.search(r"found 0 of [1-9]\d+ \(0\.0 %\)", done.stdout)
    video = cv2.VideoCapture(str(out / "drive.mp4"))
    shown = [video.read()[1].shape for _ in range(12)]
    assert set(shown) == {(384, 2 * 640, 3)}
    assert not video.read()[0]
    assert cv2.imread(str(out / "contact_sheet.jpg")).shape == (4 * 288, 2 * 960, 3)
    # What it made can be played again, and the other file of results is as good as the first.
    again = demo("--model", tmp_path / "colours.onnx", "--input", out / "streetworld", "--frames", 6, "--out", out)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"frames sent +6 ", again.stdout)
    assert "received against the truth" in again.stdout


def test_a_model_that_is_missing(images: Path, tmp_path: Path) -> None:
    done = demo("--model", tmp_path / "absent.onnx", "--input", images, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "absent.onnx does not exist" in done.stderr


def test_an_input_that_is_missing_is_told_before_anything_starts(tmp_path: Path) -> None:
    done = demo("--model", tmp_path / "absent.onnx", "--input", tmp_path / "nothing", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'nothing'}: does not exist")


def test_a_folder_for_results_that_cannot_be_made(images: Path) -> None:
    done = demo("--model", "absent.onnx", "--input", images, "--out", "/proc/nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_sources_share_the_frames_and_images_are_held(images: Path) -> None:
    shown, order = schedule([images, images / "0.png"], 12, (320, 200))
    assert order == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert {image.shape for image in shown} == {(200, 320, 3)}


def test_images_are_spread_over_a_long_video(tmp_path: Path) -> None:
    video = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for index in range(100):
        video.write(np.full((48, 64, 3), 2 * index, np.uint8))
    video.release()
    greys = [float(image.mean()) for image in spread(tmp_path / "drive.avi", 3, (64, 48))]
    assert greys == pytest.approx([0, 98, 198], abs=4)


def test_a_source_without_a_readable_image_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(SourceError, match="at least one image that can be read"):
        spread(tmp_path, 3, (64, 48))
