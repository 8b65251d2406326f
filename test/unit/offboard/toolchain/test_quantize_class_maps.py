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

from seg_perception.offboard.metrics.agreement import AgreementBudget
from seg_perception.offboard.metrics.class_maps import ClassMapAgreement
from seg_perception.offboard.toolchain.quantize.frames import CalibrationSet, gather
from seg_perception.offboard.toolchain.quantize.gate import Budget, Gate, ReferenceMeasurement
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


def test_layers_are_ranked_by_their_sensitivity_in_class_maps_too(tmp_path: Path):
    frames = write_images(tmp_path / "images", 4)
    model = onnx.load(save_panoptic_model(tmp_path / "model.onnx"))
    measurement = ReferenceMeasurement(model, frames, frames.images)
    distortions = [measurement.distortion(with_other_stuff(model, columns)) for columns in (0, 4, 40)]
    assert distortions[0] == 0
    assert 0 < distortions[1] < distortions[2]


def test_a_lost_small_class_outweighs_a_moved_border_where_classes_are_judged(tmp_path: Path, monkeypatch):
    frames = write_images(tmp_path / "images", 4)
    model = onnx.load(save_semantic_model(tmp_path / "model.onnx"))
    measurement = ReferenceMeasurement(model, frames, frames.images)
    found = {"lost class": maps((1, 4, 0)), "border": maps((1, 200, 190))}
    monkeypatch.setattr(measurement, "found", lambda model, fused: model)
    monkeypatch.setattr(measurement, "compared", lambda found, rule: [])
    monkeypatch.setattr(measurement, "compared_maps", found.__getitem__)
    lost, moved = (measurement.distortion(name) for name in found)
    assert lost > moved > 0


def test_a_model_without_instances_is_measured_by_its_class_map(tmp_path: Path):
    frames = write_images(tmp_path / "images", 4)
    model = onnx.load(save_semantic_model(tmp_path / "model.onnx"))
    verdict = Gate(model, frames, Budget()).measure(model, "same")
    assert verdict.over == verdict.differs == ()
    assert verdict.precision.class_map_share == verdict.precision.class_map_iou == 1.0
    # What its class map falls apart into are no instances of the model's.
    assert (verdict.precision.instances, verdict.precision.mask_iou) == (0, None)
    assert str(verdict.precision) == "class map 100.00 % the same, mean class IoU 1.0000 in 2 frames"


def maps(*regions: tuple[int, int, int]) -> ClassMapAgreement:
    """Of a thousand rows of a thousand pixels of class 0; `regions` are a class and its rows in both maps."""
    counts = np.zeros((256, 256), np.int64)
    counts[0, 0] = 1_000_000
    for label, ours, theirs in regions:
        counts[label, label] = 1000 * min(ours, theirs)
        counts[label, 0] += 1000 * max(ours - theirs, 0)
        counts[0, label] += 1000 * max(theirs - ours, 0)
    return ClassMapAgreement(counts)


@pytest.mark.parametrize(("found", "over"), [
    (maps(), ""),
    (maps((1, 10, 10), (2, 10, 9)), ""),
    # 99 % of the pixels are the same, and half of a class is lost.
    (maps((1, 20, 10)), "mean IoU of the classes of at least 0.9, got 0.7"),
    # A class of a thousandth of all pixels counts, one of half of that does not.
    (maps((1, 3, 0)), "mean IoU of the classes of at least 0.9, got 0.49"),
    (maps((1, 1, 0)), ""),
    (maps((1, 50, 0), (2, 50, 50)), "same class in at least 97 % of the pixels"),
    (ClassMapAgreement(np.zeros((256, 256), np.int64)), "nothing to compare"),
])  # fmt: skip
def test_a_semantic_model_is_judged_by_pixels_and_by_classes(found: ClassMapAgreement, over: str):
    violations = AgreementBudget().semantic_violations(found)
    assert (over in violations[0]) if over else (violations == ())


def test_a_report_with_the_first_names_is_read():
    old = {"frames": 1, "instances": 9, "mask_iou": 0.5, "missed": 1, "extra": 2, "switched": 3}
    precision = Precision.from_dict(old)
    assert (precision.false_negatives, precision.false_positives, precision.class_confusions) == (1, 2, 3)


def test_a_model_without_class_map_says_nothing_of_it():
    precision = Precision(frames=1, instances=1, mask_iou=1.0, false_negatives=0, false_positives=0, class_confusions=0)
    assert precision.class_map_share is None
    assert "class map" not in str(precision)
