"""The accuracy gate on models with class maps: stuff such as road and sky is in no instance and no label."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from colour_model import random_scene
from onnx import numpy_helper
from panoptic_model import GROUND, save_panoptic_model, save_semantic_model

from seg_perception.offboard.toolchain.quantize.frames import CalibrationSet, gather
from seg_perception.offboard.toolchain.quantize.gate import Budget, Gate, Yardstick
from seg_perception.offboard.toolchain.quantize.report import Precision

WIDTH, HEIGHT = 320, 192


def write_images(folder: Path, rectangles: int) -> CalibrationSet:
    rng = np.random.default_rng(3)
    folder.mkdir()
    for index in range(8):
        scene = random_scene(rng, WIDTH, HEIGHT, rectangles, sides=(24, 60))
        # Where there is no rectangle, nothing else would tell the images apart.
        scene.image[0, index] += 1
        cv2.imwrite(str(folder / f"{index}.png"), scene.image[..., ::-1])
    return gather([folder])


def with_other_stuff(model: onnx.ModelProto, columns: int) -> onnx.ModelProto:
    """The same instances, but ground instead of air in the first columns of the class map."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    (stuff,) = [tensor for tensor in other.graph.initializer if tensor.name == "stuff/stuff"]
    values = numpy_helper.to_array(stuff).copy()
    values[..., :columns] = GROUND
    stuff.CopyFrom(numpy_helper.from_array(values, stuff.name))
    return other


@pytest.mark.parametrize("rectangles", [0, 4])
def test_stuff_that_changes_is_over_the_budget(tmp_path: Path, rectangles: int):
    frames = write_images(tmp_path / "images", rectangles)
    model = onnx.load(save_panoptic_model(tmp_path / "model.onnx"))
    gate = Gate(model, frames, Budget())

    same = gate.measure(model, "same")
    assert (same.over, same.differs) == ((), ())
    assert same.precision.class_map_share == 1.0

    # Air is the upper half; the first 8 of 80 columns of it are about 5 % of all.
    other = gate.measure(with_other_stuff(model, 8), "other")
    assert len(other.over) == 1
    assert "class map: expected the same class in at least 97 % of the pixels, got 9" in other.over[0]
    assert other.precision.class_map_share == pytest.approx(0.95, abs=0.02)
    assert "class map 9" in str(other.precision)


def test_layers_are_ranked_by_their_harm_to_class_maps_too(tmp_path: Path):
    frames = write_images(tmp_path / "images", 4)
    model = onnx.load(save_panoptic_model(tmp_path / "model.onnx"))
    yardstick = Yardstick(model, frames, frames.images)
    harm = [yardstick.distortion(with_other_stuff(model, columns)) for columns in (0, 4, 40)]
    assert harm[0] == 0
    assert 0 < harm[1] < harm[2]


def test_a_model_without_instances_is_measured_by_its_class_map(tmp_path: Path):
    frames = write_images(tmp_path / "images", 4)
    model = onnx.load(save_semantic_model(tmp_path / "model.onnx"))
    precision = Gate(model, frames, Budget()).measure(model, "same").precision
    assert precision.class_map_share == 1.0


def test_a_model_without_class_map_says_nothing_of_it():
    precision = Precision(frames=1, instances=1, mask_iou=1.0, missed=0, extra=0, switched=0)
    assert precision.class_map_share is None
    assert "class map" not in str(precision)
