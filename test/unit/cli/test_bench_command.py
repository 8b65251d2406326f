"""`seg_perception bench` on a CPU backend and on the GPU's backend over the host."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import paint_scene, save_canonical_colour_model

from seg_perception.cli.bench_frames import encoded
from seg_perception.cli.main import main
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.frame import ENCODINGS

PERCENTILES = {"p50", "p95", "p99"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and an image with three things on it."""
    folder = tmp_path_factory.mktemp("bench")
    save_canonical_colour_model(folder / "model.onnx", batch=None)
    rectangles = [(32, 32, 96, 96, 0), (128, 32, 192, 160, 1), (224, 32, 288, 96, 3)]
    cv2.imwrite(str(folder / "scene.png"), paint_scene(320, 192, rectangles).image[..., ::-1])
    return folder


def bench(folder: Path, *arguments: str) -> int:
    given = ["--input", str(folder / "scene.png"), "--rounds", "3", "--threads", "1", *arguments]
    return main(["bench", str(folder / "model.onnx"), *given])


def test_stages_of_a_cpu_backend(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    assert bench(folder, "--batch", "2", "--size", "640x384", "--encoding", "nv12", "--json", str(path)) == 0
    table = capsys.readouterr().out
    result = json.loads(path.read_text())
    assert list(result["stages"]) == ["decode", "letterbox", "model", "select", "paint"]
    for name, times in [*result["stages"].items(), ("frames to results", result["total"])]:
        assert set(times) == PERCENTILES
        assert 0 < times["p50"] <= times["p95"] <= times["p99"]
        assert f"{name} " in table
    assert sum(times["p50"] for times in result["stages"].values()) < 1.5 * result["total"]["p50"]
    assert result["instances"] == {"fewest": 3, "most": 3, "mean": 3.0}
    assert "1 of 640x384 nv12; 3 to 3 instances painted on each" in table
    assert result["memory"]["host_peak"] >= result["memory"]["host"] > 10


def test_json_alone_on_stdout_and_generated_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--rounds", "1", "--size", "128x96", "--json", "-", "--backend", "onnxruntime"]
    assert main(["bench", str(folder / "model.onnx"), *given]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["frames"] == {"width": 128, "height": 96, "encoding": "bgr8", "images": 4, "batch": 1}
    assert result["model"]["backend"].startswith("onnxruntime")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--encoding", "h264"], "--encoding: expected one of bgr8"),
        (["--encoding", "nv12", "--size", "101x60"], "--size: nv12 needs a width that is a multiple of 2"),
        (["--size", "large"], "--size: expected WIDTHxHEIGHT"),
        (["--size", "0x10"], "--size: expected"),
        (["--input", "nowhere.png"], "nowhere.png: does not exist"),
        (["--json", "/nowhere/result.json"], "--json: /nowhere/result.json cannot be written"),
    ],
)
def test_what_cannot_be_measured(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, *arguments) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_frames_of_every_encoding_show_the_image(encoding: str) -> None:
    y, x = np.mgrid[0:64, 0:96]
    image = np.stack([x * 2, y * 3, x + y], axis=-1).astype(np.uint8)
    shown = to_bgr(encoded(image, encoding))
    if encoding in ("mono8", "mono16", "8UC1", "16UC1"):
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR).astype(np.uint8)
    assert np.abs(shown.astype(int) - image).max() <= 4
